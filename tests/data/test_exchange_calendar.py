"""Sessions of known weeks."""

from datetime import date, timedelta

import exchange_calendars
import numpy as np
import pytest

from hrl_sarp.config.market_schema import CalendarChanges
from hrl_sarp.data import exchange_calendar
from hrl_sarp.data.exchange_calendar import first_sessions, session_days, sessions_between
from hrl_sarp.errors import DataError


def test_sessions_skip_weekends_holidays_and_unscheduled_closures() -> None:
    # closed from the attack of 11 September 2001 to the 14th, opened on Monday the 17th
    found = sessions_between("XNYS", date(2001, 9, 8), date(2001, 9, 18))
    assert found.astype(str).tolist() == ["2001-09-10", "2001-09-17", "2001-09-18"]


def test_both_ends_are_included() -> None:
    found = sessions_between("XNYS", date(2019, 1, 3), date(2019, 1, 4))
    assert found.astype(str).tolist() == ["2019-01-03", "2019-01-04"]


def test_span_without_a_session_is_empty() -> None:
    assert len(sessions_between("XNYS", date(2019, 1, 5), date(2019, 1, 6))) == 0


def test_declared_changes_add_and_remove_sessions() -> None:
    # Mumbai moved a holiday from Thursday to Friday and traded on the Sunday before
    changes = CalendarChanges(
        added=[date(2013, 11, 10), date(2013, 11, 14)], removed=[date(2013, 11, 15)]
    )
    found = sessions_between("XBOM", date(2013, 11, 8), date(2013, 11, 18), changes)
    assert found.astype(str).tolist() == [
        f"2013-11-{day:02d}" for day in (8, 10, 11, 12, 13, 14, 18)
    ]


def test_first_sessions_are_as_many_as_asked() -> None:
    found = first_sessions("24/5", date(2000, 1, 1), 2600)
    assert len(found) == 2600
    # 1 January 2000 was a Saturday; 520 weeks of weekdays end on Friday 19 December 2009
    assert found[[0, -1]].astype(str).tolist() == ["2000-01-03", "2009-12-18"]


def test_calendar_that_does_not_reach_back_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="calendar XBOM does not cover 1990-01-01") as caught:
        sessions_between("XBOM", date(1990, 1, 1), date(1999, 1, 1))
    assert "\n" not in str(caught.value)


def test_sessions_are_those_of_a_calendar_of_these_days_alone() -> None:
    rng = np.random.default_rng(0)
    for name in ("XNYS", "XBOM", "XHKG", "XTKS", "24/5"):
        for first in np.datetime64("1998-01-01") + rng.integers(0, 9000, 4):
            start, end = first.item(), (first + rng.integers(0, 900)).item()
            beyond = (end + timedelta(days=31)).isoformat()
            alone = exchange_calendars.get_calendar(name, start=start.isoformat(), end=beyond)
            days = alone.sessions.to_numpy().astype("datetime64[D]")
            expected = days[days <= np.datetime64(end)]
            assert np.array_equal(sessions_between(name, start, end), expected), (name, start, end)


def test_ranges_of_one_decade_share_a_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = exchange_calendars.get_calendar

    def counted(name: str, **days: object) -> object:
        made.append(name)
        return make(name, **days)

    monkeypatch.setattr(exchange_calendars, "get_calendar", counted)
    exchange_calendar._calendar.cache_clear()
    for day in range(1, 29):
        sessions_between("XNYS", date(2011, 3, 1), date(2017, 3, day))
        sessions_between("XNYS", date(2012, 3, day), date(2017, 3, 28))
        noon = np.array([f"2013-05-{day:02d}T17:00"], "datetime64[us]")  # files of single days
        session_days(noon, "XNYS")
    assert made == ["XNYS"]
