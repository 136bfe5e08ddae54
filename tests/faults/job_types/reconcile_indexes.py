"""The real ``reconcile_indexes``."""

from tasks.types.reconcile_indexes import JOB_TYPE

__all__ = ["JOB_TYPE"]
