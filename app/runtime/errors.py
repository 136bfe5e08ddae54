"""What can go wrong with the embedded stores and their supervisor."""

from __future__ import annotations

from app.domain.errors import HaulierError


class StoreStartError(HaulierError):
    """A server did not come up; the text ends with the last lines it logged."""

    code = "runtime.store_failed"


class RuntimeStateError(HaulierError):
    """The data directory is not in a state to start from: in use, damaged, or not ours."""

    code = "runtime.data_dir"
