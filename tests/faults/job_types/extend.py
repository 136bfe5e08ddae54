"""The real ``extend``."""

from tasks.types.extend import JOB_TYPE

__all__ = ["JOB_TYPE"]
