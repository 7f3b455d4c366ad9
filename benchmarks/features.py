"""Seconds to compute and standardise all 22 stock features of 500 stocks over ten years.

Run: `python -m benchmarks.features`. Writes `logs/benchmarks/features.json`.
"""

import numpy as np

from benchmarks import cases, timing
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.stock import compute_stock_features

N_DAYS, N_STOCKS, N_SECTORS, REPEATS = 2520, 500, 11, 3
TARGET_SECONDS = 0.5


def panel(n_days: int = N_DAYS, n_stocks: int = N_STOCKS) -> PricePanel:
    """Draw prices whose every feature can be computed; 2 % of the bars are missing."""
    rng = np.random.default_rng(0)
    shape = (n_days, n_stocks)
    present = rng.random(shape) > 0.02
    overnight, intraday = np.where(present, np.expm1(rng.normal(0, 0.01, (2, *shape))), 0.0)
    return PricePanel(
        dates=np.datetime64("2001-01-01") + np.arange(n_days),
        symbols=tuple(f"S{i}" for i in range(n_stocks)),
        sector_of=np.arange(n_stocks) % N_SECTORS,
        n_sectors=N_SECTORS,
        overnight_return=overnight,
        intraday_return=intraday,
        printed=present,
        tradable=present,
        listed=np.ones(shape, dtype=bool),
        high_to_close=np.where(present, rng.exponential(0.005, shape), np.nan),
        low_to_close=np.where(present, -rng.exponential(0.005, shape), np.nan),
        dollar_volume=np.where(present, rng.lognormal(16, 1, shape), np.nan),
        columns=frozenset({"open", "high", "low", "close", "volume"}),
    )


def main() -> None:
    """Measure and print."""
    config, prices = cases.configuration(), panel()
    names, clip = config.market_profile.stock_features, config.data.feature_clip
    rates = timing.alternate(
        {"all features": (lambda: compute_stock_features(prices, names, clip), 1)}, REPEATS
    )
    seconds = rates["all features"].seconds_spent()
    timing.publish("features", rates, "tables", seconds=seconds, target_seconds=TARGET_SECONDS)


if __name__ == "__main__":
    main()
