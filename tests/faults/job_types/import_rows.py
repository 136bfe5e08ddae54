"""The real ``import``."""

from tasks.types.import_rows import JOB_TYPE

__all__ = ["JOB_TYPE"]
