"""What pydantic says is wrong with a config, as problems with pointers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any

from app.domain.errors import InvalidRequestError, Problem


def misfit(
    job_type: str, faults: Sequence[Any], config: Any, at: str, *, options: Collection[str]
) -> InvalidRequestError:
    """The refusal of a config of ``job_type``: one problem per fault, with pointers below ``at``.

    Args:
        options: What a config may hold, for the nearest of what was misspelt.
    """
    problems = tuple(Problem(at + _pointer(fault, config), _says(fault, options)) for fault in faults)
    return InvalidRequestError(
        f"the config does not fit job type {job_type!r}", code="job.config_invalid", problems=problems
    )


def _pointer(fault: Any, config: Any) -> str:
    """Where a fault is, without the members of unions that its place names on the way."""
    value, said = config, ""
    for part in fault["loc"]:
        inner = _step(value, part)
        said += "" if inner is value else f"/{part}"
        value = inner
    if fault["type"] == "missing":
        said += f"/{fault['loc'][-1]}"
    if fault["type"].startswith("union_tag"):
        said += f"/{fault['ctx']['discriminator'].strip(chr(39))}"
    return said


def may_be_mended(fault: Any, config: Any, open_to: Callable[[Any], bool]) -> bool:
    """Whether a fault may be gone when open values are filled in; a place may name a union's member on the way."""
    *way, last = fault["loc"] or ("",)
    value = config
    for part in way:
        value = _step(value, part)
    inner = _step(value, last)
    if fault["type"] == "extra_forbidden" or (fault["type"] == "missing" and inner is value):
        return False
    return open_to(inner)


def _step(value: Any, part: Any) -> Any:
    """The value at ``part``, or ``value`` itself when there is none."""
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return value


def _says(fault: Any, options: Collection[str]) -> str:
    """What pydantic found, in our words where its own speak of Python."""
    got = f"{fault['input']!r}"
    match fault["type"]:
        case "missing":
            return "this field is required"
        case "union_tag_invalid":
            return f"expected one of {fault['ctx']['expected_tags']}, got {fault['ctx']['tag']!r}"[:500]
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected an object, got {got}"[:500]
        case "value_error":  # of the whole config it says itself what came
            return f"{fault['ctx']['error']}, got {got}"[:500] if fault["loc"] else str(fault["ctx"]["error"])
        case "extra_forbidden":
            *within, name = fault["loc"]
            near = [] if within else get_close_matches(str(name), options, n=1)
            return f"there is no such option{f'; the nearest is {near[0]!r}' if near else ''}, got {got}"[:500]
        case _:
            return f"{fault['msg']}, got {got}"[:500]
