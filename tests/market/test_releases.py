"""When a published value is known: by hand, and each series against its time of printing."""

import csv
import datetime
import re
from collections.abc import Callable

import numpy as np
import pytest

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, list_choices, load_config
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.errors import FeatureError
from hrl_sarp.features.macro import MACRO_FEATURES
from hrl_sarp.market.releases import RELEASES, Release, align_series, release_of

FIRST, LAST = datetime.date(2006, 1, 1), datetime.date(2019, 12, 31)
DAYS = np.arange(FIRST, LAST, dtype="datetime64[D]")
"""Every reference date, weekends and holidays among them."""


def federal_holidays() -> np.ndarray:
    """Days off of the federal government in the US, where a Sunday's moves to Monday."""
    years = np.arange(FIRST.year, LAST.year + 2)
    fixed = [(1, 1), (7, 4), (11, 11), (12, 25)]
    days = [np.datetime64(f"{year}-{m:02}-{d:02}") for year in years for m, d in fixed]
    days = [day + 1 if int(weekday(np.array([day]))[0]) == 6 else day for day in days]
    for month, roll in ((1, 2), (2, 2), (9, 0), (10, 1)):  # King, Washington, Labor, Columbus
        first = np.array([f"{year}-{month:02}" for year in years], dtype="datetime64[M]")
        days += list(np.busday_offset(first.astype("datetime64[D]"), roll, "forward", "Mon"))
    june = np.array([f"{year}-06-01" for year in years], dtype="datetime64[D]")
    days += list(np.busday_offset(june, -1, "forward", "Mon"))  # Memorial Day
    november = np.array([f"{year}-11-01" for year in years], dtype="datetime64[D]")
    days += list(np.busday_offset(november, 3, "forward", "Thu"))
    return np.array(sorted(days), dtype="datetime64[D]")


def weekday(dates: np.ndarray) -> np.ndarray:
    """Monday is 0."""
    return np.asarray((dates.astype("datetime64[D]").astype(np.int64) + 3) % 7)


FEDERAL = federal_holidays()
CLOSE = {"XNYS": np.timedelta64(16 * 60, "m"), "XBOM": np.timedelta64(15 * 60 + 30, "m")}

Printed = Callable[[np.ndarray], np.ndarray]
"""Reference dates to the times of printing, on the clock of the exchange."""


def at(days_later: int, hour: int, minute: int = 0) -> Printed:
    """Printed on a day after the value's own."""
    clock = np.timedelta64(hour * 60 + minute, "m")
    return lambda dates: (dates + days_later).astype("datetime64[m]") + clock


def on_working_day(
    first: Callable[[np.ndarray], np.ndarray], hour: int, minute: int = 0
) -> Printed:
    """Printed on the first day on or after `first` on which the federal government works."""
    clock = np.timedelta64(hour * 60 + minute, "m")

    def printed(dates: np.ndarray) -> np.ndarray:
        days = np.busday_offset(first(dates), 0, roll="forward", holidays=FEDERAL)
        return days.astype("datetime64[m]") + clock

    return printed


def monday_after(dates: np.ndarray) -> np.ndarray:
    return dates + (7 - weekday(dates))


def wednesday_with_monday(dates: np.ndarray) -> np.ndarray:
    """Wednesdays print the days up to the Monday before."""
    return dates + 2 + (2 - weekday(dates + 2)) % 7


def start_of_next_month(dates: np.ndarray) -> np.ndarray:
    return (dates.astype("datetime64[M]") + 1).astype("datetime64[D]") + 3


AT_CLOSE, EVENING = at(0, 15, 30), at(0, 23, 59)
PRINTED: dict[str, Printed] = {
    **dict.fromkeys(("VIX", "VIXCLS", "INDIAVIX"), AT_CLOSE),
    **dict.fromkeys(("GOLD", "DXY", "USDINR", "WTI_FUTURE", "BRENT_FUTURE", "IRX"), EVENING),
    **dict.fromkeys(("DGS2", "DGS10", "T10Y2Y", "FOREIGN_FLOW", "DOMESTIC_FLOW"), EVENING),
    **dict.fromkeys(("BAMLC0A0CM", "BAMLH0A0HYM2"), on_working_day(lambda d: d + 1, 9)),
    **dict.fromkeys(("DCOILWTICO", "DCOILBRENTEU"), on_working_day(wednesday_with_monday, 13)),
    "DTWEXBGS": on_working_day(monday_after, 16, 15),
    "FEDFUNDS": on_working_day(start_of_next_month, 16, 15),
}
"""What each table of the publishers says; nothing here reads `RELEASES`."""
AT_MOST_LATE = np.timedelta64(12, "D")
"""No value may wait longer than this for the session that reads it, beside FEDFUNDS."""


