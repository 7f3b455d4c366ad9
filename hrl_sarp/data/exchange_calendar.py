"""Sessions of an exchange by its published calendar, as NumPy days."""

import textwrap
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars.errors import InvalidCalendarName
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import CalendarChanges
from hrl_sarp.errors import DataError

_SESSIONS_A_YEAR_AT_LEAST = 230
"""No exchange calendar has fewer. It bounds the search for the n-th session."""
_DECADE = 10
_ANY_DAY = date(2020, 1, 2)
_REASON = 160
"""Letters of a message of the library that a refusal repeats."""
_SLACK_MINUTES = 30
"""A bar may be dated shortly after the close that it ends with."""


def sessions_between(
    calendar_name: str, start: date, end: date, changes: CalendarChanges | None = None
) -> Shaped[np.ndarray, " T"]:
    """List the sessions from `start` to `end`, both inclusive, increasing, as datetime64[D].

    Source: the package exchange_calendars; its calendar "24/5" has every weekday.
    """
    # one extra month, because a calendar must hold at least one session
    calendar = _decades(calendar_name, start, (pd.Timestamp(end) + pd.Timedelta(days=31)).date())
    days = calendar.sessions.to_numpy().astype("datetime64[D]")
    if changes is not None:
        days = np.setdiff1d(days, np.array(changes.removed, dtype="datetime64[D]"))
        days = np.union1d(days, np.array(changes.added, dtype="datetime64[D]"))
    return days[(days >= np.datetime64(start)) & (days <= np.datetime64(end))]


def first_sessions(calendar_name: str, start: date, n_days: int) -> Shaped[np.ndarray, " T"]:
    """List the first `n_days` sessions from `start` on, increasing, as datetime64[D]."""
    years = n_days // _SESSIONS_A_YEAR_AT_LEAST + 1
    end = pd.Timestamp(start) + pd.DateOffset(years=years)
    return sessions_between(calendar_name, start, end.date())[:n_days]


def closed_sessions(
    calendar_name: str, after: date, now: datetime, changes: CalendarChanges | None = None
) -> Shaped[np.ndarray, " T"]:
    """List the sessions after a day whose close has passed; a half day has its early one.

    Args:
        calendar_name: A name of exchange_calendars.
        after: The first day that counts is the next one.
        now: With its zone.
        changes: Added sessions count as closed when their day is over in UTC, because no calendar
            has their hours.

    Returns:
        Days as datetime64[D], increasing.

    Raises:
        DataError: if the calendar is unknown or does not cover the days.

    Examples:
        >>> evening = datetime(2024, 7, 3, 18, 0, tzinfo=UTC)  # the day before a holiday
        >>> closed_sessions("XNYS", date(2024, 7, 1), evening).astype(str).tolist()
        ['2024-07-02', '2024-07-03']
    """
    moment = np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us")
    first, last = after + timedelta(days=1), now.astimezone(UTC).date() + timedelta(days=1)
    if first > last:
        return np.array([], dtype="datetime64[D]")
    calendar = _calendar(calendar_name, first, last + timedelta(days=31))
    closes = pd.DatetimeIndex(calendar.closes).tz_convert(None).to_numpy()
    sessions = calendar.sessions.to_numpy().astype("datetime64[D]")
    closed = sessions[closes.astype("datetime64[us]") <= moment]
    days = sessions_between(calendar_name, first, last, changes)
    is_added = ~np.isin(days, sessions) & (days < moment.astype("datetime64[D]"))
    return days[np.isin(days, closed) | is_added]


