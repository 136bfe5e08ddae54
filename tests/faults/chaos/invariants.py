"""What must hold when all is over, whatever happened: each invariant gives the offenders, and none is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text

from app.cli.demo_data import Made
from app.domain.lifecycle import TERMINAL, is_legal
from app.domain.ports import ObjectRef
from app.storage.s3 import S3Store
from tests.faults.chaos.site import MAX_RESCUES, Site
from tests.faults.chaos.traffic import KEY, LIMITED_TYPE, MOST_OF_KEY, MOST_OF_TYPE, Traffic

UNHEARD: Final = (
    "event_counters AS c WHERE last > coalesce((SELECT position FROM cursors"
    " WHERE name = 'chaos' AND tenant = c.tenant), 0)"
)
"""Tenants with events that the listener has still to hear."""
_ENDS: Final = ", ".join(f"'{state}'" for state in sorted(TERMINAL))


@dataclass(frozen=True, slots=True)
class Scene:
    """What is looked at."""

    site: Site
    traffic: Traffic
    file: Made

    def rows(self, sql: str, **bound: Any) -> list[Any]:
        with self.site.cluster.sessions.begin() as session:
            return list(session.execute(text(sql), bound))

    def said(self, sql: str, **bound: Any) -> list[str]:
        """A line for each row."""
        return [" ".join(f"{name}={value}" for name, value in row._mapping.items()) for row in self.rows(sql, **bound)]


def every_submitted_job_is_over(scene: Scene) -> list[str]:
    there = {str(row.id) for row in scene.rows("SELECT id FROM jobs")}
    missing = [f"{job_id} was accepted and is gone" for job_id in scene.traffic.ids if job_id not in there]
    return missing + scene.said(
        f"SELECT id, type, state, paused, needs_left, parent_id FROM jobs WHERE state NOT IN ({_ENDS})"
    )


def jobs_end_as_they_should(scene: Scene) -> list[str]:
    """Only what was to fail fails, and only what somebody cancelled, or needed what did, is cancelled."""
    return scene.said(
        """
        SELECT id, type, state, cancel_reason, error FROM jobs AS j
        WHERE state = 'failed' AND NOT (type = 'fail' AND config ->> 'until_attempt' IS NULL)
              AND NOT EXISTS (SELECT FROM jobs AS c WHERE c.parent_id = j.id AND c.state <> 'completed')
           OR state = 'cancelled' AND cancel_reason NOT IN ('user', 'parent', 'skipped')
           OR state = 'cancelled' AND cancel_reason = 'user' AND NOT id = ANY (CAST(:cancelled AS uuid[]))
        """,
        cancelled=sorted(scene.traffic.cancelled),
    )


def no_effect_is_lost(scene: Scene) -> list[str]:
    return scene.said(
        """
        SELECT j.id, j.config ->> 'steps' AS steps, count(e.step) AS effects
        FROM jobs AS j LEFT JOIN effects AS e ON e.job_id = j.id
        WHERE j.type = 'effect' AND j.state = 'completed'
        GROUP BY j.id, j.config HAVING count(e.step) <> CAST(j.config ->> 'steps' AS int)
        """
    )


def no_effect_comes_twice(scene: Scene) -> list[str]:
    return scene.said("SELECT job_id, step, count(*) FROM effects GROUP BY job_id, step HAVING count(*) > 1")


def every_trail_is_legal(scene: Scene) -> list[str]:
    """Numbers without a gap, each state reached from the one before by a legal move, the last one the job's."""
    wrong = scene.said(
        """
        SELECT j.id, j.event_no, j.state, count(e.number) AS events, max(e.number) AS last
        FROM jobs AS j LEFT JOIN job_events AS e ON e.job_id = j.id
        GROUP BY j.id HAVING count(e.number) <> j.event_no OR max(e.number) <> j.event_no OR min(e.number) <> 1
            OR (array_agg(e.target ORDER BY e.number DESC))[1] <> j.state
        """
    )
    steps = scene.rows(
        "SELECT job_id, number, type, source, target, lag(target) OVER (PARTITION BY job_id ORDER BY number) AS before"
        " FROM job_events"
    )
    return wrong + [
        f"{step.job_id} event {step.number}: {step.type} {step.source} -> {step.target} after {step.before}"
        for step in steps
        if step.source != step.before
        or not (step.source is None or step.source == step.target or is_legal(step.source, step.target))
    ]


