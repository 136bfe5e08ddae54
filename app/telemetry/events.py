"""The names of log events; a line whose name is not here is refused by a test."""

from typing import Final

EVENTS: Final = frozenset(
    {
        "alarm.lost",
        "artifacts.expired",
        "bell.lost",
        "bell.unreadable",
        "claim.lost",
        "engine.duty_failed",
        "engine.leads",
        "engine.lost_lead",
        "engine.rescued",
        "engine.started",
        "engine.stopped",
        "feed.poll_failed",
        "heart.missed",
        "idempotency.pruned",
        "job.completed",
        "job.crashed",
        "job.end_lost",
        "job.failed",
        "job.fence_lost",
        "job.gave_up",
        "job.killed",
        "job.put_off",
        "job.retrying",
        "job.store_lost",
        "outgoing.refused",
        "partitions.in_use",
        "partitions.kept",
        "slot.child_died",
        "slot.lost",
        "slot.not_registered",
        "slot.not_retired",
        "store.waiting",
        "wait.poll_failed",
        "web.store_failed",
        "web.unexpected",
        "worker.not_told",
    }
)
