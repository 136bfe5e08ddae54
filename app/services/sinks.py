"""Sinks: a tenant's own buckets, tried when they are named and opened when an export needs them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Final
from uuid import uuid4

from app.domain.errors import InvalidRequestError, JobError, PermanentError, Problem, TransientError, UnavailableError
from app.domain.places import below
from app.domain.ports import ObjectRef, ObjectStore
from app.domain.sinks import Credentials, S3Sink
from app.persistence import changes
from app.persistence import sinks as rows
from app.persistence.sessions import Sessions
from app.security.master_keys import MasterKeys

OpenStore = Callable[[str | None, str, Credentials], ObjectStore]
"""Takes endpoint, region and credentials."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HINT: Final = "Check the sink's bucket, region and endpoint, and that its key may put and delete objects there."


class Sinks:
    """The use cases of sinks.

    Args:
        keys: Seal the credentials; each is readable in its own row alone.
        open_store: Gives a sink's bucket to who has its credentials; PermanentError for an address that may not be
            called.
    """

    def __init__(self, sessions: Sessions, keys: MasterKeys, open_store: OpenStore) -> None:
        self._sessions = sessions
        self._keys = keys
        self._open_store = open_store

    def put(
        self,
        tenant: str,
        name: str,
        *,
        bucket: str,
        region: str,
        endpoint: str | None,
        prefix: str,
        credentials: Credentials,
        actor: str,
    ) -> S3Sink:
        """Store a sink once an object was written there and removed again.

        Its credentials are given anew whenever it is: nobody can have those that are stored sent elsewhere.

        Raises:
            InvalidRequestError: ``sink.refused``, ``ERR_URL_FORBIDDEN``; ``sink.no_master_key``.
            UnavailableError: Nobody answers there.
        """
        if not self._keys:
            raise InvalidRequestError(
                "this installation has no HAULIER_MASTER_KEY to seal credentials with", code="sink.no_master_key"
            )
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"a sink's name is 1 to 63 small letters, digits, '-' and '_', got {name!r}", code="sink.name_invalid"
            )
        self._probe(endpoint, region, bucket, prefix, credentials)
        sealed = self._keys.seal(json.dumps(asdict(credentials)).encode(), context=_context(tenant, name))
        place = {"bucket": bucket, "region": region, "endpoint": endpoint, "prefix": prefix}
        with self._sessions.begin() as session:
            changes.add(session, tenant, actor=actor, what=f"sink {name}", before=None, after=place)
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
            pointer = "/endpoint" if error.code == _FORBIDDEN else "/bucket"
            raise InvalidRequestError(
                error.detail, code=error.code, hint=error.hint, problems=(Problem(pointer, error.detail),)
            ) from None

    def of_tenant(self, tenant: str) -> list[S3Sink]:
        """A tenant's sinks by name."""
        with self._sessions.begin() as session:
            return rows.of_tenant(session, tenant)

    def get(self, tenant: str, name: str) -> S3Sink:
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
            rows.remove(session, tenant, name)
            changes.add(session, tenant, actor=actor, what=f"sink {name}", before={"name": name}, after=None)

    def open(self, tenant: str, name: str) -> tuple[S3Sink, ObjectStore]:
        """A sink and its bucket.

        Raises:
            NotFoundError: The tenant has none of this name.
            JobError: ``master_key.unknown``, ``master_key.tampered``; PermanentError: its address may not be called.
        """
        with self._sessions.begin() as session:
            sink, sealed = rows.get(session, tenant, name)
        credentials = Credentials(**json.loads(self._keys.open(sealed, context=_context(tenant, name))))
        return sink, self._open_store(sink.endpoint, sink.region, credentials)


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
_FORBIDDEN: Final = "ERR_URL_FORBIDDEN"


def _context(tenant: str, name: str) -> str:
    return f"sink/{tenant}/{name}"
