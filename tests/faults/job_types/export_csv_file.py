"""The real ``export_csv_file``."""

from tasks.types.export_csv_file import JOB_TYPE

__all__ = ["JOB_TYPE"]
