"""The graphs decide as the package does, whatever the day, the portfolio and the settings."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.daily.export.decisions import (
    DailyDecision,
    WeeklyDecision,
    daily_arrays,
    macro_agents,
    weekly_arrays,
)
from hrl_sarp.daily.export.graphs import Session, to_onnx
from hrl_sarp.daily.export.write import TOLERANCE, expected_decision
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MixedGoal,
    MixedTarget,
    Observation,
    ProportionalGoal,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.market.tensors import MarketTensors
from tests import factories, tiny_runs

N_PORTFOLIOS = 25
BINDING: dict[str, Any] = {
    "risk": factories.risk_config(
        max_positions=5, turnover_cap=0.3, drawdown_gate=True
    ).model_dump(),
    "micro_agent": {"network": {"trade_speed": 0.4}},
}
CASES: dict[str, tuple[dict[str, Any], float, float]] = {
    "two seeds, certified": ({}, 0.7, 0.6),
    "all limits, slow": (BINDING, 1.0, 1.0),
    "growth, free decode": (
        {"objective": {"kind": "growth"}, "micro_agent": {"network": {"decode": "free"}}},
        1.0,
        1.0,
    ),
    "nothing granted": ({}, 0.0, 0.0),
}
"""Name -> changed values, and the shares that are granted of both agents."""


class Case:
    """A pair on a market, with its graphs."""

    def __init__(self, values: dict[str, Any], weekly: float, daily: float) -> None:
        self.config: RunConfig = tiny_runs.tiny_config(**values)
        market = tiny_runs.tiny_market(1)
        if self.config.objective.kind == "risk":
            market = factories.with_risk(market)
        market = tiny_runs.with_nodes(market)
        tables = [market.sector_embeddings, np.flip(market.sector_embeddings, axis=2).copy()]
        seeds = [replace(market, sector_embeddings=table) for table in tables]
        reads = [MarketTensors(seen, torch.float32, "cpu") for seen in seeds]
        self.tensors = MarketTensors(market, torch.float64, "cpu")
        agents = [tiny_runs.macro_agent(seen, self.config, seed) for seed, seen in enumerate(reads)]
        days = [tiny_runs.micro_agent(reads[0], self.config, seed) for seed in (2, 3)]
        rules = ClassicalGoal(reads[0]), FollowGoal(reads[0], self.config.risk)
        self.pair = HierarchicalPolicy(
            "mixed",
            MixedGoal((rules[0], MixedGoal(agents)), (1 - weekly, weekly)),
            MixedTarget((rules[1], MixedTarget(days)), (1 - daily, daily)),
        )
        self.modules = {
            "weekly": WeeklyDecision(
                self.pair.macro, self.config.risk, self.tensors.slots_per_sector
            ),
            "daily": DailyDecision(self.pair.micro, MicroSettings(reads[0], self.config)),
        }
        clocks = self.portfolio(np.random.default_rng(0))
        seen = {
            "weekly": weekly_arrays(self.pair, clocks),
            "daily": daily_arrays(self.pair, clocks),
        }
        graphs = {name: to_onnx(module, seen[name]) for name, module in self.modules.items()}
        self.sessions = {name: Session(content) for name, content in graphs.items()}

    def portfolio(self, rng: np.random.Generator) -> TwoClocks:
        """Draw a day, holdings in all stocks that are listed, a goal and an account's past."""
        tensors, config = self.tensors, self.config
        clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs=1)
        day = int(rng.integers(20, tensors.market.n_days))
        held = rng.dirichlet(np.full(tensors.n_assets, 0.5)) * tensors.market.listed[day]
        weights = torch.as_tensor(held * rng.uniform(0, 1))[None]
        clocks.start_with(torch.tensor([day]), weights)
        state, episode = clocks.simulator.state, clocks.episode
        gate = torch.tensor([int(rng.integers(0, 3)) * int(config.risk.drawdown_gate)])
        clocks.simulator.state = replace(state, gate_days=gate)
        goal = self.pair.macro.goal(clocks.macro_observation())
        past = torch.as_tensor(rng.uniform(0, 0.2, 1))
        clocks.episode = replace(episode, active_peak=past)
        clocks.set_goal(goal, torch.ones(1, dtype=torch.bool))
        return clocks


@cache
def made(name: str) -> Case:
    return Case(*CASES[name])


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


