"""The real ``http_request``."""

from tasks.types.http_request import JOB_TYPE

__all__ = ["JOB_TYPE"]
