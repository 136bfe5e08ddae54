"""What a request for a job is checked against: its type, the tenant's place in S3 and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.domain import places
from app.domain.errors import (
    InvalidRequestError,
    JobError,
    NotFoundError,
    Problem,
    TransientError,
    UnavailableError,
)
from app.domain.job_types import JobType, Registry, Submission
from app.domain.jobs import SubmitJob
from app.domain.pipelines import is_templated
from app.domain.ports import ObjectInfo, ObjectRef, ObjectStore
from app.domain.retry import RetryPolicy, policy_of
from app.domain.sinks import TenantSink
from app.domain.tables import BUILT_IN, Table
from app.domain.texts import is_storable
from app.persistence import line_keys, sinks, uploads
from app.persistence.sessions import Sessions
from app.services.tables import Tables
from app.services.uploads import refuse_other
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Checks:
    """What every request for a job passes before a row is made.

    Args:
        submission: What the job types' own checks may ask, for a tenant.
    """

    registry: Registry
    submission: Callable[[str], Submission]

    def checked(self, request: SubmitJob, *, at: str = "", templates: bool = False) -> SubmitJob:
        """``request`` with its type's defaults and, where it is silent, the installation's.

        Args:
            at: Where it stands in what was sent.
            templates: Whether the config may hold templates; then only what is known of it is checked.
        Raises:
            InvalidRequestError: Unknown type, or a config that does not fit it.
        """
        job_type = self.registry.open.get(request.type, at=f"{at}/type")
        config = self._config(job_type, request.tenant, request.config, at=f"{at}/config", templates=templates)
        return _settled(request, job_type, config)

    def form(self, request: SubmitJob, *, at: str = "") -> Form:
        """What ``request`` and others like it come to, whatever config each of them has.

        Raises:
            InvalidRequestError: Unknown type.
        """
        job_type = self.registry.open.get(request.type, at=f"{at}/type")
        settled = _settled(request, job_type, {})
        return Form(settled, job_type, job_type.queue_for(settled), policy_of(settled.retry, job_type.retry))

    def config(self, form: Form, config: dict[str, Any], *, at: str = "") -> dict[str, Any]:
        """The config of a request of this form, with what it leaves to the installation.

        Args:
            at: Where the request stands in what was sent.
        Raises:
            InvalidRequestError: It does not fit the type.
        """
        return self._config(form.job_type, form.request.tenant, config, at=f"{at}/config")

    def _config(
        self, job_type: JobType, tenant: str, config: dict[str, Any], *, at: str, templates: bool = False
    ) -> dict[str, Any]:
        _refuse_unstorable_text(config, at=at)
        if templates and is_templated(config):
            self.registry.check_around(job_type, config, is_templated, at=at)
        else:
            parsed = self.registry.parse(job_type, config, at=at)
            if job_type.check is not None:
                job_type.check(self.submission(tenant), parsed)
        return config if job_type.settle is None else job_type.settle(self.submission(tenant), config)


@dataclass(frozen=True, slots=True)
class Form:
    """What requests come to that differ in their configs alone.

    Args:
        request: With its type's defaults; its config is none of theirs.
        queue: Where such jobs wait.
    """

    request: SubmitJob
    job_type: JobType
    queue: str
    retry: RetryPolicy


def _settled(request: SubmitJob, job_type: JobType, config: dict[str, Any]) -> SubmitJob:
    return replace(
        request,
        config=config,
        retry=policy_of(request.retry, job_type.retry),
        attempt_timeout_s=request.attempt_timeout_s or job_type.attempt_timeout_s,
    )


def _refuse_unstorable_text(config: dict[str, Any], *, at: str) -> None:
    if not is_storable(config):
        raise InvalidRequestError(
            "the config holds U+0000 or half of a surrogate pair, which Postgres cannot store",
            problems=(Problem(at, "U+0000 and lone surrogates are not allowed"),),
        )


class TenantSubmission:
    """One tenant's; see ``app.domain.job_types.Submission``.

    Args:
        objects: Where it is looked up whether an object is there; without it every one passes for being there.
    """

    def __init__(
        self,
        tenant: str,
        *,
        settings: Settings,
        sessions: Sessions,
        tables: Tables,
        objects: ObjectStore | None = None,
    ) -> None:
        self.tenant = tenant
        self._settings = settings
        self._sessions = sessions
        self._tables = tables
        self._objects = objects

    @property
    def own_bucket(self) -> str:
        """The installation's own bucket."""
        return self._settings.s3_bucket

    @property
    def may_write_folders(self) -> bool:
        """Whether the installation has a folder that exports may write below."""
        return self._settings.export_root is not None

    @property
    def may_encrypt(self) -> bool:
        """Whether the installation has a master key to encrypt files under."""
        return self._settings.master_key is not None

    @property
    def may_scan(self) -> bool:
        """Whether the installation has a scanner for viruses."""
        return self._settings.clamd is not None

    @property
    def may_mirror(self) -> bool:
        """Whether the installation has a search server."""
        return self._settings.mirror_url is not None

    def place(self, bucket: str | None, key: str) -> ObjectRef:
        """The object the tenant means; ForbiddenError when it may not use it."""
        return places.place(
            self.tenant,
            bucket,
            key,
            own_bucket=self.own_bucket,
            allowed=self._settings.s3_allowed_buckets,
        )

    def sink(self, name: str, *, pointer: str) -> TenantSink:
        """The tenant's sink of this name."""
        with self._found(pointer) as session:
            return sinks.get(session, self.tenant, name)[0]

    def check_line_key(self, name: str, *, pointer: str) -> None:
        """Whether the tenant has a key of this name."""
        with self._found(pointer) as session:
            line_keys.sealed(session, self.tenant, name)

    @contextmanager
    def _found(self, pointer: str) -> Iterator[Session]:
        """What is not found there is a fault of the request."""
        try:
            with self._sessions.begin() as session:
                yield session
        except NotFoundError as error:
            raise InvalidRequestError(
                error.detail, code=error.code, problems=(Problem(pointer, error.detail),)
            ) from None

    def upload(self, upload_id: UUID, *, pointer: str) -> ObjectRef:
        """What the tenant has uploaded."""
        with self._found(pointer) as session:
            return uploads.get(session, self.tenant, upload_id).ref

    def stored(self, ref: ObjectRef, *, pointer: str) -> None:
        """Refuse an object that is not there; one that cannot be looked up now is an UnavailableError."""
        try:
            if self._objects is not None:
                self.received(ref, self._objects.head(ref))
        except TransientError as error:
            raise UnavailableError(error.detail, code=error.code) from None
        except JobError as error:
            problem = Problem(pointer, error.detail)
            raise InvalidRequestError(error.detail, code=error.code, hint=error.hint, problems=(problem,)) from None

    def received(self, ref: ObjectRef, info: ObjectInfo) -> None:
        """Refuse and remove an object that came by an upload and is not what was announced.

        Raises:
            PermanentError: ``upload.mismatch``.
        """
        upload_id = places.owner_of(self._settings.s3_upload_file_path_prefix, ref.key)
        if upload_id is None or self._objects is None:
            return
        with self._sessions.begin() as session:
            upload = uploads.find(session, self.tenant, upload_id)
        if upload is not None and upload.ref == ref:
            refuse_other(self._objects, upload, info)

    def path(self, path: str, *, pointer: str) -> tuple[str, ...]:
        """The parts of a path below the import folder."""
        return places.path_parts(self.tenant, path, root=self._settings.import_root, pointer=pointer)

    def table(self, name: str, *, pointer: str) -> Table:
        """A table of the tenant; a built-in one is not made for a check."""
        if name in BUILT_IN:
            return BUILT_IN[name]
        try:
            return self._tables.get(self.tenant, name)
        except NotFoundError as error:
            raise InvalidRequestError(
                error.detail, code=error.code, hint=error.hint, problems=(Problem(pointer, error.detail),)
            ) from None
