"""The price tables that stock and macro features are computed from; nothing is computed here."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped


@dataclass(frozen=True)
class PricePanel:
    """Every stock of the data set on every session; row t is known at the close of day t.

    NaN wherever a stock has no valid bar. Prices are never levels of an adjusted series: those are
    scaled by later dividends and splits. `log_level` is built forwards from 0 at the first bar.
    """

    dates: Shaped[np.ndarray, " T"]
    symbols: tuple[str, ...]
    sector_of: Int[np.ndarray, " A"]
    n_sectors: int
    present: Bool[np.ndarray, "T A"]
    """A valid bar was printed."""
    log_return: Float[np.ndarray, "T A"]
    """Close to close, dividends included; NaN on the first bar."""
    log_overnight: Float[np.ndarray, "T A"]
    log_intraday: Float[np.ndarray, "T A"]
    log_level: Float[np.ndarray, "T A"]
    """Running sum of log returns; carried over halts, NaN before the first bar."""
    high_to_close: Float[np.ndarray, "T A"]
    """log(high / close), at least 0."""
    low_to_close: Float[np.ndarray, "T A"]
    """log(low / close), at most 0."""
    dollar_volume: Float[np.ndarray, "T A"]
    """Raw close x raw volume."""
    market_return: Float[np.ndarray, " T"]
    """Mean simple return over the stocks with a bar; 0 where there is none."""
    sector_return: Float[np.ndarray, "T S"]
    """The same within each sector; NaN where the sector has no bar."""
    columns: frozenset[str]
    """Which of open, high, low, close, volume and the planted features the data have."""
    planted: dict[str, Float[np.ndarray, "T A"]] = field(default_factory=dict)
    """Features that the data set brings itself (synthetic markets)."""
