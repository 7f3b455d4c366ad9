"""How many sessions a calendar has in a week and in a year."""

from datetime import date
from functools import lru_cache

import numpy as np

from hrl_sarp.config.market_schema import MarketProfile
from hrl_sarp.contracts import SessionCounts
from hrl_sarp.data.exchange_calendar import sessions_between

_FIRST, _LAST = date(2010, 1, 1), date(2019, 12, 31)
"""Ten whole years that every calendar covers: their mean does not move with the data."""


def session_counts(profile: MarketProfile) -> SessionCounts:
    """Count the sessions of the market's calendar: a full week, and a mean year.

    The year is that of the profile if it names one, because some markets count by convention.

    Raises:
        DataError: if the calendar is unknown.
    """
    week, year = _counts(profile.calendar)
    return SessionCounts(week, profile.sessions_per_year or year)


@lru_cache(maxsize=16)
def _counts(calendar: str) -> tuple[int, int]:
    days = sessions_between(calendar, _FIRST, _LAST)
    weeks = np.bincount((days.astype(np.int64) + 3) // 7 - (days[0].astype(np.int64) + 3) // 7)
    return int(weeks.max()), round(len(days) / (_LAST.year - _FIRST.year + 1))