def session_days(
    times: Shaped[np.ndarray, " N"], calendar_name: str
) -> tuple[Shaped[np.ndarray, " N"], Shaped[np.ndarray, " N"], str]:
    """Tell the exchange's day of each time.

    Where all times are midnights of the exchange's own zone, their date there is the day. Else the
    day is that of the session that contains the time, with half an hour of slack after the usual
    close.

    Args:
        times: UTC times as datetime64; NaT where none is known.
        calendar_name: A name of exchange_calendars.

    Returns:
        The days as datetime64[D] (NaT where unknown), which times lie outside every session, and
        the zone of the exchange.

    Raises:
        DataError: if the calendar is unknown or does not cover the times.
    """
    utc = pd.DatetimeIndex(times.astype("datetime64[us]")).tz_localize("UTC")
    known = utc[utc.notna()]
    if len(known) == 0:
        nothing = np.full(len(times), np.datetime64("NaT", "D"))
        return nothing, np.zeros(len(times), dtype=bool), ""
    margin = pd.Timedelta(days=5)
    first, last = (known.min() - margin).date(), (known.max() + margin).date()
    calendar = _decades(calendar_name, first, last)
    zone = str(calendar.tz)
    local = utc.tz_convert(zone)
    if (known.tz_convert(zone) == known.tz_convert(zone).normalize()).all():
        return local.tz_localize(None).to_numpy().astype("datetime64[D]"), utc.isna(), zone
    near = calendar.sessions.tz_localize(None)
    near = (near >= pd.Timestamp(first)) & (near <= pd.Timestamp(last))
    opens, closes = (
        pd.DatetimeIndex(bounds[near]).tz_convert(None).to_numpy().astype("datetime64[us]")
        for bounds in (calendar.opens, calendar.closes)
    )
    # many sources date the bar of a half day by the usual close
    usual = np.timedelta64(int(np.median((closes - opens).astype(np.int64))), "us")
    closes = np.maximum(closes, opens + usual)
    row = np.searchsorted(opens, times.astype("datetime64[us]"), side="right") - 1
    slack = np.timedelta64(_SLACK_MINUTES, "m")
    is_inside = (row >= 0) & (times.astype("datetime64[us]") <= closes[np.maximum(row, 0)] + slack)
    days = calendar.sessions[near].to_numpy().astype("datetime64[D]")[np.maximum(row, 0)]
    return np.where(is_inside, days, np.datetime64("NaT", "D")), ~is_inside, zone


def local_days(times: Shaped[np.ndarray, " N"], calendar_name: str) -> Shaped[np.ndarray, " N"]:
    """Return the day that the clock of an exchange shows at each time.

    Args:
        times: UTC times as datetime64; none is NaT.
        calendar_name: A name of exchange_calendars.

    Returns:
        The days as datetime64[D].

    Raises:
        DataError: if the calendar is unknown.

    Examples:
        >>> evening = np.array(["2020-02-04T02:30"], "datetime64[us]")
        >>> local_days(evening, "XNYS").astype(str).tolist()
        ['2020-02-03']
    """
    utc = pd.DatetimeIndex(times.astype("datetime64[us]")).tz_localize("UTC")
    zone = _decades(calendar_name, _ANY_DAY, _ANY_DAY).tz
    return utc.tz_convert(zone).tz_localize(None).to_numpy().astype("datetime64[D]")


def _decades(name: str, first: date, last: date) -> Any:
    """Return a calendar of whole decades around the days, if the package knows them.

    To make a calendar takes the same 0.2 s for one year as for forty. Data that grow by a day, and
    spans of one market, share the calendar of their decades.
    """
    begin, end = (day.year - day.year % _DECADE for day in (first, last))
    try:
        return _calendar(name, date(begin, 1, 1), date(end + _DECADE - 1, 12, 31))
    except DataError:
        return _calendar(name, first, last)


@lru_cache(maxsize=16)
def _calendar(name: str, first: date, last: date) -> Any:
    try:
        return exchange_calendars.get_calendar(name, start=first, end=last)
    except InvalidCalendarName as error:
        raise DataError(
            f"calendar {name!r} is unknown; expected a name of exchange_calendars such as "
            "XNYS, XBOM or 24/5; change `calendar` in config/markets/"
        ) from error
    except ValueError as error:
        reason = textwrap.shorten(str(error), _REASON, placeholder=" ...")  # it may list all days
        raise DataError(
            f"calendar {name} does not cover {first} to {last} ({reason}); shorten the data"
        ) from error
