"""Stages: what holds them together, and what their templates become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from app.domain.errors import InvalidRequestError, JobError
from app.domain.job_types import JobConfig, JobType, Registry
from app.domain.pipelines import (
    MAX_FILLED_BYTES,
    MAX_REFERENCES,
    Reference,
    Stage,
    Values,
    check,
    fill,
    is_templated,
    references,
)

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def stage(name: str, *depends_on: str, **config: Any) -> Stage:
    return Stage(name, "echo", config, depends_on)


def faults(*stages: Stage) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as raised:
        check(stages)
    return {problem.pointer: problem.detail for problem in raised.value.problems}


def test_stages_that_fit_together_are_let_through() -> None:
    check(
        [
            stage("extract"),
            stage("validate", "extract", value="{{ stages.extract.result.table }}"),
            stage("export", "validate", value=["{{stages.extract.result}} and {{ stages.validate.result.n }}"]),
        ]
    )


def test_a_name_given_twice_is_refused_where_it_comes_again() -> None:
    assert faults(stage("a"), stage("b"), stage("a")) == {"/stages/2/name": "expected a name of its own, got 'a' again"}


def test_an_unknown_stage_is_refused_where_it_is_waited_for() -> None:
    found = faults(stage("a"), stage("b", "a"), stage("c", "nothing"))

    assert found == {"/stages/2/depends_on/0": "expected one of a, b, c, got 'nothing'"}


def test_a_stage_that_is_waited_for_twice_is_refused() -> None:
    assert list(faults(stage("a"), stage("b", "a", "a"))) == ["/stages/1/depends_on/1"]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([stage("a", "a")], "a waits for a"),
        ([stage("x"), stage("a", "b"), stage("b", "c"), stage("c", "a")], "a waits for b waits for c waits for a"),
    ],
)
def test_a_circle_is_refused_and_said(stages: list[Stage], said: str) -> None:
    [detail] = faults(*stages).values()

    turns = said.split(" waits for ")[:-1]
    spellings = [" waits for ".join([*turns[n:], *turns[:n], turns[n]]) for n in range(len(turns))]
    assert any(spelling in detail for spelling in spellings)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ }}", "expected {{ stages.NAME.result }}"),
        ("{{ secrets.key }}", "expected {{ stages.NAME.result }}"),
        ("{{ stages.extract }}", "expected {{ stages.NAME.result }}"),
        ("{{ stages.extract.results.x }}", "expected {{ stages.NAME.result }}"),
        ("{{ stages.extract.result.a b }}", "expected {{ stages.NAME.result }}"),
        ("{{ stages.gone.result }}", "refers to stage 'gone', which is not there"),
        ("{{ stages.other.result }}", "refers to stage 'other', which need not be over"),
        ("{{ stages.load.result }}", "refers to stage 'load', which need not be over"),
    ],
)
def test_a_template_that_refers_to_nothing_is_refused_where_it_stands(template: str, said: str) -> None:
    load = Stage("load", "echo", {"list": [1, {"a/b": f"x {template}"}]}, ("extract",))

    found = faults(stage("extract"), stage("other"), load)

    assert list(found) == ["/stages/2/config/list/1/a~1b"]
    assert said in found["/stages/2/config/list/1/a~1b"]


def test_more_templates_than_a_stage_may_have_are_refused() -> None:
    load = stage("load", "extract", value="{{ stages.extract.result }}" * (MAX_REFERENCES + 1))

    assert list(faults(stage("extract"), load)) == ["/stages/1/config"]


@pytest.mark.parametrize("value", ["{{" * 100_000, "{{ " * 100_000, "{{ a" * 50_000 + "}}", "{{" + " " * 300_000])
def test_braces_that_are_never_closed_are_text_and_cost_no_time(value: str) -> None:
    assert references({"value": value}) == []


@given(JSON)
def test_a_template_alone_becomes_the_value_with_its_type(value: Any) -> None:
    config = {"in": ["{{ stages.a.result.x.0 }}"], "beside": 1}

    filled = fill(config, Values({Reference("a", ("x", "0")): value}))

    assert filled == {"in": [value], "beside": 1}


@given(JSON, TEXT, TEXT)
def test_within_a_longer_string_a_value_is_its_text(value: Any, before: str, after: str) -> None:
    before, after = before.replace("{", "("), after.replace("}", ")").replace("{", "(") + "."
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    filled = fill({"value": before + "{{stages.a.result}}" + after}, Values({Reference("a", ()): value}))

    assert filled == {"value": before + text + after}


@given(st.dictionaries(TEXT, JSON, max_size=2))
def test_a_config_without_templates_stays_as_it_is(config: dict[str, Any]) -> None:
    if not is_templated(config):
        assert fill(config, Values()) == config


def test_two_templates_side_by_side_are_each_filled_in() -> None:
    values = Values({Reference("a", ("x",)): 1, Reference("b", ("y",)): "{{ stages.a.result.x }}"})

    filled = fill({"value": "{{stages.a.result.x}}{{stages.b.result.y}}"}, values)

    assert filled == {"value": "1{{ stages.a.result.x }}"}


def test_two_braces_can_be_said() -> None:
    assert fill({"value": 'Hello {{ "{{" }}name}}'}, Values()) == {"value": "Hello {{name}}"}


def test_a_reference_that_is_not_in_the_result_is_said() -> None:
    with pytest.raises(JobError) as raised:
        fill({"value": "{{ stages.a.result.gone }}"}, Values())

    assert raised.value.code == "stage.reference_missing"
    assert "stages.a.result.gone" in raised.value.detail


@pytest.mark.parametrize(
    "values",
    [
        Values({}, MAX_FILLED_BYTES + 1),
        Values({Reference("a", ()): "x" * (MAX_FILLED_BYTES // 2)}, MAX_FILLED_BYTES // 2),
    ],
    ids=["one that is large", "one that is put in three times"],
)
def test_values_that_are_too_much_for_a_config_are_refused(values: Values) -> None:
    with pytest.raises(JobError) as raised:
        fill({"value": ["{{ stages.a.result }}"] * 3}, values)

    assert raised.value.code == "stage.config_too_large"


class Inner(JobConfig):
    n: int


class Config(JobConfig):
    url: str = Field(min_length=3)
    count: int = 1
    inner: Inner | None = None
    either: Inner | list[int] = Field(default_factory=list)


@pytest.mark.parametrize(
    ("config", "pointers"),
    [
        ({"url": "{{ stages.a.result }}", "count": "{{ stages.a.result.n }}"}, []),
        ({"url": "abc", "inner": "{{ stages.a.result }}", "either": [1, "{{ stages.a.result }}"]}, []),
        ({"url": "abc", "inner": {"n": "{{ stages.a.result }}"}}, []),
        ({"url": "ab", "count": "{{ stages.a.result.n }}"}, ["/config/url"]),
        ({"count": "{{ stages.a.result.n }}"}, ["/config/url"]),
        ({"url": "abc", "inner": {"m": "{{ stages.a.result }}"}}, ["/config/inner/n", "/config/inner/m"]),
        ({"url": "abc", "more": "{{ stages.a.result }}"}, ["/config/more"]),
    ],
)
def test_what_is_known_of_a_config_is_checked_before_the_rest(config: dict[str, Any], pointers: list[str]) -> None:
    job_type = JobType("t", Config, lambda _job, _config: None)
    registry = Registry({"t": job_type})

    found: list[str] = []
    try:
        registry.check_around(job_type, config, is_templated)
    except InvalidRequestError as error:
        found = [problem.pointer for problem in error.problems]

    assert found == pointers
