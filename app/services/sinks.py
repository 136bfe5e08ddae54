"""Sinks: a tenant's own buckets and receivers, tried when they are named and opened when a job needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, NamedTuple
from uuid import uuid4

from app.domain.errors import (
    InvalidRequestError,
    JobError,
    NotFoundError,
    PermanentError,
    Problem,
    TransientError,
    UnavailableError,
)
from app.domain.places import below
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.sinks import Credentials, Receiver, S3Sink, TenantSink, WebhookSink
from app.persistence import changes
from app.persistence import sinks as rows
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys
from app.security.outgoing.guard import Outgoing
from app.security.outgoing.targets import FORBIDDEN, parse_target
from app.security.signed_posts import key_of

OpenStore = Callable[[str | None, str, Credentials], ObjectStore]
"""Takes endpoint, region and credentials."""


class OpenBucket(NamedTuple):
    """A bucket that can be written."""

    sink: S3Sink
    store: ObjectStore


class OpenWebhook(NamedTuple):
    """A receiver that can be posted to."""

    sink: WebhookSink
    receiver: Receiver


_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HINT: Final = "Check the sink's bucket, region and endpoint, and that its key may put and delete objects there."


class Sinks:
    """The use cases of sinks.

    Args:
        keys: Seal the credentials; each is readable in its own row alone.
        open_store: Gives a sink's bucket to who has its credentials; PermanentError for an address that may not be
            called.
        outgoing: Knows which addresses may be called.
    """

    def __init__(self, sessions: Sessions, keys: MasterKeys, open_store: OpenStore, outgoing: Outgoing) -> None:
        self._sessions = sessions
        self._keys = keys
        self._open_store = open_store
        self._outgoing = outgoing

    def put(
        self,
        tenant: str,
        name: str,
        *,
        bucket: str,
        credentials: Credentials,
        actor: str,
        region: str = "us-east-1",
        endpoint: str | None = None,
        prefix: str = "",
    ) -> TenantSink:
        """Store a bucket once an object was written there and removed again.

        Its credentials are given anew whenever it is: nobody can have those that are stored sent elsewhere.

        Raises:
            InvalidRequestError: ``sink.refused``, ``ERR_URL_FORBIDDEN``; ``sink.no_master_key``.
            UnavailableError: Nobody answers there.
        """
        self._must_be_storable(name)
        self._probe(endpoint, region, bucket, prefix, credentials)
        place = {"bucket": bucket, "region": region, "endpoint": endpoint, "prefix": prefix}
        return self._store(tenant, name, opens=credentials, actor=actor, **place)

    def put_webhook(self, tenant: str, name: str, *, receiver: Receiver, actor: str) -> TenantSink:
        """Store a receiver of results; nothing is sent to it.

        Raises:
            InvalidRequestError: ``ERR_URL_FORBIDDEN``; ``sink.secret_invalid``; ``sink.no_master_key``.
            UnavailableError: Its name has no address now.
        """
        self._must_be_storable(name)
        try:
            self._outgoing.addresses_of(receiver.url)
        except TransientError as error:
            raise UnavailableError(error.detail) from None
        except PermanentError as error:
            raise _misfit(error, "/url") from None
        key_of(receiver.secret)
        origin = parse_target(receiver.url).origin
        return self._store(tenant, name, opens=receiver, actor=actor, origin=origin)

    def _must_be_storable(self, name: str) -> None:
        if not self._keys:
            raise InvalidRequestError(
                "this installation has no HAULIER_MASTER_KEY to seal credentials with", code="sink.no_master_key"
            )
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"a sink's name is 1 to 63 small letters, digits, '-' and '_', got {name!r}", code="sink.name_invalid"
            )

    def _store(self, tenant: str, name: str, *, opens: Credentials | Receiver, actor: str, **place: Any) -> TenantSink:
        sealed = self._keys.seal(json.dumps(asdict(opens)).encode(), context=_context(tenant, name))
        with self._sessions.begin() as session:
            before = rows.place_of(session, tenant, name)
            changes.add(session, tenant, actor=actor, what=f"sink {name}", before=before, after=place)
            return rows.put(session, tenant, name, sealed=sealed, created_by=actor, **place)

    def _probe(self, endpoint: str | None, region: str, bucket: str, prefix: str, credentials: Credentials) -> None:
        ref = ObjectRef(bucket, below(prefix, f".haulier-probe-{uuid4()}"))
        try:
            with final_refusals("the bucket"):
                store = self._open_store(endpoint, region, credentials)
                store.put(ref, b"Haulier may write here.\n", content_type="text/plain")
                store.delete([ref])
        except TransientError as error:
            raise UnavailableError(error.detail) from None
        except PermanentError as error:
            raise _misfit(error, "/endpoint" if error.code == FORBIDDEN else "/bucket") from None

    def of_tenant(self, tenant: str) -> list[TenantSink]:
        """A tenant's sinks by name."""
        with self._sessions.begin() as session:
            return rows.of_tenant(session, tenant)

    def get(self, tenant: str, name: str) -> TenantSink:
        """One sink.

        Raises:
            NotFoundError: The tenant has none of this name.
        """
        with self._sessions.begin() as session:
            return rows.get(session, tenant, name)[0]

    def remove(self, tenant: str, name: str, *, actor: str) -> None:
        """Forget a sink and its credentials; what lies in the bucket stays.

        Raises:
            NotFoundError: The tenant has none of this name.
        """
        with self._sessions.begin() as session:
            before = rows.place_of(session, tenant, name)
            rows.remove(session, tenant, name)
            changes.add(session, tenant, actor=actor, what=f"sink {name}", before=before, after=None)

    def open(self, tenant: str, name: str) -> OpenBucket | OpenWebhook:
        """A sink and what opens it.

        Raises:
            PermanentError: The tenant has none of this name; its address may not be called.
            JobError: ``master_key.unknown``, ``master_key.tampered``.
        """
        try:
            with self._sessions.begin() as session:
                sink, sealed = rows.get(session, tenant, name)
        except NotFoundError as error:
            raise PermanentError(error.detail, code=error.code) from None
        opens = json.loads(self._keys.open(sealed, context=_context(tenant, name)))
        if isinstance(sink, WebhookSink):
            return OpenWebhook(sink, Receiver(**opens))
        return OpenBucket(sink, self._open_store(sink.endpoint, sink.region, Credentials(**opens)))


def _misfit(error: JobError, pointer: str) -> InvalidRequestError:
    return InvalidRequestError(
        error.detail, code=error.code, hint=error.hint, problems=(Problem(pointer, error.detail),)
    )


@contextmanager
def final_refusals(where: str) -> Iterator[None]:
    """Make what a bucket refuses permanent: no policy tries wrong credentials again, and no error tells them."""
    try:
        yield
    except (TransientError, PermanentError):
        raise
    except JobError as error:
        if error.code not in _REFUSED:
            raise
        # Without its cause, whose words are those of whoever answers there.
        raise PermanentError(f"{where} refuses us: {error.detail}", code="sink.refused", hint=_HINT) from None


_REFUSED: Final = frozenset({"s3.forbidden", "s3.no_such_bucket", "s3.refused"})


def _context(tenant: str, name: str) -> str:
    return f"sink/{tenant}/{name}"
