"""Lists of objects that mostly differ in a few fields alone: what the others say is read once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields

_KEPT: Final = 1000
"""Objects without a like may come by the million."""


class AlikeReader:
    """Reads objects one by one; for one user, one list.

    Args:
        schema: Of a whole object; it has a field ``config``, a JSON object that nobody reads here.
        fill: An object out of what the schema makes of one without its own fields (one value for all that are alike),
            and those of them that it came with.
        own: The other fields, beside ``config``, that seldom two objects have in common.
    """

    def __init__(self, schema: Schema, fill: Callable[..., Any], *, own: tuple[str, ...] = ()) -> None:
        self._schema = schema
        self._fill = fill
        self._own = {name: schema.fields[name] for name in own}
        self._read: dict[str, Any] = {}

    def load(self, item: Any) -> Any:
        """One object, a value of JSON.

        Raises:
            ValidationError: It does not fit; every fault of it.
        """
        config = item.get("config", {}) if isinstance(item, dict) else None
        if not isinstance(config, dict):
            raise self._faults(item)
        options = {name: value for name, value in item.items() if name != "config"}
        try:
            own = {name: self._own[name].deserialize(options.pop(name)) for name in self._own if name in options}
            alike = self._alike(options)
        except ValidationError:
            raise self._faults(item) from None
        return self._fill(alike, config=config, **own)

    def _alike(self, options: dict[str, Any]) -> Any:
        # As text: to Python, 1 and 1.0 and True are equal.
        key = repr(options)
        if key not in self._read:
            if len(self._read) == _KEPT:
                self._read.clear()
            self._read[key] = self._schema.load(options)
        return self._read[key]

    def _faults(self, item: Any) -> ValidationError:
        try:
            fields.Nested(self._schema).deserialize(item)
        except ValidationError as error:
            return error
        raise AssertionError(f"{type(self._schema).__name__} reads a part of an object only with the rest of it")


class AlikeField(fields.List[Any]):
    """A list that is read so; arguments as ``AlikeReader`` has them."""

    def __init__(self, schema: Schema, fill: Callable[..., Any], *, own: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(fields.Nested(schema), **options)
        self._schema = schema
        self._fill = fill
        self._own = own

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> list[Any]:
        if not isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        # Before any is looked at: what is wrong with a million of them would fill the answer.
        self._validate(value)
        reader = AlikeReader(self._schema, self._fill, own=self._own)
        loaded, errors = [], {}
        for place, item in enumerate(value):
            try:
                loaded.append(reader.load(item))
            except ValidationError as error:
                errors[place] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded
