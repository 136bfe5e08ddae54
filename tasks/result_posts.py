"""Results that are posted to a receiver, one by one, in order, each signed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from app.domain.errors import JobError, PermanentError, TransientError
from app.domain.jobs import Job
from app.persistence.results import ResultLine
from app.security.outgoing.calls import Call
from app.security.outgoing.faults import unexpected_status
from app.security.outgoing.guard import Outgoing
from app.security.signed_posts import headers_of
from app.services.sinks import OpenWebhook
from tasks.context import RunContext
from tasks.result_lines import lines

_PAUSES_S: Final = (1.0, 5.0)
"""Before a post is tried again in the same attempt of the job."""
_LONGEST_PAUSE_S: Final = 30.0
_REFUSES_ALL: Final = frozenset({401, 403, 404, 405, 410})
"""Answers that the next results would get too."""


@dataclass
class Posting:
    """What was posted so far, as the checkpoint has it: the place of the last result, how many were taken."""

    after: int = -1
    taken: int = 0
    refused: int = 0


class Posts:
    """The posts of one run of a job.

    A result is kept as posted when its answer is here; a worker that is lost in between posts it again, under the same
    ``webhook-id``.
    """

    def __init__(self, job: RunContext, webhook: OpenWebhook) -> None:
        self._job = job
        self._sink, self._receiver = webhook
        self._outgoing = Outgoing.from_settings(job.settings)

    def run(self, of: Job) -> Posting:
        """Post what no earlier run has posted.

        Raises:
            TransientError: The receiver is away; PermanentError: it refuses us.
        """
        posting = Posting(**(self._job.job.checkpoint or {}).get("posted", {}))
        for line in lines(self._job, of, after=posting.after):
            if self._is_taken(line):
                posting.taken += 1
            else:
                posting.refused += 1
            posting.after = line.number
            self._job.checkpoint({"posted": vars(posting)})
            self._job.progress(posting.taken + posting.refused, of.progress.parts_total)
        return posting

    def _is_taken(self, line: ResultLine) -> bool:
        status = self._status(line)
        if 200 <= status < 300:
            return True
        self._job.fail_record(
            line.number,
            code="sink.result_refused",
            message=f"the receiver answered {status}",
            raw=line.text,
        )
        return False

    def _status(self, line: ResultLine) -> int:
        """The receiver's answer to a result that it takes, or does not take alone."""
        for pause_s in _PAUSES_S:
            try:
                return self._post(line)
            except TransientError as error:
                self._job.wait(min(max(pause_s, error.retry_after_s or 0.0), _LONGEST_PAUSE_S))
        return self._post(line)

    def _post(self, line: ResultLine) -> int:
        self._job.check()
        body, now = line.text.encode(), self._job.clock.now()
        headers = headers_of(body, message_id=line.run, at=now, secret=self._receiver.secret)
        call = Call("POST", self._receiver.url, {"Content-Type": "application/json", **headers}, body)
        with self._outgoing.send(call, job=self._job) as reply:
            status, said = reply.status, reply.headers
        self._job.log.info("sink.posted", extra={"number": line.number, "status": status})
        if status in _REFUSES_ALL or 300 <= status < 400:
            raise PermanentError(f"sink {self._sink.name!r} answers {status}", code="sink.refused", hint=_HINT)
        error: JobError = unexpected_status(status, said, now=now)
        if status >= 400 and isinstance(error, TransientError):
            raise error
        return status


_HINT: Final = "Check the sink's url, and that it takes posts without a redirect."


def told(posting: Posting, webhook: OpenWebhook) -> dict[str, Any]:
    """The result of the job."""
    return {
        "sink": webhook.sink.name,
        "origin": webhook.sink.origin,
        "rows": posting.taken + posting.refused,
        "taken": posting.taken,
        "refused": posting.refused,
    }
