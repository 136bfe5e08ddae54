"""``add_up_transfers``: adds up transfers by account; what cannot be added stands in the job's ledger.

Everything that a job type of another package can do, in one file: progress, refused records, a checkpoint, a file, the
cache and the log; a listener that hears how its jobs end; and a sink that takes the files of exports.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO

from pydantic import Field

from haulier import (
    HeardEvent,
    JobConfig,
    JobContext,
    JobError,
    JobType,
    Listener,
    Result,
    RetryPolicy,
    Sink,
    SinkFile,
    TransientError,
)

CHECKPOINT_EVERY = 100
log = logging.getLogger(__name__)


class Transfers(JobConfig):
    """What to add up."""

    lines: list[str] = Field(min_length=1, max_length=100_000, description="Each 'ACCOUNT;AMOUNT'.")


def run(job: JobContext, config: Transfers) -> Result:
    """Go on where the checkpoint is, add up line by line, and store the sums as a CSV file."""
    kept = job.job.checkpoint or {"lines": 0, "sums": {}}
    sums = {account: Decimal(amount) for account, amount in kept["sums"].items()}
    total = len(config.lines)
    for number in range(kept["lines"] + 1, total + 1):
        _add(job, sums, number, config.lines[number - 1])
        if number % CHECKPOINT_EVERY == 0:
            job.checkpoint({"lines": number, "sums": _texts(sums)})
        job.progress(number, total)
    if not sums:
        raise JobError("no line could be added", code="transfers.none_good")
    job.progress(total, total, stage="writing")
    artifact = job.artifact("sums.csv", _csv(sums), content_type="text/csv", rows=len(sums))
    job.cache.set("transfers:last", {"job": str(job.id), "accounts": len(sums)}, ttl_s=86_400)
    job.log.info("transfers.added", extra={"accounts": len(sums)})
    return Result({"sums": _texts(sums), "artifact": str(artifact)}, message=f"{len(sums)} accounts")


def _add(job: JobContext, sums: dict[str, Decimal], number: int, line: str) -> None:
    account, _, amount = line.partition(";")
    try:
        value = Decimal(amount)
    except InvalidOperation:
        job.fail_record(
            number,
            code="transfers.bad_amount",
            message=f"expected ACCOUNT;AMOUNT with a decimal amount, got {amount!r}",
            field="amount",
            raw=line,
        )
        return
    sums[account] = sums.get(account, Decimal(0)) + value


def _texts(sums: dict[str, Decimal]) -> dict[str, str]:
    return {account: str(amount) for account, amount in sorted(sums.items())}


def _csv(sums: dict[str, Decimal]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([("account", "sum"), *_texts(sums).items()])
    return text.getvalue().encode()


JOB_TYPE = JobType(
    name="add_up_transfers",
    config=Transfers,
    run=run,
    retry=RetryPolicy(maximum_attempts=5, non_retryable=("transfers.none_good",)),
    summary="Adds up transfers by account.",
)


def heard(event: HeardEvent) -> None:
    """Say how a job ended; it may be heard twice, after an engine was killed."""
    log.info("transfers.ended", extra={"job_id": str(event.job_id), "event": event.type, "seq": event.seq})


LISTENER = Listener(
    name="transfers_audit",
    handle=heard,
    events=frozenset({"job.completed", "job.failed"}),
    job_types=frozenset({"add_up_transfers"}),
)


class Drop(JobConfig):
    """Where files are dropped."""

    folder: str = Field(pattern="^[a-z0-9_]{1,64}$", description="Below TRANSFERS_DROP_FOLDER of the worker.")


def deliver(job: JobContext, config: Drop, file: SinkFile, body: BinaryIO) -> None:
    """Write a file under its name; brought again, it takes the place of what came before."""
    folder = Path(os.environ["TRANSFERS_DROP_FOLDER"], config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name.rsplit("/", 1)[-1]
    partial = target.with_name(f".{job.id}.{target.name}")
    with partial.open("wb") as written:
        shutil.copyfileobj(body, written)
    if partial.stat().st_size != file.size_bytes:
        raise TransientError(f"{file.name} came with {partial.stat().st_size} of {file.size_bytes} bytes")
    partial.replace(target)
    job.log.info("transfers.dropped", extra={"file": file.name, "rows": file.rows})


SINK = Sink(config=Drop, deliver=deliver, summary="Files into a folder of the worker.")
