"""Volatility and range of the next candles: by a loop, by hand, and what they must not read."""

from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp.data.bars import Bars
from hrl_sarp.price_action.buys.windows import cut_candle_windows
from hrl_sarp.price_action.risk.targets import (
    BASES,
    HAR_BARS,
    RISKS,
    RiskTarget,
    base_rates,
    risk_of,
)
from tests.price_action.buys.candle_factories import HOUR, bars_of, noise_bars, small_config

HORIZON = 4


def with_night(n_bars: int = 300, at: int = 150) -> Bars:
    """Hourly bars with a night before one row."""
    bars = noise_bars(n_bars, seed=3)
    return replace(
        bars, timestamps=bars.timestamps + np.where(np.arange(n_bars) >= at, 9 * HOUR, 0)
    )


def slow_target(bars: Bars, kind: RiskTarget, t: int) -> float:
    ahead = range(t + 1, t + 1 + HORIZON)
    if kind == "volatility":
        squares = [np.log(bars.close[s] / bars.close[s - 1]) ** 2 for s in ahead]
        return float(np.log(np.sqrt(np.mean(squares))))
    return float(np.log(np.log(max(bars.high[list(ahead)]) / min(bars.low[list(ahead)]))))


@pytest.mark.parametrize("kind", RISKS)
def test_target_equals_a_loop_and_is_unknown_across_a_night_and_at_the_end(
    kind: RiskTarget,
) -> None:
    bars = with_night()
    target = risk_of(bars, kind, HORIZON, 0).target
    for t in range(len(bars)):
        known = t + HORIZON < 150 or 150 <= t < len(bars) - HORIZON
        expected = slow_target(bars, kind, t) if known else np.nan
        assert target[t] == pytest.approx(expected, abs=1e-9, nan_ok=True), t


@pytest.mark.parametrize("kind", RISKS)
def test_past_reads_no_later_row_and_no_return_over_night(kind: RiskTarget) -> None:
    bars = with_night()
    past = risk_of(bars, kind, HORIZON, 0).past
    for t in (0, 1, 40, 149, 150, 155, 299):
        for column, n in enumerate(HAR_BARS):
            rows = range(max(0, t + 1 - n * HORIZON), t + 1)
            if kind == "range":
                mean = np.mean([np.log(bars.high[s] / bars.low[s]) for s in rows])
            else:
                moves = [
                    np.log(bars.close[s] / bars.close[s - 1]) for s in rows if s not in (0, 150)
                ]
                mean = np.sqrt(np.mean(np.square(moves))) if moves else np.nan
            assert past[t, column] == pytest.approx(np.log(mean), abs=1e-9, nan_ok=True), t
    cut = 220
    parts = {name: getattr(bars, name)[:cut] for name in ("open", "high", "low", "close", "volume")}
    short = replace(
        bars, timestamps=bars.timestamps[:cut], instrument=bars.instrument[:cut], **parts
    )
    np.testing.assert_allclose(risk_of(short, kind, HORIZON, 0).past, past[:cut], rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
@pytest.mark.parametrize("kind", RISKS)
def test_unit_of_prices_does_not_matter(kind: RiskTarget, factor: float) -> None:
    bars = noise_bars(200)
    prices = {name: factor * getattr(bars, name) for name in ("open", "high", "low", "close")}
    one, two = (risk_of(b, kind, HORIZON, 0) for b in (bars, replace(bars, **prices)))
    np.testing.assert_allclose(one.target, two.target, rtol=1e-7)
    np.testing.assert_allclose(one.past, two.past, rtol=1e-7)


@pytest.mark.parametrize("kind", RISKS)
def test_instruments_do_not_know_each_other(kind: RiskTarget) -> None:
    first, second = noise_bars(120, seed=1), noise_bars(90, seed=2)
    names = ("timestamps", "open", "high", "low", "close", "volume")
    joined = {n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in names}
    both = replace(
        first,
        **joined,
        instrument=np.repeat([0, 1], [120, 90]).astype(np.int32),
        instruments=("A", "B"),
    )
    found = risk_of(both, kind, HORIZON, 0)
    parts = [risk_of(bars, kind, HORIZON, 0) for bars in (first, second)]
    np.testing.assert_allclose(found.target, np.concatenate([p.target for p in parts]), rtol=1e-9)
    np.testing.assert_allclose(found.past, np.concatenate([p.past for p in parts]), rtol=1e-6)


@pytest.mark.parametrize("kind", RISKS)
def test_price_that_does_not_move_has_a_least_risk(kind: RiskTarget) -> None:
    still = np.full(60, 20.0)
    bars = replace(bars_of(still), high=still, low=still)
    target = risk_of(bars, kind, HORIZON, 0).target
    assert np.isfinite(target[: 60 - HORIZON]).all()
    assert set(target[: 60 - HORIZON]) == {np.log(1e-6)}


def clock_bars(n_bars: int) -> Bars:
    """A walk that moves four times as far in the hours 13 to 16 as in others."""
    rng = np.random.default_rng(0)
    hour = np.arange(n_bars) % 24
    size = np.where((hour >= 13) & (hour <= 16), 0.008, 0.002)
    return bars_of(100.0 * np.exp(np.cumsum(size * rng.normal(size=n_bars))), None, rng)


def test_hour_of_the_day_is_found_where_risk_follows_the_clock() -> None:
    bars = clock_bars(2500)
    windows = cut_candle_windows(bars, small_config().encoders)
    risk = risk_of(bars, "volatility", HORIZON, 0)
    found = base_rates(risk, windows, "test")
    truth = risk.target[windows.targets("test")]
    errors = {name: float(((found[name] - truth) ** 2).mean()) for name in BASES}
    assert errors["hour of the day"] < 0.75 * errors["mean"]
    assert errors["HAR and hour"] < 1.02 * errors["hour of the day"]
    train = risk.target[windows.targets("train")]
    assert found["mean"] == pytest.approx(train.mean())
    at_noon = windows.hours("train") == 12
    assert found["hour of the day"][windows.hours("test") == 12] == pytest.approx(
        train[at_noon].mean()
    )
