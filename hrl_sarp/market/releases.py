"""When published series become known, and how they are aligned with sessions.

The date of a value is the day or the start of the period that it describes, not the day on which it
was printed. `RELEASES` says for every series from which session on a decision may read it.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.errors import FeatureError

WEDNESDAY, FRIDAY = 2, 4
_THURSDAY = 3
"""Weekday of day 0 of datetime64, 1970-01-01; Monday is 0."""


@dataclass(frozen=True)
class Release:
    """From which session on a value counts as known. A later rule adds to an earlier one."""

    why: str
    """What is known about the time of printing, and where from."""
    weekday: int | None = None
    """The value waits for this day of the week after its own; Monday is 0."""
    days: int = 0
    """The value waits for so many calendar days."""
    sessions: int = 0
    """The value waits for so many sessions of the market."""

    def earliest(self, dates: Shaped[np.ndarray, " N"]) -> Shaped[np.ndarray, " N"]:
        """Return the day from which each value counts, before the wait of whole sessions."""
        day = dates.astype("datetime64[D]")
        if self.weekday is not None:
            monday = day - (day.astype(np.int64) + _THURSDAY) % 7
            day = monday + np.timedelta64(7 + self.weekday, "D")
        return day + np.timedelta64(self.days, "D")


_EXCHANGE_CLOSE = "The exchange prints it with the close of its own session."
_FUTURE = "Settled before stocks close, printed in the evening; not checked, so a session later."
_CURRENCY = "The daily bar ends after the close of stocks; not checked, so a session later."
_TREASURY = "The Treasury prices at 15:30 and prints in the evening; FRED and H.15 copy that later."
_FLOW = "The exchanges print it in the evening; later corrections were not checked."
_SPREAD = "FRED prints it on its next working day; it rests on days on which stocks trade."
_SPOT = (
    "The Energy Information Administration prints daily spot prices once a week. The day was not "
    "checked. Wednesday is usual, so that Friday of the week after leaves room for holidays."
)
_DOLLAR = (
    "H.10 of the Federal Reserve holds the days of the week before and is printed on Mondays at "
    "16:15, after a holiday on Tuesdays (federalreserve.gov/releases/h10, About the Release). "
    "Weights are revised once a year, which moves past levels a little: no delay repairs that."
)

RELEASES: dict[str, Release] = {
    "VIX": Release("Cboe prints it at 16:15, before any order for the next open is due."),
    "VIXCLS": Release("The same numbers as VIX, which FRED copies on the next morning."),
    "INDIAVIX": Release(_EXCHANGE_CLOSE),
    "GOLD": Release(_CURRENCY, sessions=1),
    "WTI_FUTURE": Release(_FUTURE, sessions=1),
    "BRENT_FUTURE": Release(_FUTURE, sessions=1),
    "DXY": Release(_CURRENCY, sessions=1),
    "USDINR": Release(_CURRENCY, sessions=1),
    "IRX": Release("Cboe prints it in the afternoon; not checked.", sessions=1),
    "DGS2": Release(_TREASURY, sessions=1),
    "DGS10": Release(_TREASURY, sessions=1),
    "T10Y2Y": Release(_TREASURY, sessions=1),
    "DOMESTIC_FLOW": Release(_FLOW, sessions=1),
    "FOREIGN_FLOW": Release(_FLOW, sessions=1),
    "BAMLC0A0CM": Release(_SPREAD, sessions=2),
    "BAMLH0A0HYM2": Release(_SPREAD, sessions=2),
    "DCOILBRENTEU": Release(_SPOT, weekday=FRIDAY),
    "DCOILWTICO": Release(_SPOT, weekday=FRIDAY),
    "DTWEXBGS": Release(_DOLLAR, weekday=WEDNESDAY),
    "FEDFUNDS": Release("The mean of a month, printed in the first days of the next.", days=60),
}
"""Every known series. Funds (`ETF_...`) are traded, not published: the benchmark reads them."""


def align_series(
    sessions: Shaped[np.ndarray, " T"],
    dates: Shaped[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    release: Release,
) -> Float[np.ndarray, " T"]:
    """Give each session the last observation that was published by its close.

    NaN observations (holidays) are skipped. The result is NaN before the first publication.
    """
    known = ~np.isnan(values)
    dates, values = dates[known], values[known]
    reference = sessions.astype("datetime64[D]")
    if release.sessions:
        reference[release.sessions :] = reference[: -release.sessions].copy()
        reference[: release.sessions] = np.datetime64("0001-01-01")
    last = np.searchsorted(release.earliest(dates), reference, side="right") - 1
    if len(values) == 0:
        return np.full(len(sessions), np.nan)
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def release_of(series: str) -> Release:
    """Return when the values of a series become known.

    Raises:
        FeatureError: if the series is revised after its first print, or its delay is not known.
    """
    if re.match(REVISED, series):
        raise FeatureError(
            f"macro series {series}: its values are rewritten after their first print, so today's "
            "file leaks; expected a file of vintages; take it out of the market profile"
        )
    if series not in RELEASES:
        raise FeatureError(
            f"macro series {series}: its publication delay is not known; add it to RELEASES in "
            "market/releases.py"
        )
    return RELEASES[series]
