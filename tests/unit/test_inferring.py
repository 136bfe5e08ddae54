from __future__ import annotations

import pytest

from app.dataplane.inferring import infer


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", "-3"], "integer"),
        (["1", "3000000000"], "bigint"),
        (["1.5", "2"], "numeric"),
        (["00123", "10115"], "text"),
        (["yes", "no", ""], "boolean"),
        (["1", "0"], "integer"),
        (["2024-05-31", "2024-06-01"], "date"),
        (["2024-05-31T12:00:00Z", "2024-06-01 10:00"], "timestamptz"),
        (["123e4567-e89b-12d3-a456-426614174000"], "uuid"),
        (['{"a": 1}', "[1]"], "json"),
        (["a", "1"], "text"),
        (["", ""], "text"),
    ],
)
def test_a_field_has_the_narrowest_type_that_fits(values: list[str], kind: str) -> None:
    assert infer("x", [value.encode() for value in values]).type == kind


def test_some_bad_values_lower_the_confidence_alone() -> None:
    found = infer(" Birth-Date ", [b"2024-01-01"] * 97 + [b"soon", b"", b"2024-01-02"])

    assert (found.column, found.type, found.confidence) == ("birth_date", "date", 0.99)
    assert (found.required, found.unique, found.max_length) == (False, False, 10)
    assert found.examples == ["2024-01-01", "soon", "2024-01-02"]
