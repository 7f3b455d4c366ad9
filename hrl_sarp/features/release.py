"""When a macro observation may be used: its reference date plus the delay of its publication.

A series carries the period it describes, not the day it was printed. Joining by that date would
leak: a monthly figure dated the first is known six weeks later.
"""

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.errors import FeatureError


@dataclass(frozen=True)
class Release:
    """Delay of a series: whole sessions (daily series) or calendar days (monthly series)."""

    sessions: int = 0
    days: int = 0


SAME_DAY = Release()
"""Printed by the exchange at its close."""
NEXT_SESSION = Release(sessions=1)
MONTHLY = Release(days=60)

RELEASES: dict[str, Release] = {
    "VIX": SAME_DAY,
    "VIXCLS": SAME_DAY,
    "INDIAVIX": SAME_DAY,
    "GOLD": NEXT_SESSION,
    "BAMLC0A0CM": NEXT_SESSION,
    "BAMLH0A0HYM2": NEXT_SESSION,
    "DCOILBRENTEU": NEXT_SESSION,
    "DCOILWTICO": NEXT_SESSION,
    "DGS2": NEXT_SESSION,
    "DGS10": NEXT_SESSION,
    "DOMESTIC_FLOW": NEXT_SESSION,  # published in the evening
    "DTWEXBGS": NEXT_SESSION,
    "DXY": NEXT_SESSION,
    "USDINR": NEXT_SESSION,
    "WTI_FUTURE": NEXT_SESSION,
    "BRENT_FUTURE": NEXT_SESSION,
    "IRX": NEXT_SESSION,
    "FOREIGN_FLOW": NEXT_SESSION,
    "T10Y2Y": NEXT_SESSION,
    "CPIAUCSL": MONTHLY,
    "FEDFUNDS": MONTHLY,
    "INDPRO": MONTHLY,
    "UNRATE": MONTHLY,
}
"""Series that may be joined; VIX and FRED's VIXCLS are the same numbers."""


def align_series(
    sessions: Shaped[np.ndarray, " T"],
    dates: Shaped[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    release: Release,
) -> Float[np.ndarray, " T"]:
    """Give each session the last observation that was published by its close.

    Args:
        sessions: datetime64[D], increasing.
        dates: reference dates of the observations, increasing.
        values: the observations; NaN ones (holidays) are passed over.
        release: publication delay; values are carried forward after it, never before.

    Returns:
        NaN before the first publication.
    """
    known = ~np.isnan(values)
    dates, values = dates[known], values[known]
    reference = sessions - np.timedelta64(release.days, "D")
    if release.sessions:
        reference = reference.copy()
        reference[release.sessions :] = reference[: -release.sessions]
        reference[: release.sessions] = np.datetime64("0001-01-01")
    last = np.searchsorted(dates, reference, side="right") - 1
    if len(values) == 0:
        return np.full(len(sessions), np.nan)
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def release_of(series: str) -> Release:
    """Return the delay of a series.

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
            f"macro series {series}: its publication delay is not known; add it to "
            "features/release.py"
        )
    return RELEASES[series]