def test_both_decisions_are_those_of_the_package_for_any_portfolio(case: Case) -> None:
    rng, seen = np.random.default_rng(7), []
    for _ in range(N_PORTFOLIOS):
        clocks = case.portfolio(rng)
        goal = case.pair.macro.goal(clocks.macro_observation())
        asked = case.pair.micro.target(clocks.micro_observation())
        expected = expected_decision(clocks, goal, asked)
        given = {
            "weekly": weekly_arrays(case.pair, clocks),
            "daily": daily_arrays(case.pair, clocks),
        }
        for name, session in case.sessions.items():
            found = session.run({key: value.numpy() for key, value in given[name].items()})
            for output, array in found.items():
                np.testing.assert_allclose(array, expected[output], rtol=0, atol=TOLERANCE)
        seen.append(given["daily"])
    # what the formulas have to handle does occur: halts, with a slot and without, and leavers
    assert any(((one["held"] > 0) & ~one["tradable"]).any() for one in seen)
    assert any(one["halted_elsewhere"].any() for one in seen)
    assert any(one["held_elsewhere"].any() for one in seen)


def test_orders_of_all_stocks_follow_from_the_outputs(case: Case) -> None:
    # what the simulator trades to, stock by stock, put together as the description says
    rng, tensors = np.random.default_rng(11), case.tensors
    for _ in range(N_PORTFOLIOS):
        clocks = case.portfolio(rng)
        arrays = {k: v.numpy() for k, v in daily_arrays(case.pair, clocks).items()}
        found = case.sessions["daily"].run(arrays)
        day, held = clocks.day, clocks.simulator.state.weights
        target = clocks.targets(case.pair.micro.target(clocks.micro_observation()))
        away = held - tensors.to_assets(tensors.to_slots(held, day), day)
        halted = tensors.halted[day]
        share = found["kept_elsewhere"].item() / max(arrays["held_elsewhere"].item(), 1e-12)
        built = tensors.to_assets(torch.as_tensor(found["weights"]).double(), day)
        built = built + away * torch.where(halted > 0, 1.0, share)
        torch.testing.assert_close(built, target, rtol=0, atol=TOLERANCE)


def test_learned_agents_read_what_rules_do_not(case: Case) -> None:
    learns = bool(macro_agents(case.pair.macro))
    assert ("sectors" in case.sessions["weekly"].inputs) == learns
    assert ("features" in case.sessions["daily"].inputs) == learns


def test_each_network_reads_the_row_of_its_own_seed() -> None:
    case = made("two seeds, certified")
    arrays = {
        key: value.numpy()
        for key, value in weekly_arrays(case.pair, case.portfolio(np.random.default_rng(1))).items()
    }
    first = case.sessions["weekly"].run(arrays)["goal"]
    swapped = case.sessions["weekly"].run({**arrays, "sectors": arrays["sectors"][::-1].copy()})
    assert np.abs(first - swapped["goal"]).max() > 100 * TOLERANCE


def test_a_number_that_is_none_stays_visible(case: Case) -> None:
    clocks = case.portfolio(np.random.default_rng(3))
    arrays = {key: value.numpy().copy() for key, value in daily_arrays(case.pair, clocks).items()}
    arrays["held"][0, np.flatnonzero(arrays["tradable"][0])[0]] = np.nan
    arrays["scalars"][:] = np.nan
    arrays["goal"][:] = np.nan
    assert np.isnan(case.sessions["daily"].run(arrays)["weights"]).any()


class Evenly:
    """A daily policy of somebody's own."""

    def target(self, observation: Observation) -> torch.Tensor:
        return torch.full_like(observation["portfolio"], 0.01)


def test_a_policy_that_reads_more_than_the_inputs_is_refused() -> None:
    config = tiny_runs.tiny_config()
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    with pytest.raises(HrlSarpError, match=r"cannot export ProportionalGoal.*--pair"):
        WeeklyDecision(ProportionalGoal(tensors), config.risk, tensors.slots_per_sector)
    with pytest.raises(HrlSarpError, match=r"cannot export Evenly.*--pair"):
        DailyDecision(Evenly(), MicroSettings(tensors, config))


def test_the_example_goal_is_one_that_the_sectors_can_hold(case: Case) -> None:
    clocks = case.portfolio(np.random.default_rng(5))
    arrays = {key: value.numpy() for key, value in weekly_arrays(case.pair, clocks).items()}
    goal = Goal.from_vector(torch.as_tensor(case.sessions["weekly"].run(arrays)["goal"]))
    assert float(goal.sector_weights.max()) <= case.config.risk.sector_cap + TOLERANCE
