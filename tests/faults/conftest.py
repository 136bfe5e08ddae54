"""A cluster per test, on stores that every fault test shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime.stores import Stores
from tests.conftest import BUCKET, _folder_open_to_all
from tests.faults.cluster import Cluster


@pytest.fixture(scope="module")
def fault_stores(postgres_binaries: Path | None) -> Iterator[Stores]:
    """Durable stores that the tests of a module kill and restart."""
    stores = Stores(
        _folder_open_to_all(),
        postgres_binaries=postgres_binaries,
        postgres_settings={"shared_buffers": "128MB"},
        buckets=(BUCKET,),
        throw_away=True,
    )
    stores.start()
    yield stores
    stores.remove()


@pytest.fixture
def cluster(fault_stores: Stores, tmp_path: Path) -> Iterator[Cluster]:
    """Nothing runs yet; a test starts the engines and workers it needs."""
    cluster = Cluster(fault_stores, tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def patient(fault_stores: Stores, tmp_path: Path) -> Iterator[Cluster]:
    """One whose workers give a job that is to stop ten minutes before they kill it."""
    cluster = Cluster(fault_stores, tmp_path, HAULIER_KILL_GRACE_S="600")
    yield cluster
    cluster.close()
