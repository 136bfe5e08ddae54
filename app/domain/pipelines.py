"""Pipelines: named stages that wait for each other and take their config from one another's results.

A string of a stage's config may hold ``{{ stages.extract.result.table }}``: alone it becomes the value with its JSON
type, within a longer string the value's text. ``{{ "{{" }}`` stands for two braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, NamedTuple

from app.domain.errors import InvalidRequestError, JobError, Problem, segment
from app.domain.jobs import Priority, priority_of, word_of
from app.domain.resources import Resources
from app.domain.retry import RetryChanges

MAX_STAGES: Final = 500
MAX_REFERENCES: Final = 1000
"""Templates in one stage's config at most."""
MAX_FILLED_BYTES: Final = 1_048_576
"""What the values put into one stage's config may come to as JSON."""

NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,62}"
# No braces inside: every character is looked at once, however many braces are opened and never closed.
_TEMPLATE: Final = re.compile(r'\{\{\s?"\{\{"\s?\}\}|\{\{[^{}]*\}\}')
_REFERENCE: Final = re.compile(rf"stages\.({NAME})\.result((?:\.[^\s.]+)*)")


class Reference(NamedTuple):
    """A value in the result of a stage; an empty path is the whole result, a number in it a place in a list."""

    stage: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(("stages", self.stage, "result", *self.path))


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: a job of its own, but for what it waits for.

    Args:
        depends_on: Names of stages that must have completed.
        priority: ``None`` for the pipeline's.
        max_concurrency: Jobs of its ``concurrency_key`` that may be at work.
    """

    name: str
    type: str
    config: dict[str, Any]
    depends_on: tuple[str, ...] = ()
    retry: RetryChanges | None = None
    attempt_timeout_s: float | None = None
    priority: Priority | None = None
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    resources: Resources = Resources()

    def as_json(self) -> dict[str, Any]:
        """As the pipeline's config keeps it, and as it could be sent."""
        return {
            **asdict(self),
            "retry": self.retry.as_json() if self.retry else None,
            "priority": word_of(self.priority),
            "resources": self.resources.as_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Stage:
        """The inverse of ``as_json``."""
        said: dict[str, Any] = {
            **value,
            "depends_on": tuple(value["depends_on"]),
            "retry": RetryChanges.from_json(value["retry"]) if value["retry"] else None,
            "priority": priority_of(value["priority"]),
            "resources": Resources.from_json(value["resources"]),
        }
        return cls(**said)


@dataclass(frozen=True, slots=True)
class Values:
    """What the references of a config refer to.

    Args:
        found: Those that are there; one that is not has no entry.
        size_bytes: Their sum as JSON; over ``MAX_FILLED_BYTES`` not all of them have been read.
    """

    found: Mapping[Reference, Any] = field(default_factory=dict)
    size_bytes: int = 0


def check(stages: Sequence[Stage]) -> None:
    """Check names, edges and templates, all but the stages' own types and configs.

    Raises:
        InvalidRequestError: A name is given twice, a stage waits for one that is not there or for itself by way of
            others, or a template refers to nothing that will be there.
    """
    problems = [*_wrong_names(stages)]
    if not problems:
        before = _before(stages)
        problems = [problem for no, stage in enumerate(stages) for problem in _wrong_templates(no, stage, before)]
    if problems:
        raise InvalidRequestError(
            "the stages do not fit together", code="pipeline.invalid", problems=tuple(problems[:100])
        )


def _wrong_names(stages: Sequence[Stage]) -> Iterator[Problem]:
    known = dict.fromkeys(stage.name for stage in stages)
    seen: set[str] = set()
    for no, stage in enumerate(stages):
        if stage.name in seen:
            yield Problem(f"/stages/{no}/name", f"expected a name of its own, got {stage.name!r} again")
        seen.add(stage.name)
        for place, needed in enumerate(stage.depends_on):
            pointer = f"/stages/{no}/depends_on/{place}"
            if needed not in known:
                yield Problem(pointer, f"expected one of {', '.join(known)[:300]}, got {needed!r}")
            elif needed in stage.depends_on[:place]:
                yield Problem(pointer, f"expected each stage once, got {needed!r} again")


def _before(stages: Sequence[Stage]) -> dict[str, frozenset[str]]:
    """All that is over before each stage begins."""
    needs = {stage.name: stage.depends_on for stage in stages}
    try:
        order = tuple(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = error.args[1]
        no = next(no for no, stage in enumerate(stages) if stage.name == cycle[-1])
        said = " waits for ".join(reversed(cycle))
        raise InvalidRequestError(
            "stages wait for each other in a circle",
            code="pipeline.cycle",
            problems=(Problem(f"/stages/{no}/depends_on", f"expected no circle, got: {said}"[:500]),),
        ) from None
    before: dict[str, frozenset[str]] = {}
    for name in order:
        before[name] = frozenset(needs[name]).union(*(before[needed] for needed in needs[name]))
    return before


def _wrong_templates(no: int, stage: Stage, before: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    count = 0
    for pointer, template in _templates(stage.config, f"/stages/{no}/config"):
        count += 1
        reference = _reference(template)
        if reference is None and not _is_escape(template):
            expected = "{{ stages.NAME.result }} or {{ stages.NAME.result.FIELD }}"
            yield Problem(pointer, f"expected {expected}, got {template[:200]!r}")
        elif reference is not None and reference.stage not in before:
            yield Problem(pointer, f"{template[:200]!r} refers to stage {reference.stage!r}, which is not there")
        elif reference is not None and reference.stage not in before[stage.name]:
            yield Problem(
                pointer,
                f"{template[:200]!r} refers to stage {reference.stage!r}, which need not be over: "
                f"stage {stage.name!r} does not depend on it",
            )
    if count > MAX_REFERENCES:
        yield Problem(f"/stages/{no}/config", f"expected at most {MAX_REFERENCES} templates, got {count}")


def is_templated(value: Any) -> bool:
    """Whether any string in a JSON value holds a template."""
    return next(_templates(value, ""), None) is not None


def references(config: Mapping[str, Any]) -> list[Reference]:
    """What the templates of a config refer to, as often as they do."""
    found = (_reference(template) for _, template in _templates(config, ""))
    return [reference for reference in found if reference is not None]


def fill(config: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """``config`` with its templates' values put in.

    Raises:
        JobError: One refers to what is not in its stage's result, or the values are too much for a config.
    """
    wanted = references(config)
    for reference in wanted:
        if values.size_bytes <= MAX_FILLED_BYTES and reference not in values.found:
            raise JobError(
                f"the config refers to {reference}, which is not in the result of stage {reference.stage!r}",
                code="stage.reference_missing",
                data={"reference": str(reference)},
            )
    sizes = {reference: len(json.dumps(value)) for reference, value in values.found.items()}
    size_bytes = max(values.size_bytes, sum(sizes.get(reference, 0) for reference in wanted))
    if size_bytes > MAX_FILLED_BYTES:
        raise JobError(
            f"what the config refers to comes to {size_bytes:,} bytes, at most {MAX_FILLED_BYTES:,} fit",
            code="stage.config_too_large",
            hint="Hand large data on by a place in S3 or a table, not in a result.",
        )
    return {name: _filled(inner, values.found) for name, inner in config.items()}


def _filled(value: Any, found: Mapping[Reference, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, found) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, found) for inner in value]
    if not isinstance(value, str):
        return value
    reference = _reference(value)
    if reference is not None:
        return found[reference]
    return _TEMPLATE.sub(lambda template: _as_text(template.group(), found), value)


def _as_text(template: str, found: Mapping[Reference, Any]) -> str:
    reference = _reference(template)
    if reference is None:
        return "{{" if _is_escape(template) else template
    value = found[reference]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _reference(template: str) -> Reference | None:
    """What ``template`` refers to if it is one, and nothing more."""
    if not (template.startswith("{{") and template.endswith("}}")):
        return None
    matched = _REFERENCE.fullmatch(template[2:-2].strip())
    if matched is None or _TEMPLATE.fullmatch(template) is None:
        return None
    return Reference(matched[1], tuple(matched[2].split(".")[1:]))


def _is_escape(template: str) -> bool:
    return '"{{"' in template


def _templates(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every template in a JSON value, with a pointer to the string that holds it."""
    if isinstance(value, str):
        for template in _TEMPLATE.findall(value):
            yield pointer, template
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _templates(inner, f"{pointer}/{segment(name)}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _templates(inner, f"{pointer}/{place}")
