"""What every connection is set to."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.persistence.sessions import Sessions, SingleStatements, prunes_safely


@pytest.mark.parametrize(
    ("server_version", "is_safe"),
    [(150_018, True), (170_009, True), (180_000, False), (180_006, False), (180_007, True)],
)
def test_partitions_are_pruned_where_the_server_does_it_safely(server_version: int, is_safe: bool) -> None:
    assert prunes_safely(server_version) is is_safe


def test_connections_prune_only_where_that_is_safe(sessions: Sessions) -> None:
    for kind in (sessions, SingleStatements(sessions)):
        with kind.begin() as session:
            version = int(session.execute(text("SHOW server_version_num")).scalar_one())
            pruning = session.execute(text("SHOW enable_partition_pruning")).scalar_one()

        assert pruning == ("on" if prunes_safely(version) else "off")
