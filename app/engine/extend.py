"""Extension: what a payload gave to its batch becomes payloads of it, before the giver's end is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain.families import Member
from app.domain.jobs import Job
from app.domain.retry import RetryChanges
from app.persistence import families
from app.services.founding import child, insert


def extend(session: Session, batch: Job, giver: UUID) -> None:
    """Add what a completed payload gave; a batch that is over takes nothing more.

    It was checked when it was given, and is added exactly once: in the transaction that numbers the giver's end.
    """
    if batch.is_terminal:
        return
    payloads = families.extension(session, giver)
    first = families.grow(session, batch.id, len(payloads))
    members = [_member(batch, payload) for payload in payloads]
    insert(session, [child(batch, place, member, giver=giver) for place, member in enumerate(members, start=first)])


def _member(batch: Job, payload: Mapping[str, Any]) -> Member:
    member = Member.from_json({name: value for name, value in payload.items() if name != "retry_changes"})
    changes = RetryChanges.from_json(payload["retry_changes"]).over(RetryChanges.from_json(batch.config["retry"]))
    return replace(member, retry=changes.applied_to(member.retry))
