"""Sessions of an exchange by its published calendar, as NumPy days."""

from datetime import date

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars.errors import InvalidCalendarName
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import CalendarChanges
from hrl_sarp.errors import DataError

_SESSIONS_A_YEAR_AT_LEAST = 230
"""No exchange calendar has fewer. It bounds the search for the n-th session."""


def sessions_between(
    calendar_name: str, start: date, end: date, changes: CalendarChanges | None = None
) -> Shaped[np.ndarray, " T"]:
    """List the sessions from `start` to `end`, both inclusive, increasing, as datetime64[D].

    Source: the package exchange_calendars; its calendar "24/5" has every weekday.
    """
    try:
        # one extra month, because a calendar must hold at least one session
        padded = pd.Timestamp(end) + pd.Timedelta(days=31)
        calendar = exchange_calendars.get_calendar(
            calendar_name, start=pd.Timestamp(start), end=padded
        )
    except InvalidCalendarName as error:
        raise DataError(
            f"calendar {calendar_name!r} is unknown; expected a name of exchange_calendars such as "
            "XNYS, XBOM or 24/5; change `calendar` in config/markets/"
        ) from error
    except ValueError as error:
        raise DataError(
            f"calendar {calendar_name} does not cover {start} to {end} ({error}); shorten the data"
        ) from error
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
