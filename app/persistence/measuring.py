"""What ``jobs.advance`` notes besides, in SQL: how long stages took, and when a job was seen past its middle."""

from __future__ import annotations

from typing import Final

from app.domain.measures import MIDWAY

_PART: Final = "coalesce(rows_done / nullif(rows_total, 0)::float8, bytes_done / nullif(bytes_total, 0)::float8)"
# The row as it was is read: how far it was when it was written last, and when that was.
MIDWAY_TOO: Final = f"""
    midway_part = CASE WHEN midway_at IS NULL AND {_PART} >= {MIDWAY} THEN least(1, {_PART}) ELSE midway_part END,
    midway_at = CASE WHEN midway_at IS NULL AND {_PART} >= {MIDWAY} THEN progressed_at ELSE midway_at END
"""
NEW_STAGE: Final = """
    stage = :stage,
    stage_seconds = CASE WHEN stage IS NULL OR stage = :stage THEN stage_seconds ELSE
        coalesce(stage_seconds, '{}') || jsonb_build_object(stage, coalesce((stage_seconds ->> stage)::float8, 0)
            + extract(epoch FROM clock_timestamp() - greatest(stage_at, attempt_started_at))) END,
    stage_at = CASE WHEN stage = :stage AND stage_at >= attempt_started_at THEN stage_at ELSE clock_timestamp() END
"""
