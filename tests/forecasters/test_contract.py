"""Every series that cannot be forecast is refused by name and row."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import LEVELS, History, require_histories


def _history(n_rows: int = 30, steps: int = 3) -> History:
    days = np.datetime64("2024-01-01") + np.arange(n_rows + steps)
    bars = np.abs(np.random.default_rng(1).normal(10.0, 1.0, (n_rows, 6)))
    return History("ABC", days[:n_rows], bars[:, 3], days[n_rows:], bars)


def _with_value(history: History, row: int, value: float) -> History:
    target = history.target.copy()
    target[row] = value
    return replace(history, target=target, bars=None)


def _with_bar(history: History, row: int, value: float) -> History:
    bars = np.array(history.bars)
    bars[row, 4] = value
    return replace(history, bars=bars)


def _with_times(history: History, order: Callable[[np.ndarray], np.ndarray]) -> History:
    return replace(history, timestamps=order(history.timestamps))


BAD = {
    "short": (lambda h: h.last(5), "expected at least 10 rows"),
    "nan": (lambda h: _with_value(h, 7, np.nan), r"row 7 \(2024-01-08\)"),
    "infinite": (lambda h: _with_value(h, 0, np.inf), "row 0"),
    "nan volume": (lambda h: _with_bar(h, 29, np.nan), "row 29"),
    "backwards": (lambda h: _with_times(h, lambda t: t[::-1]), "row 1: expected a time after"),
    "twice": (lambda h: _with_times(h, lambda t: np.repeat(t, 2)[: len(t)]), "row 1"),
    "no steps": (lambda h: replace(h, future=h.future[:0]), "at least 1"),
    "future begins too early": (lambda h: replace(h, future=h.timestamps[-3:]), "row 30"),
    "other length": (lambda h: _with_times(h, lambda t: t[1:]), "30 values at 29 times"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_series_is_refused_by_name_and_row(case: str) -> None:
    change, message = BAD[case]
    with pytest.raises(ForecastError, match=message) as refused:
        require_histories([_history(), change(_history())], 10, LEVELS)
    assert "ABC" in str(refused.value)
    require_histories([_history()], 10, LEVELS)


@pytest.mark.parametrize("levels", [(), (0.0, 0.5), (0.5, 1.0), (0.5, 0.1), (0.5, 0.5)])
def test_levels_must_ascend_inside_zero_and_one(levels: tuple[float, ...]) -> None:
    with pytest.raises(ForecastError, match="quantile levels"):
        require_histories([_history()], 10, levels)
