"""Candles with answers known by hand, and networks small enough for tests."""

from typing import Any

import numpy as np

from hrl_sarp.config.encoder_schema import EncodersConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars

HOUR = np.timedelta64(3600, "s")
SMALL = {"window_length": 16, "width": 16, "heads": 2, "layers": 1, "feedforward": 32, "head": 8}


def small_config(seed: int = 0, dropout: float = 0.0, **task: Any) -> RunConfig:
    """Return the default configuration with a small network and these values of the task."""
    config = load_config(overrides={"seed": seed})
    encoders: EncodersConfig = config.encoders
    sizes = encoders.transformer.model_copy(update={**SMALL, "dropout": dropout})
    few = {"min_windows": 40, "min_calls": 10, **task}
    small = encoders.model_copy(
        update={
            "transformer": sizes,
            "price_action": encoders.price_action.model_copy(update=few),
        }
    )
    return config.model_copy(update={"encoders": small})


def bars_of(
    close: np.ndarray, volume: np.ndarray | None = None, rng: np.random.Generator | None = None
) -> Bars:
    """Make hourly bars of one instrument around these closes, each opening at the close before."""
    rng = rng or np.random.default_rng(0)
    before = np.concatenate([close[:1], close[:-1]])
    wick = 0.001 * close * rng.random((2, len(close)))
    return Bars(
        timestamps=np.datetime64("2020-01-01", "us") + HOUR * np.arange(len(close)),
        instrument=np.zeros(len(close), dtype=np.int32),
        instruments=("ONE",),
        open=before,
        high=np.maximum(close, before) + wick[0],
        low=np.minimum(close, before) - wick[1],
        close=close,
        volume=volume,
        content_hash="made",
    )


def noise_bars(n_bars: int, seed: int = 0) -> Bars:
    """Draw a random walk with random volume: nothing tells what comes next."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(0.005 * rng.normal(size=n_bars)))
    return bars_of(close, rng.lognormal(size=n_bars), rng)


def planted_bars(n_bars: int, seed: int = 0) -> Bars:
    """Draw blocks of 40 bars; in some of them the price climbs, in the others it slides."""
    rng = np.random.default_rng(seed)
    climbs = np.repeat(rng.random(-(-n_bars // 40)) < 0.3, 40)[:n_bars]
    log_return = np.where(climbs, 0.006, -0.002) + 0.002 * rng.normal(size=n_bars)
    close = 100.0 * np.exp(np.cumsum(log_return))
    return bars_of(close, rng.lognormal(size=n_bars), rng)
