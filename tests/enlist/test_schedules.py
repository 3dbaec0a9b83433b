"""Schedules and windows: what both ends must compute alike, also where clocks change, and without ever searching for long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist.runtime.schedules import LENGTH, Window, check, check_window, following, opens
from tests.primary.refusals import attempt

PARIS, CHATHAM, LORD_HOWE, TROLL = "Europe/Paris", "Pacific/Chatham", "Australia/Lord_Howe", "Antarctica/Troll"
DAY = 86400


def at(text: str) -> int:
    """Unix seconds of an ISO time, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def firings(expr: str, zone: str, after: str, count: int) -> list[str]:
    """The next so many times, in UTC."""
    found, now = [], at(after)
    for _ in range(count):
        now = following(expr, zone, now)
        found.append(datetime.fromtimestamp(now, UTC).strftime("%m-%d %H:%M"))
    return found


def refused(expr: str, zone: str = "") -> str:
    """The sentence it is refused with."""
    with pytest.raises(Refused) as no:
        check(expr, zone)
    assert no.value.reason is Reason.SCHEDULE_INVALID
    return no.value.message


# --- The calendar ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "after", "expected"),
    [
        ("0 2 * * *", "2026-11-21T01:59:59", ["11-21 02:00", "11-22 02:00"]),
        ("0 2 * * *", "2026-11-21T02:00:00", ["11-22 02:00", "11-23 02:00"]),
        ("*/20 * * * *", "2026-11-21T23:30:00", ["11-21 23:40", "11-22 00:00", "11-22 00:20"]),
        ("0 0 29 2 *", "2026-11-21T00:00:00", ["02-29 00:00", "02-29 00:00"]),
        ("0 0 L * *", "2026-01-31T00:00:00", ["02-28 00:00", "03-31 00:00"]),
        ("30 4 1,15 * MON", "2026-06-01T04:30:00", ["06-08 04:30", "06-15 04:30", "06-22 04:30"]),
    ],
)
def test_a_schedule_fires_strictly_after(expr: str, after: str, expected: list[str]) -> None:
    assert firings(expr, "", after, len(expected)) == expected


def test_a_zone_s_clock_is_meant() -> None:
    assert firings("0 2 * * *", PARIS, "2026-06-01T00:00:00", 1) == ["06-02 00:00"]
    assert firings("0 2 * * *", PARIS, "2026-12-01T00:00:00", 1) == ["12-01 01:00"]


# --- Where clocks change ----------------------------------------------------------------------------------------------------------


def test_a_time_that_is_skipped_counts_when_it_would_have_been() -> None:
    """Paris, 2026-03-29: 2:00 is 3:00."""
    assert firings("30 2 * * *", PARIS, "2026-03-28T00:00:00", 3) == ["03-28 01:30", "03-29 01:30", "03-30 00:30"]


def test_a_time_that_comes_twice_counts_once() -> None:
    """Paris, 2026-10-25: 3:00 is 2:00."""
    assert firings("30 2 * * *", PARIS, "2026-10-24T12:00:00", 2) == ["10-25 00:30", "10-26 01:30"]
    assert firings("30 2 * * *", PARIS, "2026-10-25T00:45:00", 1) == ["10-26 01:30"]
    assert firings("30 2 * * *", PARIS, "2026-10-25T01:15:00", 1) == ["10-26 01:30"]


def test_what_runs_every_hour_runs_in_both_of_the_hours_that_bear_one_name() -> None:
    assert firings("30 * * * *", PARIS, "2026-10-24T23:00:00", 4) == ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"]
    assert firings("*/30 2 * * *", PARIS, "2026-10-25T00:10:00", 4) == ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00"]


def test_what_runs_every_hour_runs_every_hour_where_one_is_skipped() -> None:
    assert firings("30 * * * *", PARIS, "2026-03-29T00:00:00", 3) == ["03-29 00:30", "03-29 01:30", "03-29 02:30"]


