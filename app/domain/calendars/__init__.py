"""Schedule rules: intervals, cron lines, calendars, single instants, and their union in a time zone."""

from app.domain.calendars.calendar import Calendar
from app.domain.calendars.cron import Cron
from app.domain.calendars.interval import Interval
from app.domain.calendars.moment import At
from app.domain.calendars.policies import MissedPolicy, Overlap, OverlapPolicy, missed, overlap
from app.domain.calendars.reading import check_zone, parse
from app.domain.calendars.recurrence import Recurrence, Rule

__all__ = [
    "At",
    "Calendar",
    "Cron",
    "Interval",
    "MissedPolicy",
    "Overlap",
    "OverlapPolicy",
    "Recurrence",
    "Rule",
    "check_zone",
    "missed",
    "overlap",
    "parse",
]
