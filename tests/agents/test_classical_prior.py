"""Untrained agents under the objective `risk` hold the classical portfolio of the risk tables."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.agents.ppo.networks import SMALLEST_PRIOR
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.levels import MicroLevel
from hrl_sarp.envs.policies import FollowGoal
from hrl_sarp.market.tensors import SMALLEST_PREFERENCE, MarketTensors
from tests import factories, tiny_runs

DAYS = torch.arange(0, 200, 7)


def loose_config(**values: Any) -> RunConfig:
    """Let no limit bind, and trade for free."""
    free = {"buy_bps": 0.0, "sell_bps": 0.0, "slippage_bps": 0.0}
    risk = {"stock_cap": 1.0, "sector_cap": 1.0, "min_cash": 0.0}
    return tiny_runs.tiny_config(risk=risk, market_profile={"costs": free}, **values)


@pytest.fixture(scope="module")
def still() -> Market:
    """Prices that do not move, so that what is held stays what was asked for."""
    market = tiny_runs.tiny_market(halts=False, delistings=False)
    flat = np.zeros_like(market.overnight_return)
    still = replace(
        market, overnight_return=flat, intraday_return=flat, risk_free=np.zeros(market.n_days)
    )
    return factories.with_risk(still, seed=5)


def goal_of(tensors: MarketTensors, config: RunConfig) -> Any:
    portfolio = torch.rand(len(DAYS), tensors.n_sectors + 3)
    return MacroAgent(tensors, config, seed=0).goal({"day": DAYS[:, None], "portfolio": portfolio})


@pytest.mark.parametrize("exchangeable", [True, False])
@pytest.mark.parametrize("centre", ["mean", "mode"])
def test_the_untrained_goal_is_the_classical_portfolio(
    still: Market,
    centre: str,
    exchangeable: bool,  # noqa: FBT001
) -> None:
    network = {"centre": centre, "exchangeable": exchangeable}
    config = loose_config(macro_agent={"network": network})
    goal = goal_of(tiny_runs.tensors_of(still), config)
    assert still.risk is not None
    near = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(goal.sector_weights, still.risk.sector_prior[DAYS], **near)
    np.testing.assert_allclose(goal.cash, 1 - still.risk.prior_exposure[DAYS], **near)


def test_the_untrained_pair_holds_the_classical_portfolio(still: Market) -> None:
    tensors, config = tiny_runs.tensors_of(still), loose_config()
    macro = MacroAgent(tensors, config, seed=1)
    micro = MicroAgent(MicroSettings(tensors, config), seed=1)
    level = MicroLevel(tensors, config, 3, macro, horizon=1000)
    days = torch.tensor([4, 69, 124])
    level.reset(days, torch.ones(3, dtype=torch.bool))
    level.step(micro.target(level.observe("index")))
    risk = still.risk
    assert risk is not None
    for row, day in enumerate(days.tolist()):
        asked = np.repeat(risk.sector_prior[day], tensors.slots_per_sector) * risk.stock_prior[day]
        expected = np.zeros(still.n_assets)
        filled = still.slots[day] >= 0
        expected[still.slots[day][filled]] = risk.prior_exposure[day] * asked[filled]
        held = level.clocks.simulator.state.weights[row]
        np.testing.assert_allclose(held, expected, rtol=0, atol=1e-6)


def test_without_risk_tables_the_untrained_goal_is_one_over_n_without_cash(still: Market) -> None:
    tensors = tiny_runs.tensors_of(replace(still, risk=None))
    goal = goal_of(tensors, loose_config())
    shares = tensors.sector_shares[DAYS].float()
    torch.testing.assert_close(goal.sector_weights, shares, rtol=0, atol=1e-5)
    assert goal.cash.numpy() == pytest.approx(SMALLEST_PRIOR, rel=1e-3)


def test_tilts_are_bounded(still: Market) -> None:
    tensors = tiny_runs.tensors_of(still)
    config = loose_config(macro_agent={"network": {"largest_tilt": 0.1, "largest_cash_tilt": 0.1}})
    agent = MacroAgent(tensors, config, seed=0)
    with torch.no_grad():
        agent.actor.logit.weight += 1000.0
        agent.actor.cash.weight += 1000.0  # type: ignore[union-attr]
    seen = {"day": DAYS[:, None], "portfolio": torch.rand(len(DAYS), tensors.n_sectors + 3)}
    goal = agent.goal(seen)
    assert still.risk is not None
    asked = goal.sector_weights.log().numpy() - np.log(still.risk.sector_prior[DAYS])
    assert 0.1 < np.ptp(asked, axis=1).max() <= 0.2001
    odds = torch.logit(goal.cash) - torch.logit(1 - tensors.prior_exposure[DAYS].float())
    torch.testing.assert_close(odds.abs(), torch.full_like(odds, 0.1), rtol=0, atol=1e-4)


def test_a_stock_that_the_classical_portfolio_leaves_out_takes_what_a_full_sector_cannot_hold(
    still: Market,
) -> None:
    assert still.risk is not None
    one = np.zeros_like(still.risk.stock_prior)
    one[:, :: still.n_slots // still.n_sectors] = 1.0
    market = replace(still, risk=replace(still.risk, stock_prior=one))
    tensors = tiny_runs.tensors_of(market)
    others = tensors.slot_preference[tensors.slot_filled & (tensors.slot_preference < 1)]
    assert (others == SMALLEST_PREFERENCE).all()
    config = loose_config()
    tight = config.model_copy(update={"risk": factories.risk_config(stock_cap=0.1, sector_cap=1.0)})
    goal = MacroAgent(tensors, tight, seed=0).goal(
        {"day": torch.tensor([[4]]), "portfolio": torch.zeros(1, tensors.n_sectors + 3)}
    )
    seen = {
        "day": torch.tensor([[4]]),
        "portfolio": torch.zeros(1, tensors.n_slots + 4),
        "desired_goal": goal.to_vector(),
    }
    held = FollowGoal(tensors, tight.risk).target(seen)
    assert held.max() <= 0.1 + 1e-6
    left = market.risk.sector_prior[4] * float(1 - goal.cash)  # type: ignore[union-attr]
    room = (market.slots[4].reshape(market.n_sectors, -1) >= 0).sum(axis=1) * 0.1
    assert float(held.sum()) == pytest.approx(np.minimum(left, room).sum(), abs=1e-5)
