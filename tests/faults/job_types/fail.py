"""The real ``fail``."""

from tasks.types.fail import JOB_TYPE

__all__ = ["JOB_TYPE"]