def _reference(minutes: range, hours: range, again: bool, zone: str, after: int) -> int:
    """Slow and obvious: every minute of four days, by what the zone's clock shows, or would show had it not changed."""
    clock, fits = ZoneInfo(zone), set()
    for minute in range(after // 60 - 1440, after // 60 + 3 * 1440):
        wall = datetime.fromtimestamp(minute * 60, UTC).replace(tzinfo=None)  # every wall time, whether the clock shows it or not
        if wall.minute not in minutes or wall.hour not in hours:
            continue
        first, second = (int(wall.replace(tzinfo=clock, fold=fold).timestamp()) for fold in (0, 1))
        fits |= {first, second} if again and second > first else {first}
    return min(moment for moment in fits if moment > after)


CHANGES = {
    PARIS: ("2026-03-29T01:00", "2026-10-25T01:00"),
    CHATHAM: ("2027-04-03T14:00", "2026-09-26T14:00"),
    LORD_HOWE: ("2027-04-03T15:00", "2026-10-03T15:30"),
    TROLL: ("2026-03-29T01:00", "2026-10-25T01:00"),
}


@given(
    zone=st.sampled_from(sorted(CHANGES)),
    which=st.integers(0, 1),
    away=st.integers(-7200, 7200),
    step=st.integers(1, 40),
    hours=st.sampled_from([("*", range(24)), ("2", range(2, 3)), ("0-3", range(4)), ("*/2", range(0, 24, 2))]),
)
def test_it_is_what_one_finds_by_looking_at_every_minute(
    zone: str, which: int, away: int, step: int, hours: tuple[str, range]
) -> None:
    after = at(CHANGES[zone][which]) + away
    for minutes in (f"*/{step}", f"0-59/{step}"):
        again = minutes.startswith("*") or hours[0].startswith("*")
        expected = _reference(range(0, 60, step), hours[1], again, zone, after)
        assert following(f"{minutes} {hours[0]} * * *", zone, after) == expected


# --- Bad input ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expr", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 */40 * 1#5", "0 0 31 2,4 *"])
def test_a_schedule_that_never_fires_is_refused_with_a_sentence(expr: str) -> None:
    assert refused(expr).startswith(f'The schedule "{expr}" never fires: ')


@pytest.mark.parametrize(
    "expr",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "0 0 * * *\n",
        "0 0 * * *; reboot",
        "$(reboot) 0 * * *",
        "\u0661 * * * *",
        "\u00b2 * * * *",
        "60 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "*//5 * * * *",
        "1,,2 * * * *",
        "L * * * *",
        "* * * * 8",
        "* * * * 1#6",
        "* * * FOO *",
        "-1 * * * *",
        "9" * 200 + " * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(expr: str) -> None:
    assert refused(expr).endswith(".")


def test_an_expression_as_long_as_a_novel_is_refused_by_its_length() -> None:
    assert "five fields" in refused("0," * 500 + "0 * * * *")
    check(f"{','.join(map(str, range(60)))} * * * *", "")
    assert len("0," * 120 + "0 0 * * *") <= LENGTH


@pytest.mark.parametrize(
    "zone",
    [
        "Nowhere/City",
        "Europe",
        "../etc/passwd",
        "/etc/passwd",
        "right/Europe/Paris",
        "posixrules",
        "Europe/Paris\0",
        "A" * 5000,
        " ",
    ],
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    assert "time zone" in refused("0 2 * * *", zone)


HOSTILE = [
    ("49-55/55 */3 * *,11 *", CHATHAM),  # makes cronsim 2.8 search for ever, if it is asked about times with a zone
    ("*/49 3 * * */8", CHATHAM),  # makes it return the same two times in turn
    ("* * * * *", TROLL),
    ("* 2 */31 * SUN#5", "America/Havana"),
    ("0-59/59 2-3 LW 1-12/11 */8", LORD_HOWE),
    ("0 0 */40 * 1#5", PARIS),
    ("*/53 2 * 3 SUN#5", TROLL),  # falls on skipped times only
    ("59 23 29 2 */8", CHATHAM),
]


@pytest.mark.parametrize(("expr", "zone"), HOSTILE)
@pytest.mark.parametrize("change", sorted({each for both in CHANGES.values() for each in both}))
def test_no_search_takes_long(expr: str, zone: str, change: str) -> None:
    """A search happens in the database's one writing thread: what took seconds there would stop the primary."""
    begun = time.process_time()
    for away in range(-7200, 7201, 1800):
        found = attempt(following, expr, zone, at(change) + away)
        assert "never fires" in found.message if isinstance(found, Refused) else found > at(change) + away
    assert time.process_time() - begun < 9 * 1.0


_FIELD = st.sampled_from(["*", "*/7", "0", "5,*", "3-9/2", "2", "L", "LW", "1#5", "5L", "31", "29", "*/40", "FEB", "SUN"])


@given(st.tuples(*[_FIELD] * 5).map(" ".join), st.sampled_from(["", PARIS, CHATHAM]), st.integers(0, 2**34))
def test_an_expression_fires_later_or_is_refused(expr: str, zone: str, after: int) -> None:
    found = attempt(following, expr, zone, after)
    assert found.reason is Reason.SCHEDULE_INVALID if isinstance(found, Refused) else found > after


@pytest.mark.parametrize("after", [-(2**62), 2**62, 253402300000])
def test_beyond_the_calendar_it_is_refused(after: int) -> None:
    with pytest.raises(Refused):
        following("0 2 * * *", PARIS, after)


# --- Windows --------------------------------------------------------------------------------------------------------------------

NIGHT = Window("0 22 * * *", 4 * 3600, PARIS)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-21T20:59:59", "2026-11-21T21:00:00"),
        ("2026-11-21T21:00:00", "2026-11-21T21:00:00"),
        ("2026-11-21T23:30:00", "2026-11-21T23:30:00"),  # 0:30 in Paris: it is open across midnight
        ("2026-11-22T00:59:59", "2026-11-22T00:59:59"),
        ("2026-11-22T01:00:00", "2026-11-22T21:00:00"),
    ],
)
def test_a_window_is_open_for_its_seconds_and_not_one_more(now: str, expected: str) -> None:
    assert opens(NIGHT, at(now)) == at(expected)


def test_a_window_longer_than_its_period_is_always_open() -> None:
    always = Window("0 */6 * * *", 7 * 3600)
    assert all(opens(always, now) == now for now in range(at("2026-11-21"), at("2026-11-22"), 613))


def test_a_window_is_as_long_on_the_days_when_clocks_change() -> None:
    window = Window("0 1 * * *", 3 * 3600, PARIS)
    for day, opening in (("2026-03-29", "2026-03-29T00:00"), ("2026-10-25", "2026-10-24T23:00")):
        found = [now for now in range(at(day) - 4 * 3600, at(day) + 12 * 3600, 60) if opens(window, now) == now]
        assert (found[0], len(found)) == (at(opening), 180)


@pytest.mark.parametrize("seconds", [-1, 0, 59, 7 * DAY + 1, 2**62])
def test_a_window_too_short_or_too_long_is_refused(seconds: int) -> None:
    with pytest.raises(Refused) as no:
        check_window(Window("0 2 * * *", seconds))
    assert no.value.reason is Reason.SCHEDULE_INVALID


def test_a_window_that_never_opens_is_refused() -> None:
    check_window(NIGHT)
    for window in (Window("0 0 30 2 *", 3600), Window("0 2 * * *", 3600, "Nowhere/City")):
        with pytest.raises(Refused) as no:
            check_window(window)
        assert no.value.reason is Reason.SCHEDULE_INVALID
