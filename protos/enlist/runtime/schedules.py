"""Schedules: when something shall happen again and again, by a cron expression and a time zone, and windows that open so.

Both ends compute the same: the primary when a task is due, a secondary whether its maintenance window is open. The calendar is
cronsim's, asked about wall-clock times without a zone only: with one it never returns from some expressions (2.8,
`49-55/55 */3 * * *` in Pacific/Chatham, whose clocks change at 2:45). What a change of the clocks does is decided here:

    a time that is skipped      counts when it would have been, had the clocks not changed: 2:30 is 3:30 that day
    a time that comes twice     counts the first time; where minute or hour begin with `*`, both times
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from enlist.reasons import Reason, Refused

LENGTH = 256
"""Characters in an expression, at most: enough to write every minute of the hour out."""
SHORTEST_WINDOW = 60
LONGEST_WINDOW = 7 * 86400

_EXPRESSION = re.compile(r"[0-9A-Za-z*,/#-]+( +[0-9A-Za-z*,/#-]+){4}")
_ZONE = re.compile(r"[A-Z][A-Za-z0-9+_-]*(/[A-Z][A-Za-z0-9+_-]*)*")  # not right/..., posixrules, tzdata.zi, localtime
_DAY = 86400
_SOME_DAY = 1_767_225_600  # 2026-01-01: from any day on, a schedule that fires at all fires within the fifty years cronsim looks


@dataclass(frozen=True)
class Window:
    """A maintenance window: opens whenever the cron expression `start` says, for so many seconds, by a zone's clock ("": UTC)."""

    start: str
    seconds: int
    zone: str = ""


def check(expr: str, zone: str) -> None:
    """Refuses with SCHEDULE_INVALID what is no cron expression of five fields, no zone, or never fires."""
    following(expr, zone, _SOME_DAY)


def following(expr: str, zone: str, after: int) -> int:
    """The first time after `after` (Unix seconds, both) at which the schedule fires. Refuses as `check` does."""
    clock = _clock(zone)
    minute, hour = _fields(expr)[:2]
    again = minute.startswith("*") or hour.startswith("*")
    found: list[int] = []
    for wall in _walls(expr, after, clock):
        first, second = (int(wall.replace(tzinfo=clock, fold=fold).timestamp()) for fold in (0, 1))
        skipped = second < first  # how PEP 495 tells
        found += [moment for moment in (first, second if again and not skipped else first) if moment > after]
        if first > after and (not skipped or first > min(found) + _DAY):  # what fits behind it comes later
            return min(found)
    raise _refuse(f'The schedule "{expr}" never fires: no day fits')


def check_window(window: Window) -> None:
    """Refuses with SCHEDULE_INVALID a window that never opens, or is too short or too long."""
    check(window.start, window.zone)
    if not SHORTEST_WINDOW <= window.seconds <= LONGEST_WINDOW:
        raise _refuse("A maintenance window is open for one minute to seven days")


def opens(window: Window, now: int) -> int:
    """`now` if the window is open, else when it opens next. It is open from each start on, the last second excluded."""
    return max(now, following(window.start, window.zone, now - window.seconds))


def _walls(expr: str, after: int, clock: tzinfo) -> Iterator[datetime]:
    """The wall-clock times that fit, in order. Those just before `after` are among them where clocks change within a day."""
    try:
        yield from CronSim(expr, min(_wall(after + days * _DAY, clock) - timedelta(days=days) for days in (-1, 0, 1)))
    except CronSimError as error:
        raise _refuse(f'The schedule "{expr}" never fires: there is no such {str(error).removeprefix("Bad ")}') from None
    except (OverflowError, ValueError, OSError):  # beyond the calendar
        raise _refuse(f'The schedule "{expr}" has no time that can be computed') from None


def _wall(seconds: int, clock: tzinfo) -> datetime:
    return datetime.fromtimestamp(seconds, clock).replace(tzinfo=None, fold=0)


def _fields(expr: str) -> list[str]:
    if len(expr) > LENGTH or not _EXPRESSION.fullmatch(expr):
        raise _refuse("A schedule is a cron expression of five fields: minute, hour, day of the month, month, day of the week")
    return expr.split()


def _clock(zone: str) -> tzinfo:
    try:
        if not zone:
            return UTC
        if _ZONE.fullmatch(zone):
            return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # not there; not a zone; a folder of zones
        pass
    raise _refuse("There is no such time zone. Name one as the time zone database does, such as Europe/Paris")


def _refuse(problem: str) -> Refused:
    return Refused(Reason.SCHEDULE_INVALID, f"{problem}.")
