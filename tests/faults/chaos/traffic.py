"""A client of the API: submits jobs of every kind, steers some, and repeats what got no answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Final
from uuid import uuid4

import requests

CSV_KEY: Final = "uploads/chaos.csv"
SCHEDULED_S: Final = 25
KEY: Final = "chaos"
MOST_OF_KEY: Final = 2
LIMITED_TYPE: Final = "sleep"
MOST_OF_TYPE: Final = 2
_PATIENCE_S: Final = 60
_AGAIN: Final = {429, 502, 503}
_OFTEN: Final = {"maximum_attempts": 40, "initial_interval": 300, "maximum_interval": "2s"}

Body = dict[str, Any]


class Traffic:
    """What one client sends, all of it drawn from ``draw``."""

    def __init__(self, url: str, key: str, draw: random.Random) -> None:
        self.kinds: Counter[str] = Counter()
        self.steered: Counter[str] = Counter()
        self.repeated = 0
        self.unexpected: list[str] = []
        self.ids: list[str] = []
        self.cancelled: set[str] = set()
        self._paused: set[str] = set()
        self._closed: set[str] = set()
        self._url = url
        self._key = key
        self._draw = draw

    @property
    def jobs(self) -> int:
        """Jobs sent so far, payloads and stages among them."""
        return self.kinds.total()

    def run(self, jobs: int) -> None:
        """Send until ``jobs`` jobs were sent."""
        for _ in range(2):
            self.schedule()
        self._ask("PUT", f"/v1/limits/type/{LIMITED_TYPE}", {"max_concurrency": MOST_OF_TYPE}, {200})
        kinds, weights = zip(*_WEIGHTS.items(), strict=True)
        while self.jobs < jobs:
            [kind] = self._draw.choices(kinds, weights)
            kind(self)
            if self._draw.random() < 0.35:
                self._steer()
            if self._draw.random() < 0.1:
                self._steer_queue()
            sleep(self._draw.uniform(0.1, 0.9))

    def end(self) -> None:
        """Let everything go on that was paused."""
        for queue in self._closed:
            self._post(f"/v1/queues/{queue}:resume", None, {200})
        for job_id in self._paused:
            self._post(f"/v1/jobs/{job_id}:resume", None, {200, 409})

    def schedule(self) -> None:
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        rules = {
            "intervals": "1s",
            "start": start.isoformat(),
            "end": (start + timedelta(seconds=SCHEDULED_S)).isoformat(),
        }
        body = {
            "name": f"chaos {uuid4()}",
            "template": {"type": "effect", "config": {"steps": 1, "step_s": 0.02}},
            "rules": rules,
            "missed_policy": "all",
        }
        self._post("/v1/schedules", body, {201})

    def one(self, kind: str, body: Body) -> None:
        """Submit a single job."""
        self.kinds[kind] += 1
        self._submitted(self._post("/v1/jobs", body, {202}))

    def needs(self) -> None:
        needed = self._draw.sample(self.ids, min(len(self.ids), self._draw.randint(1, 3)))
        policy = self._draw.choice(["cancel", "run"])
        self.one("dependent", {**self._effect(), "depends_on": needed, "on_dependency_failure": policy})

    def batch(self) -> None:
        payloads = [self._payload() for _ in range(self._draw.randint(3, 8))]
        added = sum(len(payload["config"].get("payloads", ())) for payload in payloads)
        self.kinds["batch"] += 1
        self.kinds["payload"] += len(payloads) + added
        self._submitted(self._post("/v1/batches", {"payloads": payloads, "max_concurrency": 2}, {202}))

    def pipeline(self) -> None:
        stages = [
            {"name": "one", "type": "echo", "config": {"value": self._draw.randint(1, 9)}},
            {"name": "two", **self._effect(), "depends_on": ["one"]},
            {"name": "three", "type": "echo", "config": {"value": "{{ stages.one.result.value }}"},
             "depends_on": ["one", "two"]},
        ]  # fmt: skip
        self.kinds["pipeline"] += 1
        self.kinds["stage"] += len(stages)
        self._submitted(self._post("/v1/pipelines", {"name": "chaos", "stages": stages}, {202}))

    def echo(self) -> None:
        self.one("echo", {"type": "echo", "config": {"value": self._draw.randint(1, 9)}})

    def sleep(self) -> None:
        self.one("sleep", {"type": "sleep", "config": {"seconds": self._draw.uniform(0.5, 4)}})

    def tally(self) -> None:
        numbers = [self._draw.randint(1, 99) for _ in range(self._draw.randint(1, 8))]
        self.one("tally", {"type": "tally", "config": {"numbers": numbers}})

    def keyed(self) -> None:
        key = {"concurrency_key": KEY, "max_concurrency": MOST_OF_KEY}
        self.one("keyed", {**self._effect(), **key})

    def effect(self) -> None:
        self.one("effect", self._effect())

    def retried(self) -> None:
        self.one("retried", self._failing(until=2))

    def failing(self) -> None:
        self.one("failing", self._failing(until=None))

    def http(self) -> None:
        config = {"url": f"{self._url}/v1/health/live", "timeout_s": 3}
        self.one("http_request", {"type": "http_request", "config": config, "retry": _OFTEN})

    def load(self) -> None:
        config = {"s3_key": CSV_KEY, "batch_rows": 20}
        self.one("import", {"type": "insert_csv_file", "config": config, "retry": _OFTEN})

    def export(self) -> None:
        config = {"service": "contact", "vql": {"select_columns": ["uuid", "email"]}}
        self.one("export", {"type": "export_csv_file", "config": config, "retry": _OFTEN})

    def _effect(self) -> Body:
        config = {"steps": self._draw.randint(1, 4), "step_s": round(self._draw.uniform(0.02, 0.4), 3)}
        return {"type": "effect", "config": config}

    def _failing(self, *, until: int | None) -> Body:
        retry = {"maximum_attempts": 3, "initial_interval": 200}
        return {"type": "fail", "config": {"until_attempt": until}, "retry": retry}

    def _payload(self) -> Body:
        return self._draw.choice([
            {"type": "echo", "config": {"value": 1}},
            self._effect(),
            self._failing(until=2),
            self._failing(until=None),
            {"type": "extend", "config": {"payloads": [{"type": "echo"}, self._effect()]}},
        ])  # fmt: skip

    def _steer(self) -> None:
        job_id = self._draw.choice(self.ids[-4:])
        verb = self._draw.choice(["cancel", "terminate", "pause", "pause", "resume"])
        if verb in ("cancel", "terminate"):
            # Noted before it is asked: an answer that is lost may have been a yes.
            self.cancelled.add(job_id)
        elif verb == "pause":
            self._paused.add(job_id)
        answer = self._post(f"/v1/jobs/{job_id}:{verb}", None, {200, 202, 409})
        self.steered[f"{verb}, {answer.status_code}"] += 1

    def _steer_queue(self) -> None:
        queue = self._draw.choice(["small", "data", "http"])
        verb = "resume" if queue in self._closed else "pause"
        self._post(f"/v1/queues/{queue}:{verb}", None, {200})
        self._closed ^= {queue}
        self.steered[f"{verb} of a queue"] += 1

    def _submitted(self, answer: requests.Response) -> None:
        self.ids.append(answer.json()["id"])

    def _post(self, path: str, body: Body | None, wanted: set[int]) -> requests.Response:
        return self._ask("POST", path, body, wanted)

    def _ask(self, method: str, path: str, body: Body | None, wanted: set[int]) -> requests.Response:
        """Ask until there is an answer; the key keeps a repetition from making a second job."""
        headers = {"X-API-Key": self._key, "Idempotency-Key": str(uuid4())}
        give_up_at = monotonic() + _PATIENCE_S
        while True:
            try:
                answer = requests.request(method, f"{self._url}{path}", json=body, headers=headers, timeout=10)
            except requests.RequestException:
                if monotonic() > give_up_at:
                    raise
            else:
                if answer.status_code in wanted and "idempotency.in_flight" not in answer.text:
                    return answer
                if answer.status_code not in _AGAIN and "idempotency.in_flight" not in answer.text:
                    self.unexpected.append(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
                if monotonic() > give_up_at:
                    raise AssertionError(f"no good answer in {_PATIENCE_S} s; {self.unexpected[-3:]}")
            self.repeated += 1
            sleep(0.2)


_WEIGHTS: Final[dict[Callable[[Traffic], None], int]] = {
    Traffic.echo: 8, Traffic.sleep: 4, Traffic.effect: 10, Traffic.retried: 4, Traffic.failing: 1, Traffic.http: 3,
    Traffic.keyed: 6,
    Traffic.tally: 4, Traffic.load: 5, Traffic.export: 5, Traffic.needs: 5, Traffic.batch: 5, Traffic.pipeline: 4,
}  # fmt: skip
