"""The installation in the words of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from app.persistence.statistics import Ended
from app.services.statistics import RECENT, Snapshot

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_LATELY: Final = f"of jobs that ended within {RECENT}"
_QUANTILES: Final = ("0.5", "0.95")


def exposition(snapshot: Snapshot) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._queues()
        yield from self._workers()
        yield _gauge(
            "haulier_jobs", "Jobs by state that are not over.", ("state",), list(self._snapshot.waiting.items())
        )
        yield from _recent(self._snapshot.recent)

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        queues = self._snapshot.queues
        jobs = [
            (queue.name, state, getattr(queue, state)) for queue in queues for state in ("open", "queued", "running")
        ]
        yield _gauge("haulier_queue_jobs", "Jobs of a queue.", ("queue", "state"), jobs)
        waits = [(queue.name, max(0.0, queue.oldest_wait_s or 0.0)) for queue in queues]
        yield _gauge("haulier_queue_oldest_wait_seconds", "How long the oldest job has been due.", ("queue",), waits)
        slots = [(queue.name, queue.slots) for queue in queues]
        yield _gauge("haulier_queue_slots", "Places of live workers of a queue.", ("queue",), slots)
        paused = [(queue.name, int(queue.paused)) for queue in queues]
        yield _gauge("haulier_queue_paused", "1 while a queue is paused.", ("queue",), paused)

    def _workers(self) -> Iterator[GaugeMetricFamily]:
        slots = Counter((slot.queue, slot.process) for slot in self._snapshot.slots)
        busy = Counter((slot.queue, slot.process) for slot in self._snapshot.slots if slot.job_ids)
        labels = ("queue", "worker")
        yield _gauge("haulier_worker_slots", "Places of a worker.", labels, [(*who, slots[who]) for who in slots])
        yield _gauge("haulier_worker_busy_slots", "Those that run a job.", labels, [(*who, busy[who]) for who in slots])


def _recent(recent: Sequence[Ended]) -> Iterator[GaugeMetricFamily]:
    labels = ("type", "state")
    jobs = [(one.type, one.state, one.jobs) for one in recent]
    yield _gauge("haulier_recent_jobs", f"Number {_LATELY}.", labels, jobs)
    yield _gauge("haulier_recent_rows", f"Rows {_LATELY}.", labels, [(one.type, one.state, one.rows) for one in recent])
    for name, told in (("duration_s", "job_duration_seconds"), ("rows_per_s", "job_rows_per_second")):
        values = [
            (one.type, one.state, quantile, value)
            for one in recent
            for quantile, value in zip(_QUANTILES, getattr(one, name) or (), strict=False)
        ]
        yield _gauge(f"haulier_recent_{told}", f"Quantiles {_LATELY}.", (*labels, "quantile"), values)


def _gauge(name: str, says: str, labels: Sequence[str], values: Sequence[tuple[str | float, ...]]) -> GaugeMetricFamily:
    """A gauge; of each of ``values`` the last is the number, those before are the labels'."""
    family = GaugeMetricFamily(name, says, labels=labels)
    for *of, number in values:
        family.add_metric([str(label) for label in of], float(number))
    return family
