"""Memory and processors in the words of requests."""

from __future__ import annotations

import pytest

from app.domain.resources import cpu_m, memory_mb


@pytest.mark.feature("S2-39")
@pytest.mark.parametrize(
    ("said", "mebibytes"),
    [("1GB", 1024), ("2GB", 2048), ("512MiB", 512), ("1.5 g", 1536), ("2048K", 2), ("1048576B", 1), (256, 256)],
)
def test_memory_is_read_in_the_units_people_write(said: object, mebibytes: int) -> None:
    assert memory_mb(said) == mebibytes


@pytest.mark.parametrize(
    "said", ["", "1", "GB", "-1GB", "1 XB", "1023KB", "2TB" * 20, "1025TB", 0, -1, True, 1.5, None]
)
def test_what_is_no_memory_is_refused_with_what_came(said: object) -> None:
    with pytest.raises(ValueError, match="got"):
        memory_mb(said)


@pytest.mark.feature("S2-40")
@pytest.mark.parametrize(
    ("said", "thousandths"), [("1000m", 1000), ("2000m", 2000), ("1.5", 1500), (2, 2000), (0.25, 250), ("250m", 250)]
)
def test_processors_are_read_with_and_without_millicores(said: object, thousandths: int) -> None:
    assert cpu_m(said) == thousandths


@pytest.mark.parametrize("said", ["", "two", "-1", "1e3", "0", 0, 0.0001, 1025, True, None, [1], float("nan")])
def test_what_are_no_processors_is_refused_with_what_came(said: object) -> None:
    with pytest.raises(ValueError, match="got"):
        cpu_m(said)
