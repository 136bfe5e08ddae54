"""Families under steps drawn from a seed: whatever the order, every count comes true and every family ends."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from app.domain.errors import ConflictError, TransientError
from app.domain.families import OnFailure
from app.domain.jobs import Job
from app.domain.pipelines import Stage
from app.domain.retry import RetryChanges
from app.engine.fold import begin_families, fold, stir
from app.persistence.sessions import Sessions
from app.services.families import Payload, SubmitBatch
from app.services.pipelines import SubmitPipeline
from tests.integration.families import Installation

STEPS = 60
AT_ONCE = RetryChanges({"maximum_attempts": 3, "initial_interval_s": 0.0})


class Bench(Installation):
    """An installation with families, and steps on what there is."""

    def __init__(self, sessions: Sessions, seed: int) -> None:
        super().__init__(sessions)
        self.draw = Random(seed)
        self.held: list[Job] = []
        self.families_made = [self._batch(OnFailure.CONTINUE), self._batch(OnFailure.STOP)]
        self.families_made += [self._pipeline(strategy) for strategy in OnFailure]

    def _batch(self, policy: OnFailure) -> Job:
        payloads = [Payload("echo", {}, AT_ONCE) for _ in range(4)]
        batch = SubmitBatch("default", payloads, "test", max_concurrency=2, on_failure=policy)
        return self.families.create_batch(batch).job

    def _pipeline(self, strategy: OnFailure) -> Job:
        needs = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}
        stages = [Stage(name, "echo", {}, before, AT_ONCE) for name, before in needs.items()]
        pipeline = SubmitPipeline("default", "test", stages, "test", failure_strategy=strategy, parallelism=2)
        return self.pipelines.create(pipeline).job

    def step(self) -> None:
        """One of all that may happen, half of it work."""
        some = self.draw.choice(self.families_made)
        steps = [self.tick, self._claim, self._claim, self._end, self._end, self._end]
        steps += [lambda: fold(self.leader), lambda: begin_families(self.leader), lambda: stir(self.leader)]
        steps += [lambda: self.control.cancel("default", some.id, actor="test")]
        steps += [lambda: self.control.retry("default", some.id, actor="test")] * 2
        steps += [lambda: self.control.pause("default", some.id, actor="test")]
        steps += [lambda: self.control.resume("default", some.id, actor="test")]
        with suppress(ConflictError):
            self.draw.choice(steps)()

    def _claim(self) -> None:
        self.tick()
        self.held += self.claim(most=2)

    def _end(self) -> None:
        if not self.held:
            return
        job = self.held.pop(self.draw.randrange(len(self.held)))
        if self.jobs.get("default", job.id).cancel_requested:
            self.runs.cancel(job, "parent")
        elif self.draw.random() < 0.5:
            self.finish(job)
        elif self.draw.random() < 0.5:
            self.fail(job)
        else:
            self.runs.retry(job, TransientError("not now"))

    def settle(self) -> None:
        """Works off all that is left."""
        for family in self.families_made:
            if not self.jobs.get("default", family.id).is_terminal:
                self.control.resume("default", family.id, actor="test")
        while self.held:
            self._end()
        self.work_off()
        self.tick()


@pytest.mark.parametrize("seed", range(5))
def test_every_family_ends_with_counts_that_are_those_of_its_children(sessions: Sessions, seed: int) -> None:
    here = Bench(sessions, seed)

    for _ in range(STEPS):
        here.step()
    here.settle()

    for family in here.families_made:
        children = here.families.children("default", family.id, after=-1, limit=100)
        states = [child.state for child in children]
        counts = here.families.counts("default", family.id)
        assert here.jobs.get("default", family.id).is_terminal
        assert all(child.is_terminal for child in children)
        assert (counts.completed, counts.failed, counts.cancelled) == tuple(
            states.count(state) for state in ("completed", "failed", "cancelled")
        )
    assert here.sequence() == list(range(1, len(here.sequence()) + 1))