def attempts_and_rescues_are_bounded(scene: Scene) -> list[str]:
    return scene.said(
        "SELECT id, type, attempts, rescues, retry FROM jobs"
        " WHERE attempts > CAST(retry ->> 'maximum_attempts' AS int) OR rescues > :most",
        most=MAX_RESCUES,
    )


def no_run_is_left_without_an_end(scene: Scene) -> list[str]:
    """Each start of a run has its end: the fence counts claims, and each claim is followed by one way out."""
    return scene.said(
        """
        SELECT j.id, j.fence, count(*) FILTER (WHERE e.target = 'running' AND e.source = 'queued') AS claims,
               count(*) FILTER (WHERE e.source = 'running' AND e.target <> 'running') AS ends
        FROM jobs AS j JOIN job_events AS e ON e.job_id = j.id WHERE j.queue <> 'families'
        GROUP BY j.id HAVING count(*) FILTER (WHERE e.target = 'running' AND e.source = 'queued') <> j.fence
            OR count(*) FILTER (WHERE e.source = 'running' AND e.target <> 'running') <> j.fence
        """
    )


def parents_count_their_children(scene: Scene) -> list[str]:
    return scene.said(
        """
        SELECT f.job_id, f.total, f.completed, f.failed, f.cancelled, c.* FROM families AS f
        CROSS JOIN LATERAL (
            SELECT count(*) AS children, count(*) FILTER (WHERE state = 'completed') AS did,
                   count(*) FILTER (WHERE state = 'failed') AS did_not,
                   count(*) FILTER (WHERE state = 'cancelled') AS may_not
            FROM jobs WHERE parent_id = f.job_id
        ) AS c
        WHERE (f.total, f.completed, f.failed, f.cancelled) <> (c.children, c.did, c.did_not, c.may_not)
        """
    )


def events_are_numbered_without_a_gap(scene: Scene) -> list[str]:
    return scene.said(
        """
        SELECT tenant, count(*), count(seq) AS numbered, count(DISTINCT seq) AS numbers, min(seq), max(seq), c.last
        FROM job_events LEFT JOIN numbered_events USING (tenant, job_id, number)
        JOIN event_counters AS c USING (tenant) GROUP BY tenant, c.last
        HAVING count(DISTINCT seq) <> count(*) OR min(seq) <> 1 OR max(seq) <> count(*) OR c.last <> count(*)
        """
    )


def the_books_of_imports_balance(scene: Scene) -> list[str]:
    """Every record has one fate, the ledger holds the refused ones, and the table each key once."""
    wrong = scene.said(
        """
        SELECT id, counters, l.lines FROM jobs
        CROSS JOIN LATERAL (SELECT count(*) AS lines FROM failed_records WHERE job_id = jobs.id) AS l
        CROSS JOIN LATERAL (
            SELECT sum(CAST(value AS bigint)) AS fates FROM jsonb_each_text(counters)
            WHERE key IN ('loaded', 'updated', 'unchanged', 'superseded', 'skipped', 'failed')
        ) AS f
        WHERE type = 'insert_csv_file' AND state = 'completed'
          AND (CAST(counters ->> 'read' AS bigint), f.fates, l.lines) <> (:records, :records, :refused)
        """,
        records=scene.file.rows,
        refused=sum(scene.file.bad.values()),
    )
    if not scene.rows("SELECT FROM jobs WHERE type = 'insert_csv_file' AND state = 'completed'"):
        return wrong
    good = scene.file.rows - sum(scene.file.bad.values()) - scene.file.recurring
    [[found]] = scene.rows("SELECT count(*) FROM t_default.contacts")
    return wrong if found == good else [*wrong, f"the table has {found} rows, the file {good} keys"]


def exports_stand_in_s3(scene: Scene) -> list[str]:
    files = scene.rows(
        "SELECT a.job_id, a.bucket, a.key, a.size_bytes FROM artifacts AS a JOIN jobs AS j ON j.id = a.job_id"
        " WHERE j.state = 'completed'"
    )
    store = S3Store(scene.site.cluster.settings())
    sizes = [(file, store.head(ObjectRef(file.bucket, file.key)).size_bytes) for file in files]
    wrong = [f"{file.job_id} {file.key}: {file.size_bytes} bytes, {size} stand" for file, size in sizes
             if size != file.size_bytes]  # fmt: skip
    return wrong + scene.said(
        "SELECT id FROM jobs WHERE type = 'export_csv_file' AND state = 'completed'"
        " AND (SELECT count(*) FROM artifacts WHERE job_id = jobs.id) <> 2"
    )


