"""A package beside Haulier: a job type that keeps checkpoints, and a listener that writes down what it hears."""

from __future__ import annotations

import os
import time
from pathlib import Path

from haulier import HeardEvent, JobConfig, JobContext, JobType, Listener, Result, RetryPolicy

HEARD = Path(os.environ.get("CHAOS_HEARD", "heard.txt"))
"""A line for each event that was heard: tenant, seq, job, number."""


class Tally(JobConfig):
    """What to add up, and how long each number takes."""

    numbers: list[int]
    each_s: float = 0.1


def run(job: JobContext, config: Tally) -> Result:
    """Go on behind the number that the last checkpoint names."""
    kept = job.job.checkpoint or {"added": 0, "sum": 0}
    added, total = kept["added"], kept["sum"]
    for number in config.numbers[added:]:
        time.sleep(config.each_s)
        added, total = added + 1, total + number
        job.progress(added, len(config.numbers))
        job.checkpoint({"added": added, "sum": total})
    return Result({"sum": total})


def write_down(event: HeardEvent) -> None:
    """Write one line in one call, which no kill can leave in half."""
    line = f"{event.tenant} {event.seq} {event.job_id} {event.number}\n"
    with HEARD.open("ab", buffering=0) as file:
        file.write(line.encode())


JOB_TYPE = JobType(name="tally", config=Tally, run=run, retry=RetryPolicy(maximum_attempts=40, initial_interval_s=0.2))
LISTENER = Listener("chaos", write_down)
