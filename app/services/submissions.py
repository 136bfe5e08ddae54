"""What a request for a job is checked against: the tenant's place in S3 and its tables."""

from __future__ import annotations

from app.domain import places
from app.domain.errors import InvalidRequestError, NotFoundError, Problem
from app.domain.ports import ObjectRef
from app.domain.tables import BUILT_IN, Table
from app.services.tables import Tables
from config.settings import Settings


class TenantSubmission:
    """One tenant's; see ``app.domain.job_types.Submission``."""

    def __init__(self, tenant: str, *, settings: Settings, tables: Tables) -> None:
        self.tenant = tenant
        self._settings = settings
        self._tables = tables

    def place(self, bucket: str | None, key: str) -> ObjectRef:
        """The object the tenant means; ForbiddenError when it may not use it."""
        return places.place(
            self.tenant,
            bucket,
            key,
            own_bucket=self._settings.s3_bucket,
            allowed=self._settings.s3_allowed_buckets,
        )

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
