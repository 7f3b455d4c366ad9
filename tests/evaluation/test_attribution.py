from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import DayRange, Trajectory
from hrl_sarp.envs.rollout import Variant, rollout
from hrl_sarp.evaluation.attribution import (
    CLASSICAL_PRIOR,
    LevelSwaps,
    Likeness,
    attribute,
    holdings,
    level_gains,
    nearest_rule,
)
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.market.tensors import MarketTensors
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, buy_once, steady_market

PARTS = ("sectors", "stocks", "cash", "costs", "residual")


def _attributed(shares: list[float], returns: list[float]) -> tuple[Trajectory, object]:
    """Hold fixed shares of two sectors of two stocks beside 1/N, without costs."""
    market = steady_market(returns, 4, [0, 0, 1, 1])
    even = ScriptedPolicy("1/N", buy_once(0.2, 0.2, 0.2, 0.2))
    free = factories.cost_config(buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
    wide = factories.risk_config(stock_cap=1.0, sector_cap=1.0)
    (found,) = rollout(
        [even, ScriptedPolicy("own", buy_once(*shares))],
        MarketTensors(market, torch.float64, "cpu"),
        [DayRange(0, 2)],
        [Variant(free, wide)],
    )
    return found, market


def test_overweight_of_a_better_sector_is_credited_to_sectors() -> None:
    found = attribute(*_attributed([0.4, 0.4, 0.0, 0.0], [0.01, 0.01, 0.0, 0.0]), "own")
    # one session: 0.8 in a sector that earns 1 % against 0.4: 0.4 x 1 % x 252
    assert found.sectors == pytest.approx(0.4 * 0.01 * 252)
    assert found.stocks == pytest.approx(0, abs=1e-12)
    assert found.cash == pytest.approx(0, abs=1e-12)


def test_better_stocks_inside_the_sectors_are_credited_to_stocks() -> None:
    found = attribute(*_attributed([0.4, 0.0, 0.4, 0.0], [0.01, 0.0, 0.01, 0.0]), "own")
    assert found.stocks == pytest.approx(0.4 * 0.01 * 252)
    assert found.sectors == pytest.approx(0, abs=1e-12)


def test_holding_less_of_the_same_is_credited_to_cash() -> None:
    found = attribute(*_attributed([0.1, 0.1, 0.1, 0.1], [0.01] * 4), "own")
    assert found.cash == pytest.approx(-0.4 * 0.01 * 252)
    assert found.sectors == pytest.approx(0, abs=1e-12)
    assert found.stocks == pytest.approx(0, abs=1e-12)


def test_parts_sum_to_the_excess_and_little_is_left_over(analysis: Analysis) -> None:
    for split in analysis.attributions.values():
        parts = sum(getattr(split, part) for part in PARTS)
        assert parts == pytest.approx(split.total, abs=1e-12)
        assert abs(split.residual) < 0.005
    assert {f.name for f in fields(split)} == {*PARTS, "name", "total"}


def test_excess_is_that_of_the_net_returns(analysis: Analysis, result: object) -> None:
    main = result.main  # type: ignore[attr-defined]  # a BacktestResult
    own, base = main.names.index("own"), main.names.index("1/N")
    expected = (main.net_return[:, own] - main.net_return[:, base]).mean() * 252
    assert analysis.attributions["own"].total == pytest.approx(expected)


def test_level_gains_sum_to_what_both_levels_add(analysis: Analysis) -> None:
    swaps = LevelSwaps("own", macro_only="12-1 momentum", micro_only="ridge", neither="1/N")
    gains = level_gains(analysis.performances, swaps)
    growth = {name: p["growth_excess"].value for name, p in analysis.performances.items()}
    assert gains.macro + gains.micro == pytest.approx(growth["own"])
    apart = (growth["12-1 momentum"] - growth["1/N"]) - (growth["ridge"] - growth["1/N"])
    assert gains.macro - gains.micro == pytest.approx(apart)
    assert np.isfinite(gains.interaction)


def test_nearest_rule_is_the_one_with_the_smallest_share_elsewhere(
    result: BacktestResult, analysis: Analysis
) -> None:
    main = result.main
    found = nearest_rule(main, "own", result.policy_names)
    weights = {
        name: np.column_stack([w, 1 - w.sum(axis=1)])
        for name, w in zip(main.names, main.weights_after.transpose(1, 0, 2), strict=True)
    }
    gaps = {
        name: np.abs(weights["own"] - w).sum(axis=1).mean() / 2
        for name, w in weights.items()
        if name not in ("own", "index", "random policy", "ridge, shuffled")
    }
    assert found.rule == min(gaps, key=gaps.__getitem__) == "1/N"
    assert found.distance == pytest.approx(gaps["1/N"])
    assert analysis.likeness == {"own": found}


def test_row_without_a_trained_agent_is_a_rule_but_not_its_own(result: BacktestResult) -> None:
    named = [CLASSICAL_PRIOR if name == "own" else name for name in result.main.names]
    main = replace(result.main, names=tuple(named))
    assert nearest_rule(main, CLASSICAL_PRIOR, [CLASSICAL_PRIOR]).rule == "1/N"
    twice = (*named, "agent")
    tables = {
        f.name: np.concatenate([getattr(main, f.name), getattr(main, f.name)[:, [-1]]], axis=1)
        for f in fields(Trajectory)
        if f.name not in ("names", "dates")
    }
    found = nearest_rule(replace(main, names=twice, **tables), "agent", [CLASSICAL_PRIOR, "agent"])
    assert named[-1] == CLASSICAL_PRIOR
    assert found == Likeness(CLASSICAL_PRIOR, 0.0)


def test_holdings_of_a_bought_portfolio_are_what_was_bought_and_what_it_earned() -> None:
    found = holdings(*_attributed([0.1, 0.4, 0.0, 0.2], [0.01, -0.02, 0.05, 0.0]), "own")
    # one session from cash: each weight times the return of its day, times 252
    assert found.contributions == pytest.approx(
        {"S0N0": 0.1 * 0.01 * 252, "S1N3": 0.0, "S0N1": -0.4 * 0.02 * 252}
    )
    assert list(found.contributions) == ["S0N0", "S1N3", "S0N1"]
    assert found.largest == ("S0N1", "S1N3", "S0N0")
    assert found.last == pytest.approx({"S0N1": 0.4, "S1N3": 0.2, "S0N0": 0.1})
    assert list(found.trades.values()) == [3]


def test_contributions_sum_to_the_return_before_costs(
    result: BacktestResult, analysis: Analysis
) -> None:
    main, market = result.main, result.market
    for name, found in analysis.holdings.items():
        i = main.names.index(name)
        gross = main.gross_return[:, i].mean() * market.sessions.year
        assert sum(found.contributions.values()) == pytest.approx(gross, abs=0.02), name
        moved = np.abs(
            main.weights_after[:, i] * (1 - main.cost[:, i, None]) - main.weights_before[:, i]
        )
        assert sum(found.trades.values()) == (moved > 1e-4).sum()
        assert sum(found.last.values()) == pytest.approx(main.weights_after[-1, i].sum())
