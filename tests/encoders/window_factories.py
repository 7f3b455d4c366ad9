"""Bars' times and small windows for the tests of windows."""

from datetime import date
from typing import Any

import numpy as np

from hrl_sarp.config.encoder_schema import WindowedConfig
from hrl_sarp.config.loading import load_config

DAY_1, DAY_2, DAY_3 = date(2018, 1, 1), date(2018, 1, 2), date(2018, 1, 3)


def small_windows(**changes: Any) -> WindowedConfig:
    """Windows of 5 bars, every 2, for one-minute bars of three days, one a split."""
    values = load_config().windowed.model_dump()
    values |= {"window_length": 5, "stride": 2, "warmup_bars": 1, "max_missing_bars": 3}
    values["splits"] = {"train_end": DAY_1, "val_end": DAY_2, "test_end": DAY_3}
    values["gates"]["min_windows"] = 1
    for name, value in changes.items():
        section = values["gates"] if name in values["gates"] else values
        section[name] = value
    return WindowedConfig.model_validate(values)


def minutes_of(day: date, n_bars: int, first: int = 600) -> np.ndarray:
    """Times of one-minute bars from minute `first` of the day on."""
    start = np.datetime64(day, "us")
    return start + np.arange(first, first + n_bars) * np.timedelta64(1, "m")


def three_days(n_bars: int) -> np.ndarray:
    """A session of `n_bars` in each split; nights are borders."""
    return np.concatenate([minutes_of(day, n_bars) for day in (DAY_1, DAY_2, DAY_3)])
