"""Bars for the tests of features: random walks of many shapes, small made ones, real ones."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars

SHAPES = ("1 trade", "2 trades", "10 trades", "60 trades", "gaps", "points", "coin", "fat", "wicks")
"""How the bars of `walk` come about."""


def relativity_config() -> RelativityConfig:
    return load_config().windowed.feature_config


def make_bars(
    opens: np.ndarray, high: np.ndarray, low: np.ndarray, close: np.ndarray, lengths: list[int]
) -> Bars:
    """One-minute bars of instruments of these lengths."""
    return Bars(
        timestamps=np.datetime64("2018-01-01", "us")
        + np.arange(len(close)) * np.timedelta64(1, "m"),
        instrument=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        instruments=tuple(f"I{i}" for i in range(len(lengths))),
        open=np.asarray(opens, dtype=np.float64),
        high=np.asarray(high, dtype=np.float64),
        low=np.asarray(low, dtype=np.float64),
        close=np.asarray(close, dtype=np.float64),
        volume=None,
        content_hash="made",
    )


def closes(*values: float) -> Bars:
    """Bars without a range: each opens, trades and closes at one price."""
    prices = np.array(values, dtype=np.float64)
    return make_bars(prices, prices, prices, prices, [len(prices)])


def walk(shape: str, n_bars: int, seed: int) -> Bars:
    """A driftless walk; its level of 1e4 is far above its moves."""
    rng = np.random.default_rng(seed)
    trades = {"1 trade": 1, "2 trades": 2, "60 trades": 60, "points": 1, "coin": 1, "wicks": 1}
    size = (n_bars, trades.get(shape, 10))
    steps = rng.standard_t(3, size) if shape == "fat" else rng.normal(size=size)
    if shape == "coin":
        steps = np.sign(steps)
    if shape == "gaps":  # as large as what the bar itself moves
        steps[:, 0] += rng.normal(0, np.sqrt(size[1]), n_bars)
    prices = 1e4 + np.cumsum(steps).reshape(size)
    before = np.append(1e4, prices[:-1, -1])
    opens = prices[:, 0] if shape in ("gaps", "points", "coin") else before
    wick_up, wick_down = rng.exponential(1.0, (2, n_bars)) if shape == "wicks" else (0.0, 0.0)
    high = np.maximum(prices.max(axis=1), opens) + wick_up
    low = np.minimum(prices.min(axis=1), opens) - wick_down
    return make_bars(opens, high, low, prices[:, -1], [n_bars])


def real_bars(data_folder: Path, name: str, first: int, n_bars: int) -> Bars:
    """Some rows of a clean file of one symbol."""
    path = data_folder / name
    if not path.is_file():
        pytest.skip(f"the data folder has no {name}")
    frame = pl.scan_parquet(path).slice(first, n_bars).collect()
    prices = (frame[column].to_numpy() for column in ("open", "high", "low", "close"))
    return make_bars(*prices, lengths=[n_bars])


def part(bars: Bars, rows: slice) -> Bars:
    """Some rows of the bars; of their first instruments."""
    instrument = bars.instrument[rows]
    return make_bars(
        *(prices[rows] for prices in (bars.open, bars.high, bars.low, bars.close)),
        lengths=np.unique(instrument, return_counts=True)[1].tolist(),
    )


def scaled(bars: Bars, factor: float) -> Bars:
    prices = (bars.open, bars.high, bars.low, bars.close)
    lengths = np.bincount(bars.instrument).tolist()
    return make_bars(*(factor * values for values in prices), lengths=lengths)
