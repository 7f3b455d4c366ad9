"""Measures on resampled dates against the measures of the history written out."""

from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp import metrics
from hrl_sarp.studies.walk_forward import measures
from hrl_sarp.studies.walk_forward.measures import POOLED, Draws, Estimate, compare, points
from tests.studies.walk_forward.made_ledgers import CASH, series

RNG = np.random.default_rng(5)
NET = RNG.standard_t(4, size=(260, 2)) * 0.01 + 0.0005


def written_out(name: str, net: np.ndarray) -> float:
    """Compute a measure of one column without counts."""
    year = metrics.SESSIONS_PER_YEAR
    power = {"ce3": -2.0, "ce5": -4.0, "ce10": -9.0}.get(name, 0.0)
    if power:
        return 100 * year * float(np.log(np.mean((1 + net) ** power))) / power
    return {
        # each session costs 0.1 % of wealth: gross is what one minus that would have been
        "cost": lambda: -25200 * float(np.log(0.999)),
        "gross": lambda: 100 * metrics.annual_log_growth((1 + net) / 0.999 - 1, year),
        "sortino": lambda: metrics.sortino_ratio(net - CASH, year),
        "growth": lambda: 100 * metrics.annual_log_growth(net, year),
        "volatility": lambda: 100 * metrics.annual_volatility(net, year),
        "log_volatility": lambda: 100 * float(np.log(np.std(net, ddof=1))),
        "sharpe": lambda: metrics.sharpe_ratio(net - CASH, year),
        "max_drawdown": lambda: 100 * metrics.max_drawdown(net),
        "cvar95": lambda: 100 * metrics.conditional_value_at_risk(net, 0.95),
        "turnover": lambda: 2.52,
    }[name]()


@pytest.mark.parametrize("name", list(measures.MEASURES))
def test_a_measure_is_that_of_the_drawn_history(name: str) -> None:
    one = series(NET)
    draws = Draws.of(one.dates, block_days=20, samples=5, seed=1)
    found = measures.MEASURES[name][1](one, draws)
    assert found.shape == (6, 2)
    for row, drawn in zip(found, draws.indices, strict=True):
        expected = [written_out(name, NET[drawn, seed]) for seed in range(2)]
        assert row == pytest.approx(expected, rel=1e-9)
    assert draws.indices[0].tolist() == list(range(260))  # the estimate: the history itself
    assert points(one, (name,))[name] == pytest.approx(found[0].mean())


def test_a_market_takes_its_own_sessions_from_the_common_calendar() -> None:
    whole = series(NET)
    kept = np.arange(260) % 5 != 0  # the other market is closed on every fifth day
    part = whole.of_sessions(kept)
    draws = Draws.of(whole.dates, block_days=20, samples=4, seed=1)
    for name in ("growth", "volatility", "cvar95", "max_drawdown"):
        found = measures.MEASURES[name][1](part, draws)
        for row, drawn in zip(found, draws.indices, strict=True):
            inside = drawn[kept[drawn]]
            assert row[0] == pytest.approx(written_out(name, NET[inside, 0]), rel=1e-9)


def test_differences_are_paired_and_pooled_over_markets() -> None:
    first, second = series(NET[:, :1]), series(NET[:, 1:])
    draws = Draws.of(first.dates, block_days=20, samples=200, seed=0)
    added = {"a": 0.0002, "b": 0.0006}
    own = {
        "a": series((1 + NET[:, :1]) * np.exp(added["a"]) - 1),
        "b": series((1 + NET[:, 1:]) * np.exp(added["b"]) - 1),
    }
    found = compare(own, {"a": first, "b": second}, ("growth",), draws, confidence=0.9)
    # log growth is larger by 252 x 0.02 % on every drawn date: there is nothing to be unsure of
    for market, expected in (("a", 5.04), ("b", 15.12), (POOLED, 10.08)):
        each = found[market]["growth"]
        assert [each.value, each.low, each.high] == pytest.approx([expected] * 3)
        assert each.above == 1.0


def test_seeds_are_averaged_after_measuring() -> None:
    # two seeds that move against each other: their mean would not move at all
    moving = series(np.stack([NET[:, 0], -NET[:, 0]], axis=1))
    assert points(moving, ("volatility",))["volatility"] == pytest.approx(
        100 * metrics.annual_volatility(NET[:, 0], 252)
    )


def test_an_estimate_reads_row_0_and_the_quantiles_of_the_rest() -> None:
    each = Estimate.of(np.array([7.0, *np.arange(-10.0, 91.0)]), confidence=0.9)
    assert [each.value, each.low, each.high] == pytest.approx([7.0, -5.0, 85.0])
    assert each.above == pytest.approx(90 / 101)


def test_rounding_is_no_move_and_no_difference() -> None:
    flat = np.full((260, 1), 0.0004)
    noise = RNG.uniform(-1e-16, 1e-16, flat.shape)
    # NET in another order of its sums, and cash that only rounding moves
    pairs = [(NET + np.concatenate([noise, -noise], axis=1), NET), (flat + noise, flat)]
    for noisy, true in pairs:
        first, second = series(noisy), series(true)
        draws = Draws.of(first.dates, block_days=20, samples=100, seed=3)
        found = compare({"a": first}, {"a": second}, tuple(measures.MEASURES), draws, 0.9)
        for name, each in found["a"].items():
            assert (each.value, each.low, each.high, each.above) == (0.0,) * 4, name
    assert points(series(flat + noise), ("sharpe", "volatility")) == {
        "sharpe": 0.0,
        "volatility": 0.0,
    }


def test_a_year_has_the_sessions_of_the_markets_calendar() -> None:
    ordinary = series(NET)
    always_open = replace(ordinary, sessions_per_year=365)
    for name, power in (
        ("growth", 1.0), ("gross", 1.0), ("cost", 1.0), ("ce5", 1.0), ("turnover", 1.0),
        ("volatility", 0.5), ("sharpe", 0.5), ("sortino", 0.5), ("max_drawdown", 0.0),
    ):  # fmt: skip
        (first,), (second,) = (points(each, (name,)).values() for each in (ordinary, always_open))
        assert second == pytest.approx(first * (365 / 252) ** power)
