"""The real ``sleep``."""

from tasks.types.sleep import JOB_TYPE

__all__ = ["JOB_TYPE"]