@pytest.mark.parametrize("calendar", sorted(CLOSE))
@pytest.mark.parametrize("series", sorted(PRINTED))
def test_no_value_is_read_before_it_is_printed(series: str, calendar: str) -> None:
    sessions = sessions_between(calendar, FIRST, LAST, None)
    read = align_series(sessions, DAYS, np.arange(len(DAYS), dtype=float), release_of(series))
    is_known = ~np.isnan(read)
    shown = DAYS[read[is_known].astype(int)]
    now = sessions[is_known].astype("datetime64[m]") + CLOSE[calendar]
    printed = PRINTED[series](shown)
    early = printed > now
    assert not early.any(), (
        f"{series}: {shown[early][0]} is read on {sessions[is_known][early][0]}, printed "
        f"{printed[early][0]}; {early.mean():.0%} of sessions"
    )
    # every weekday is read at some time, and soon
    waits = sessions[is_known] - shown
    longest = np.timedelta64(100, "D") if series == "FEDFUNDS" else AT_MOST_LATE
    assert waits.max() <= longest


def test_every_series_that_anyone_names_has_a_rule_and_a_time_of_printing() -> None:
    named = {name for feature in MACRO_FEATURES.values() for name in feature.series}
    for market in list_choices(DEFAULT_CONFIG_DIR, "market"):
        tables = load_config(market=market).data.named_tables
        named |= {name for table in tables.series for name in table.values} if tables else set()
    for path in (DEFAULT_CONFIG_DIR / "symbols").glob("*_series.csv"):
        with path.open() as file:
            named |= {row["series"] for row in csv.DictReader(file)} - {"index"}
    assert named <= set(RELEASES)
    assert set(PRINTED) == set(RELEASES)
    assert all(len(release.why.split()) > 3 for release in RELEASES.values())


def test_the_week_of_the_dollar_is_known_two_days_after_the_monday_that_prints_it() -> None:
    # the week of 2 March 2015 is printed on Monday the 9th at 16:15, after a holiday on the 10th
    sessions = _days("2015-03-06", "2015-03-09", "2015-03-10", "2015-03-11", "2015-03-12")
    dates = _days("2015-02-27", "2015-03-02", "2015-03-06", "2015-03-08", "2015-03-09")
    found = align_series(sessions, dates, np.arange(5.0), release_of("DTWEXBGS"))
    np.testing.assert_array_equal(found, [0, 0, 0, 3, 3])


def test_revised_series_have_no_rule() -> None:
    assert not [series for series in RELEASES if re.match(REVISED, series)]


def _days(*days: str) -> np.ndarray:
    return np.array(days, dtype="datetime64[D]")


def test_daily_series_are_known_one_session_later() -> None:
    sessions = _days("2010-01-07", "2010-01-08", "2010-01-11")
    dates = _days("2010-01-07", "2010-01-08", "2010-01-09", "2010-01-11")
    found = align_series(sessions, dates, np.array([1.0, 2.0, 3.0, 4.0]), Release("", sessions=1))
    # Monday sees Friday's value: Saturday's is not of the session before
    np.testing.assert_array_equal(found, [np.nan, 1.0, 2.0])


def test_same_day_series_are_known_at_the_close_and_carried_over_holidays() -> None:
    sessions = _days("2010-01-07", "2010-01-08", "2010-01-11")
    values = np.array([20.0, np.nan, 22.0])
    found = align_series(sessions, sessions, values, Release(""))
    np.testing.assert_array_equal(found, [20.0, 20.0, 22.0])


def test_monthly_series_wait_for_their_publication() -> None:
    # 2010-01-01 + 60 days is 2010-03-02
    sessions = _days("2010-03-01", "2010-03-02")
    found = align_series(sessions, _days("2010-01-01"), np.ones(1), Release("", days=60))
    np.testing.assert_array_equal(found, [np.nan, 1.0])


def test_nothing_is_known_of_an_empty_series() -> None:
    found = align_series(_days("2010-01-07"), _days(), np.empty(0), Release(""))
    assert np.isnan(found).all()


@pytest.mark.parametrize("series", ["STLFSI4", "GDP", "GDPC1", "M2SL", "INDPRO", "SOMETHING_NEW"])
def test_revised_and_unknown_series_are_refused(series: str) -> None:
    with pytest.raises(FeatureError, match=series):
        release_of(series)