def schedules_fire_every_second_once(scene: Scene) -> list[str]:
    return scene.said(
        """
        SELECT s.id, s.rules ->> 'start' AS start, s.rules ->> 'end' AS end, s.next_fire_at, count(f.fire_at) AS fires,
               min(f.fire_at), max(f.fire_at), count(DISTINCT j.id) AS jobs
        FROM schedules AS s LEFT JOIN schedule_fires AS f ON f.schedule_id = s.id LEFT JOIN jobs AS j ON j.id = f.job_id
        GROUP BY s.id
        HAVING s.next_fire_at IS NOT NULL OR count(f.fire_at) = 0 OR count(DISTINCT j.id) <> count(f.fire_at)
            OR count(f.fire_at) <> 1 + extract(epoch FROM max(f.fire_at) - min(f.fire_at))
            OR max(f.fire_at) < CAST(s.rules ->> 'end' AS timestamptz) - interval '1 second'
            OR min(f.fire_at) > greatest(s.created_at, CAST(s.rules ->> 'start' AS timestamptz)) + interval '1 second'
        """
    )


def limits_are_kept(scene: Scene) -> list[str]:
    """Of a key, and of a type, no more were queued or running together than may be."""
    return scene.said(
        """
        WITH steps AS (
            SELECT CASE WHEN j.concurrency_key = :key THEN 'key' ELSE 'type' END AS what, e.at,
                   CASE WHEN e.target IN ('queued', 'running') THEN 1 ELSE -1 END AS step
            FROM job_events AS e JOIN jobs AS j ON j.id = e.job_id
            WHERE (j.concurrency_key = :key OR j.type = :type AND e.at > (
                SELECT updated_at FROM limits WHERE kind = 'type' AND name = :type
            )) AND coalesce(e.source IN ('queued', 'running'), false) <> (e.target IN ('queued', 'running'))
        ), held AS (
            SELECT what, at, sum(step) OVER (PARTITION BY what ORDER BY at, step) AS together FROM steps
        )
        SELECT * FROM held WHERE together > CASE what WHEN 'key' THEN :of_key ELSE :of_type END
        """,
        key=KEY, type=LIMITED_TYPE, of_key=MOST_OF_KEY, of_type=MOST_OF_TYPE,
    )  # fmt: skip


def the_listener_hears_every_event_in_order(scene: Scene) -> list[str]:
    """At least once each, and for the first time in the order of its tenant."""
    heard = [line.split() for line in scene.site.heard.read_text().splitlines()]
    first = list(dict.fromkeys(int(seq) for _, seq, _, _ in heard))
    events = {int(row.seq): (str(row.job_id), row.number) for row in scene.rows(
        "SELECT seq, job_id, number FROM numbered_events WHERE tenant = 'default' ORDER BY seq")}  # fmt: skip
    wrong = [] if first == sorted(first) else ["not in order"]
    wrong += [f"event {seq} of job {events[seq][0]} was not heard" for seq in sorted(events.keys() - set(first))]
    return wrong + [
        f"heard as event {seq}: {job_id} {number}, is {events.get(int(seq))}"
        for _, seq, job_id, number in heard
        if events.get(int(seq)) != (job_id, int(number))
    ]


def tallies_are_right(scene: Scene) -> list[str]:
    return scene.said(
        """
        SELECT id, config, result FROM jobs WHERE type = 'tally' AND state = 'completed'
        AND CAST(result ->> 'sum' AS int) <> (
            SELECT sum(CAST(n.value AS int)) FROM jsonb_array_elements_text(config -> 'numbers') AS n(value)
        )
        """
    )


def no_slot_holds_a_job(scene: Scene) -> list[str]:
    return scene.said("SELECT id, state, worker FROM jobs WHERE worker IS NOT NULL")


def no_answer_was_unexpected(scene: Scene) -> list[str]:
    return scene.traffic.unexpected


INVARIANTS: Final[tuple[Callable[[Scene], list[str]], ...]] = (
    every_submitted_job_is_over, jobs_end_as_they_should, no_effect_is_lost, no_effect_comes_twice,
    every_trail_is_legal, attempts_and_rescues_are_bounded, no_run_is_left_without_an_end,
    parents_count_their_children, events_are_numbered_without_a_gap, the_books_of_imports_balance,
    limits_are_kept, the_listener_hears_every_event_in_order, tallies_are_right, exports_stand_in_s3,
    schedules_fire_every_second_once, no_slot_holds_a_job, no_answer_was_unexpected,
)  # fmt: skip
