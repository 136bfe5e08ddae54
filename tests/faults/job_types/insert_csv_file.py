"""The real ``insert_csv_file``."""

from tasks.types.insert_csv_file import JOB_TYPE

__all__ = ["JOB_TYPE"]
