"""The statement that gathers why a job waits."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.lifecycle import WAITING, JobState
from app.domain.waiting import Facts, LimitUse
from app.persistence.families import PARENT_QUEUE
from app.persistence.limits import ACTIVE, APPLIES, LIMITED

COUNTED_TO: Final = 10_000
"""Jobs ahead are counted no further."""
_LIVE: Final = "w.queue = a.queue AND w.lease_until > clock_timestamp() AND NOT w.draining"
_LIMITS: Final = f"""
    SELECT l.kind, CASE l.kind WHEN 'tenant' THEN l.tenant ELSE l.name END AS name, l.max_concurrency, l.rate,
        l.period_s, (
            SELECT coalesce(sum(jobs), 0)::integer FROM active AS o WHERE CASE l.kind
                WHEN 'tenant' THEN o.tenant = a.tenant AND o.{LIMITED}
                WHEN 'type' THEN o.type = a.type
                ELSE o.tenant = a.tenant AND o.concurrency_key = a.concurrency_key END
        ) AS used, u.used AS rate_used, u.until AS rate_until
    FROM limits AS l LEFT JOIN LATERAL (
        SELECT count(*)::integer AS used, min(until) AS until FROM limit_uses AS u
        WHERE u.kind = l.kind AND u.tenant = l.tenant AND u.until > clock_timestamp()
        AND u.name = CASE l.kind WHEN 'key' THEN a.concurrency_key ELSE l.name END
    ) AS u ON true
    WHERE {APPLIES}
    UNION ALL
    SELECT 'job', a.concurrency_key, a.max_concurrency, NULL, NULL, (
        SELECT coalesce(sum(jobs), 0)::integer FROM active AS o
        WHERE o.tenant = a.tenant AND o.concurrency_key = a.concurrency_key
    ), 0, NULL WHERE a.max_concurrency > 0
"""
_FACTS: Final = text(
    f"""
    WITH a AS (SELECT * FROM jobs WHERE id = :id AND tenant = :tenant AND state = ANY(:states)), {ACTIVE}
    SELECT clock_timestamp() AS now, a.state, a.attempts,
        CASE WHEN a.due_at = 'infinity' THEN a.run_after ELSE a.due_at END AS due_at, a.parent_id, a.paused, a.queue,
        coalesce(a.cpu_m, 0) AS cpu_m,
        ARRAY(SELECT needs_id::text FROM job_needs WHERE job_id = a.id AND NOT over ORDER BY 1 LIMIT 100) AS needs,
        (SELECT max_concurrency FROM families WHERE job_id = a.parent_id) AS window,
        EXISTS (SELECT FROM queues WHERE name = a.queue AND paused) AS queue_paused,
        EXISTS (SELECT FROM jobs AS p WHERE p.id = a.parent_id AND p.paused) AS parent_paused,
        (SELECT coalesce(jsonb_agg(l), '[]') FROM ({_LIMITS}) AS l) AS limits,
        (SELECT count(*) FROM jobs AS o WHERE o.state = 'queued' AND o.queue = a.queue AND o.priority = a.priority
            AND o.turn_at <= statement_timestamp()) AS class_queued,
        (SELECT count(*) FROM workers AS w WHERE {_LIVE}) AS slots,
        (SELECT coalesce(max(slots), 0) * 1000 FROM (
            SELECT count(*) AS slots FROM workers AS w WHERE {_LIVE} GROUP BY w.host, w.process) AS w) AS widest_cpu_m,
        (SELECT count(*) FROM (SELECT FROM jobs AS o WHERE o.state = 'queued' AND o.queue = a.queue
            AND (a.state = 'queued' AND (o.priority, o.turn_at) < (a.priority, a.turn_at)
                 OR a.state <> 'queued' AND o.priority <= a.priority) LIMIT {COUNTED_TO}) AS o)
        + (SELECT count(*) FROM (SELECT FROM jobs AS o WHERE o.state IN ('open', 'retry_wait') AND NOT o.paused
            AND o.queue = a.queue AND a.state <> 'queued' AND o.priority = a.priority AND o.due_at <= now()
            AND (o.due_at, o.id) < (a.due_at, a.id) LIMIT {COUNTED_TO}) AS o) AS ahead,
        (SELECT avg(extract(epoch FROM finished_at - attempt_started_at))::double precision FROM (
            SELECT queue, finished_at, attempt_started_at FROM jobs
            WHERE tenant = a.tenant AND state = 'completed' ORDER BY id DESC LIMIT 200
        ) AS o WHERE o.queue = a.queue AND finished_at > clock_timestamp() - interval '10 minutes') AS run_s
    FROM a
    """
)


def facts(session: Session, tenant: str, job_id: UUID, *, class_bound: int) -> Facts | None:
    """What a waiting job waits for; ``None`` when it waits no more."""
    bound = {"id": job_id, "tenant": tenant, "states": sorted(WAITING)}
    row = session.execute(_FACTS, bound).one_or_none()
    return None if row is None else _facts(dict(row._mapping), class_bound)


def _facts(row: dict[str, Any], class_bound: int) -> Facts:
    return Facts(
        **{
            **row,
            "state": JobState(row["state"]),
            "needs": tuple(UUID(need) for need in row["needs"]),
            "limits": tuple(_use(limit) for limit in row["limits"]),
            "has_queue": row["queue"] != PARENT_QUEUE,
            "class_bound": class_bound,
        }
    )


def _use(limit: dict[str, Any]) -> LimitUse:
    until = limit["rate_until"]
    return LimitUse(**{**limit, "rate_until": datetime.fromisoformat(until) if until else None})
