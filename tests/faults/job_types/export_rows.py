"""The real ``export``."""

from tasks.types.export_rows import JOB_TYPE

__all__ = ["JOB_TYPE"]
