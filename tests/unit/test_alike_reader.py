"""Objects that differ in a few fields alone are read by what they have in common."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api import alike
from app.api.alike import AlikeReader


class OneSchema(Schema):
    """Counts how often it reads."""

    reads = 0
    size = fields.Raw(load_default=None)
    name = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 5))
    config = fields.Dict(keys=fields.String(), load_default=dict)

    @post_load
    def _count(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.reads += 1
        return data


def a_reader(schema: OneSchema) -> AlikeReader:
    def fill(options: dict[str, Any], **own: Any) -> tuple[Any, dict[str, Any]]:
        return options["size"], own

    return AlikeReader(schema, fill, own=("name",))


def test_options_that_are_alike_are_read_once() -> None:
    schema = OneSchema()
    reader = a_reader(schema)

    read = [reader.load({"size": "L", "name": f"n{place}", "config": {"value": place}}) for place in range(4)]

    assert read == [("L", {"name": f"n{place}", "config": {"value": place}}) for place in range(4)]
    assert schema.reads == 1


def test_values_that_python_takes_for_equal_are_not_alike() -> None:
    reader = a_reader(OneSchema())

    read = [reader.load({"size": size})[0] for size in (1, True, 1.0, "1")]

    assert [(type(one), one) for one in read] == [(int, 1), (bool, True), (float, 1.0), (str, "1")]


def test_what_is_not_said_is_left_to_whoever_fills_in() -> None:
    assert a_reader(OneSchema()).load({}) == (None, {"config": {}})


@pytest.mark.parametrize(
    ("item", "faults"),
    [
        ({"name": "", "colour": 1, "config": []}, {"name", "colour", "config"}),
        ({"name": "too long", "config": {}}, {"name"}),
        ({"name": 5, "colour": 1}, {"name", "colour"}),
        ({"config": None}, {"config"}),
        (7, {"_schema"}),
    ],
)
def test_every_fault_of_an_object_is_named(item: Any, faults: set[str]) -> None:
    with pytest.raises(ValidationError) as raised:
        a_reader(OneSchema()).load(item)

    assert set(raised.value.messages) == faults


def test_objects_without_a_like_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_KEPT", 2)
    schema = OneSchema()
    reader = a_reader(schema)

    sizes = [reader.load({"size": size})[0] for size in (1, 2, 2, 3, 1)]

    assert (sizes, schema.reads) == ([1, 2, 2, 3, 1], 4)


def test_a_schema_that_needs_an_object_whole_is_a_mistake() -> None:
    class NeedsName(OneSchema):
        """Its options cannot be read without the name."""

        @post_load
        def _look(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
            if data["name"] is None:
                raise ValidationError("expected a name", "name")
            return data

    with pytest.raises(AssertionError, match="NeedsName"):
        a_reader(NeedsName()).load({"name": "given"})
