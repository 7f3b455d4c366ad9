"""The objective `risk`: what is paid for exposure, and what variance and costs take."""

from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal, Market
from hrl_sarp.envs.levels import LevelStep, MacroLevel, MicroLevel
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal
from hrl_sarp.envs.rewards import micro_reward
from hrl_sarp.market.tensors import MarketTensors
from tests import factories, tiny_runs

GAMMA, SHARE = 5.0, 0.98


def risk_run(seed: int = 0, **costs: Any) -> tuple[Market, MarketTensors, RunConfig]:
    market = factories.with_risk(tiny_runs.tiny_market(seed, n_days=120), seed)
    config = tiny_runs.tiny_config(objective={"kind": "risk"})
    if costs:
        profile = config.market_profile.model_copy(update={"costs": factories.cost_config(**costs)})
        config = config.model_copy(update={"market_profile": profile})
    return market, tiny_runs.tensors_of(market), config


def macro_week(seed: int, cash: float) -> tuple[MarketTensors, MacroLevel, int, LevelStep]:
    _, tensors, config = risk_run(seed)
    level = MacroLevel(tensors, config, 1, FollowGoal(tensors, config.risk), 52)
    day = int(torch.nonzero(tensors.week_end)[8])
    level.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
    goal = ClassicalGoal(tensors).goal({"day": torch.tensor([[day]])})
    asked = Goal(goal.sector_weights, torch.tensor([cash]), goal.regime_probabilities)
    return tensors, level, day, level.step(asked.to_vector())


@pytest.mark.parametrize(("seed", "cash"), [(0, 0.0), (1, 0.01), (2, 0.3), (3, 0.9)])
def test_a_week_pays_premium_less_costs_and_squares_of_its_sessions(seed: int, cash: float) -> None:
    tensors, level, day, found = macro_week(seed, cash)
    config, stop = level.config, int(level.clocks.day)
    asked = float(found.goal[0, tensors.n_sectors])
    assert asked == pytest.approx(cash, abs=1e-6)
    invested = min(1 - asked, 1 - config.risk.min_cash)
    # the same week once more, session by session
    again = MacroLevel(tensors, config, 1, FollowGoal(tensors, config.risk), 52)
    again.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
    again.clocks.set_goal(Goal.from_vector(found.goal), torch.ones(1, dtype=torch.bool))
    expected = 0.0
    for row in range(day, stop):
        result = again.clocks.trade_day(again.partner.target(again.clocks.micro_observation()))
        premium = GAMMA * SHARE * float(tensors.normal_variance[row]) * invested / 252
        expected += premium - float(result.cost) - GAMMA / 2 * float(result.net_return) ** 2
    assert float(found.reward) == pytest.approx(100 * expected, abs=1e-12)
    paid = sum(float(found.terms[name]) for name in ("premium", "cost_term", "variance"))
    assert paid == pytest.approx(float(found.reward), abs=1e-12)


def test_the_invested_share_is_the_best_exposure_at_normal_variance() -> None:
    # of e: gamma x share x v x e - gamma / 2 x v x e^2 is largest at e = share
    exposures = np.linspace(0, 1, 101)
    value = GAMMA * SHARE * 0.03 * exposures - GAMMA / 2 * 0.03 * exposures**2
    assert exposures[value.argmax()] == pytest.approx(SHARE)


def free_micro(seed: int) -> tuple[MicroLevel, MarketTensors]:
    _, tensors, config = risk_run(seed, buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
    level = MicroLevel(tensors, config, 1, ClassicalGoal(tensors), 60)
    return level, tensors


@pytest.mark.parametrize("seed", range(4))
def test_following_the_goal_without_costs_is_paid_the_difference_of_two_squares(seed: int) -> None:
    level, tensors = free_micro(seed)
    day = int(torch.nonzero(tensors.week_end)[9])
    level.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
    level.step(FollowGoal(tensors, level.config.risk).target(level.observe("index")))
    decided, goal = int(level.clocks.day), level.clocks.episode.goal.clone()
    found = level.step(FollowGoal(tensors, level.config.risk).target(level.observe("index")))
    sectors = tensors.n_sectors
    exposure = min(1 - float(goal[0, sectors]), 1 - level.config.risk.min_cash)
    wanted = goal[0, :sectors].float().double() @ tensors.prior_return[decided + 1].double()
    squares = float(found.trade.net_return) ** 2 - (exposure * float(wanted)) ** 2
    alignment = float(found.terms["alignment"])
    weight = level.config.micro_agent.reward.alignment_weight
    expected = -100 * GAMMA / 2 * squares - weight * (1 - alignment)
    assert float(found.reward) == pytest.approx(expected, abs=1e-9)


def test_another_goal_is_rewarded_from_what_following_it_lost() -> None:
    level, tensors = free_micro(3)
    day = int(torch.nonzero(tensors.week_end)[9])
    level.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
    found = level.step(FollowGoal(tensors, level.config.risk).target(level.observe("index")))
    stored = found.transition
    assert stored is not None
    rewards = level.config.micro_agent.reward
    desired = found.goal.float().double()
    other = desired.roll(1, dims=1)
    other[:, tensors.n_sectors :] = desired[:, tensors.n_sectors :]
    achieved = torch.cat([stored.achieved, desired[:, tensors.n_sectors :]], dim=1)

    def paid(goal: torch.Tensor) -> float:
        return float(micro_reward(stored.gain, achieved, goal, rewards, stored.followed))

    assert paid(desired) == pytest.approx(float(found.reward), abs=1e-9)
    sectors = tensors.n_sectors
    lost = [float((g[:, :sectors] * stored.followed).sum()) ** 2 for g in (desired, other)]
    apart = [float((stored.achieved - g[:, :sectors]).abs().sum()) / 2 for g in (desired, other)]
    gap = lost[1] - lost[0] - rewards.alignment_weight * (apart[1] - apart[0])
    assert paid(other) - paid(desired) == pytest.approx(gap, abs=1e-9)


def test_calm_stocks_earn_more_than_wild_ones_of_the_same_mean() -> None:
    # two stocks of mean 0: one moves 0.2 % a day, the other 2 %
    signs = np.where(np.arange(80) % 2 == 0, 1.0, -1.0)
    moves = np.stack([0.002 * signs, 0.02 * signs], axis=1)
    market = factories.with_risk(factories.market_with(0 * moves, moves, [0, 0]))
    tensors = tiny_runs.tensors_of(market)
    risk = factories.risk_config(stock_cap=1.0, sector_cap=1.0, min_cash=0.0)
    config = tiny_runs.tiny_config(objective={"kind": "risk"}).model_copy(update={"risk": risk})
    totals = []
    for action in ([0.9, 0.0], [0.0, 0.9]):
        level = MicroLevel(tensors, config, 1, ClassicalGoal(tensors), 60)
        level.reset(torch.tensor([5]), torch.ones(1, dtype=torch.bool))
        steps = [level.step(torch.tensor([action], dtype=torch.float64)) for _ in range(20)]
        totals.append(sum(float(step.terms["gain"]) for step in steps))
    assert totals[0] > totals[1] + 0.5
