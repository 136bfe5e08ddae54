"""``deliver_results``: what the payloads of a batch came to, into a sink."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain.errors import InvalidRequestError, JobError, NotFoundError, PermanentError, Problem
from app.domain.job_types import JobConfig, JobType, Result, Submission
from app.domain.jobs import Outcome
from app.domain.key_templates import filled
from app.domain.places import below
from app.domain.ports import ObjectRef
from app.domain.retry import RetryPolicy
from app.domain.sink_plugins import SinkFile
from app.domain.sinks import DELIVER_RESULTS, WebhookSink
from app.persistence import jobs, results
from app.services import delivering
from app.services.sinks import OpenBucket, OpenWebhook, final_refusals
from tasks import files
from tasks.export_delivery import Delivery, check_provider
from tasks.open_sinks import open_sink
from tasks.result_lines import ResultsFile
from tasks.result_posts import Posts, told

if TYPE_CHECKING:
    from app.domain.jobs import Job
    from tasks.context import RunContext

_AT: Final = "/config/sink"
_CONTENT_TYPE: Final = "application/x-ndjson"
_WORDS: Final = ("job_id", "date", "schedule_id")


class ResultsSink(BaseModel):
    """A sink of the tenant by its name, or the provider of a package."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str | None = Field(None, description="As in PUT /v1/sinks/{name}.", min_length=1, max_length=63)
    provider: str | None = Field(
        None, description="A sink of another package: its entry point in the group haulier.sinks.", max_length=255
    )
    config: dict[str, Any] = Field(default_factory=dict, description="The provider's own.")
    key: str = Field(
        "{job_id}.ndjson", description="Name of the file, with {job_id} {date} {schedule_id}.", max_length=500
    )

    @model_validator(mode="after")
    def _is_one(self) -> ResultsSink:
        if (self.name is None) == (self.provider is None):
            raise ValueError("give either name or provider")
        if self.config and self.provider is None:
            raise ValueError("config is a provider's")
        return self


class DeliverResults(JobConfig):
    """Whose results, and where they go."""

    job: UUID = Field(description="A batch or pipeline that is over, or any other job that is.", strict=False)
    sink: ResultsSink


def check(submission: Submission, config: DeliverResults) -> None:
    """Refuse a sink that is not there, and a name that no file can have.

    Raises:
        InvalidRequestError: With pointers; ForbiddenError: The key leads out of the sink's place.
    """
    sink = config.sink
    try:
        submission.place(None, filled(sink.key, dict.fromkeys(_WORDS, "x")))
    except ValueError as error:
        raise _misfit(f"{_AT}/key", str(error)) from None
    if sink.provider is not None:
        check_provider(sink.provider, sink.config, at=_AT)
        return
    found = submission.sink(sink.name or "", pointer=f"{_AT}/name")
    if isinstance(found, WebhookSink) and "key" in sink.model_fields_set:
        raise _misfit(f"{_AT}/key", "a receiver is posted results and takes no file: leave key out")


def _misfit(pointer: str, detail: str) -> InvalidRequestError:
    return InvalidRequestError(detail, code="job.config_invalid", problems=(Problem(pointer, detail),))


def run(job: RunContext, config: DeliverResults) -> Result:
    """Take the results there; a killed run is begun anew, or for a receiver behind the last result it answered to."""
    of = _job(job, config.job)
    if not of.is_terminal:
        return _put_off(job, of)
    sink, key = config.sink, _key(of, config.sink.key)
    if sink.provider is not None:
        return _brought(job, of, Delivery.of(sink.provider, sink.config), key)
    opened = open_sink(job, sink.name or "")
    if isinstance(opened, OpenBucket):
        return _written(job, of, opened, key)
    return _posted(job, of, opened)


def _job(job: RunContext, job_id: UUID) -> Job:
    try:
        with job.sessions.begin() as session:
            return jobs.get(session, job.job.tenant, job_id)
    except NotFoundError as error:
        raise PermanentError(error.detail, code=error.code) from None


def _put_off(job: RunContext, of: Job) -> Result:
    """Leave it to another job that waits for the batch's next end: it was opened again before this one began."""
    with job.sessions.begin() as session:
        made = results.delivery_ids(session, of.tenant, of.id, lock=True)
        if job.id not in made:
            raise JobError(f"job {of.id} is {of.state}, not over", code="results.not_over")
        if made[-1] == job.id:
            delivering.again(session, of)
    return Result(message=f"job {of.id} was opened again: its next end is delivered", outcome=Outcome.EMPTY)


def _key(of: Job, template: str) -> str:
    words = (str(of.id), of.created_at.date().isoformat(), str(of.schedule_id or "none"))
    return filled(template, dict(zip(_WORDS, words, strict=True)))


def _written(job: RunContext, of: Job, bucket: OpenBucket, key: str) -> Result:
    """One object, which stands there whole or not at all, in place of what an earlier run wrote."""
    sink, store = bucket
    ref, stream = ObjectRef(sink.bucket, below(sink.prefix, key)), ResultsFile(job, of)
    with final_refusals(f"sink {sink.name!r}"):
        begun = (job.job.checkpoint or {}).get("upload_id")
        if begun is not None:
            store.abort_upload(ref, begun)
        size_bytes, sha256 = files.send(
            job, store, ref, stream, content_type=_CONTENT_TYPE, begun=lambda id_: job.checkpoint({"upload_id": id_})
        )
    said = {"sink": sink.name, "s3_bucket": ref.bucket, "s3_key": ref.key}
    return _told(of, {**said, "bytes": size_bytes, "sha256": sha256}, stream.rows)


def _brought(job: RunContext, of: Job, delivery: Delivery, key: str) -> Result:
    stream = ResultsFile(job, of)
    made = files.store(job, key.rsplit("/", 1)[-1], stream, content_type=_CONTENT_TYPE)
    delivery.hand(job, made.ref, SinkFile(key, _CONTENT_TYPE, made.size_bytes, made.sha256 or "", stream.rows))
    said = {"provider": delivery.provider, "key": key, "bytes": made.size_bytes, "sha256": made.sha256}
    return _told(of, said, stream.rows)


def _posted(job: RunContext, of: Job, webhook: OpenWebhook) -> Result:
    posting = Posts(job, webhook).run(of)
    result = _told(of, told(posting, webhook), posting.taken + posting.refused)
    return replace(result, outcome=Outcome.PARTIAL) if posting.refused else result


def _told(of: Job, data: dict[str, Any], rows: int) -> Result:
    return Result({"job": str(of.id), "rows": rows, **data}, outcome=Outcome.SUCCESS if rows else Outcome.EMPTY)


JOB_TYPE: Final = JobType(
    name=DELIVER_RESULTS,
    config=DeliverResults,
    run=run,
    check=check,
    retry=RetryPolicy(maximum_attempts=8, initial_interval_s=2.0, maximum_interval_s=600.0),
    summary="Take what the payloads of a batch came to to a sink, as NDJSON or one post each.",
)
