"""The backtest and the training envs run on one clock: the same agents leave the same ledger."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Goal, Market, StepResult, Trajectory
from hrl_sarp.envs.levels import MacroLevel, MicroLevel
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, ProportionalGoal
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.training.selection.validation import Validation
from tests import tiny_runs

LEDGER = ("net_return", "gross_return", "cost", "turnover", "delisted_value")
HOLDINGS = ("weights_before", "weights_after")
NEAR = {"rtol": 0, "atol": 1e-12}
SPAN = DayRange(66, 146)
"""Starts in the middle of a week."""

EQUAL = {"rel": 1e-12, "abs": 1e-12}
CASES = {"gate off": (0, False), "gate on": (1, True)}
"""Seed of the market, and whether the drawdown gate is on."""


class Simplex:
    """A macro policy whose regime probabilities sum to 1 in float64, too."""

    def __init__(self, policy: MacroPolicy) -> None:
        self.policy = policy

    def goal(self, observation: Any) -> Goal:
        asked = self.policy.goal(observation)
        regime = asked.regime_probabilities.double()
        return Goal(asked.sector_weights, asked.cash, regime / regime.sum(dim=1, keepdim=True))


def trained_pair(tensors: MarketTensors, config: RunConfig, seed: int) -> tuple[Any, Any]:
    macro = tiny_runs.macro_agent(tensors, config, seed)
    return Simplex(macro), tiny_runs.micro_agent(tensors, config, seed)


def rule_pair(tensors: MarketTensors, config: RunConfig, seed: int) -> tuple[Any, Any]:
    return ProportionalGoal(tensors), FollowGoal(tensors, config.risk)


PAIRS: dict[str, Callable[..., tuple[Any, Any]]] = {"networks": trained_pair, "rules": rule_pair}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Market, RunConfig]:
    """Draw stocks that halt, end, and leave the universe while they are held."""
    seed, gate = request.param
    config = tiny_runs.tiny_config(risk={"drawdown_gate": gate, "gate_drawdown": 0.02})
    return tiny_runs.with_nodes(tiny_runs.tiny_market(seed)), config


def backtested(market: Market, config: RunConfig, pair: tuple[Any, Any]) -> Trajectory:
    return backtest(market, [HierarchicalPolicy("pair", *pair)], SPAN, config)


def recorded(level: MacroLevel | MicroLevel) -> list[StepResult]:
    """Collect every session that the level trades from now on."""
    results: list[StepResult] = []
    trade_day = level.clocks.trade_day

    def record(*orders: Any) -> StepResult:
        results.append(trade_day(*orders))
        return results[-1]

    level.clocks.trade_day = record  # type: ignore[method-assign]
    return results


def start(level: MacroLevel | MicroLevel) -> None:
    level.reset(torch.tensor([SPAN.start]), torch.ones(1, dtype=torch.bool))


@torch.no_grad()
def by_day(market: Market, config: RunConfig, pair: tuple[Any, Any]) -> list[StepResult]:
    macro, micro = pair
    level = MicroLevel(tiny_runs.tensors_of(market), config, 1, macro, horizon=10**6)
    results = recorded(level)
    start(level)
    while len(results) < len(SPAN) - 1:
        level.step(micro.target(level.observe("index")))
    return results


@torch.no_grad()
def by_week(market: Market, config: RunConfig, pair: tuple[Any, Any]) -> list[StepResult]:
    macro, micro = pair
    level = MacroLevel(tiny_runs.tensors_of(market), config, 1, micro, horizon=10**6)
    results = recorded(level)
    start(level)
    while len(results) < len(SPAN) - 1:
        level.step(macro.goal(level.observe("index")).to_vector())
    return results


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("train", [by_day, by_week])
def test_backtest_and_training_leave_the_same_ledger(
    case: tuple[Market, RunConfig], train: Any, pair: Any
) -> None:
    market, config = case
    agents = pair(tiny_runs.tensors_of(market), config, 5)
    ledger = backtested(market, config, agents)
    results = train(market, config, agents)[: len(ledger.dates)]
    for name in (*LEDGER, *HOLDINGS):
        trained = torch.cat([getattr(result, name) for result in results]).numpy()
        np.testing.assert_allclose(trained, getattr(ledger, name)[:, 1], err_msg=name, **NEAR)
    assert np.ptp(ledger.turnover[1:, 1]) > 0.05
    assert ledger.delisted_value[:, 1].any()


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_validation_score_is_the_backtest_of_its_span(
    case: tuple[Market, RunConfig], pair: Any
) -> None:
    market, config = case
    tensors = tiny_runs.tensors_of(market)
    agents = pair(tensors, config, 5)
    score = Validation(tensors, config, SPAN).score(*agents)
    ledger = backtested(market, config, agents)
    years = len(ledger.dates) / 252
    growth = np.log1p(ledger.net_return[:, 1])
    rule = backtested(market, config, rule_pair(tensors, config, 5))
    benchmark = np.log1p(rule.net_return[:, 1])
    assert score.growth_pct == pytest.approx(100 * growth.sum() / years, **EQUAL)
    excess = 100 * (growth - benchmark).sum() / years
    assert score.excess_growth_pct == pytest.approx(excess, **EQUAL)
    turnover = ledger.turnover[:, 1].sum() / years
    assert score.turnover_annual == pytest.approx(turnover, **EQUAL)
