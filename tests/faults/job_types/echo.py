"""The real ``echo``."""

from tasks.types.echo import JOB_TYPE

__all__ = ["JOB_TYPE"]
