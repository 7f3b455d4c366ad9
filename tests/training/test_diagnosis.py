"""Portfolio measures and the tally of curriculum stages, by hand."""

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import StepResult
from hrl_sarp.envs.levels import LevelStep, Trade
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.training.diagnosis import (
    count_terms,
    mean_terms,
    open_stage,
    portfolio_measures,
    stage_summaries,
)
from tests import factories


def traded(*weights: list[float]) -> StepResult:
    """Return a step after which the portfolios hold these weights."""
    after = torch.tensor(weights, dtype=torch.float64)
    zero = torch.zeros(len(after), dtype=torch.float64)
    return StepResult(
        day=zero.long(),
        net_return=zero,
        gross_return=zero,
        cost=zero,
        turnover=zero,
        target_weights=after,
        weights_start=after,
        weights_before=after,
        weights_after=after,
        weights_end=after,
        delisted_value=zero,
    )


def test_portfolios_are_measured_against_their_limits_and_goal() -> None:
    still = np.zeros((3, 4))
    market = factories.market_with(still, still, [0, 0, 1, 1])
    tensors = MarketTensors(market, torch.float64, "cpu")
    goal = torch.tensor([[0.5, 0.5, 0.2, 0.5, 0.3]] * 3, dtype=torch.float64)
    trade = Trade(traded([0.2, 0.2, 0.1, 0.0], [0.2, 0.3, 0.2, 0.28], [0.0] * 4), goal)
    risk = factories.risk_config(stock_cap=0.3, sector_cap=0.5)
    found = portfolio_measures(tensors, trade, risk)
    # row 0: half invested as 0.4, 0.4, 0.2; sector 0 holds 0.4 of wealth, but 0.8 of the stocks
    # row 1: 0.98 invested; stock 1 is at its cap, sector 0 (0.5 of wealth) above its own
    # row 2: all cash
    by_hand = {
        "exposure": [0.5, 0.98, 0.0],
        "alignment": [0.7, 1 - (0.5 / 0.98 - 0.5), 0.5],
        "weights_hhi": [0.36, (0.04 + 0.09 + 0.04 + 0.0784) / 0.9604, 0.0],
        "sector_hhi": [0.68, (0.25 + 0.2304) / 0.9604, 0.0],
        "stock_capped": [0.0, 0.3 / 0.98, 0.0],
        "sector_capped": [0.8, 0.5 / 0.98, 0.0],
        "cash_floor": [0.0, 1.0, 0.0],
    }
    assert {name: values.tolist() for name, values in found.items()} == {
        name: pytest.approx(values) for name, values in by_hand.items()
    }


def test_reward_stands_beside_its_terms() -> None:
    half = torch.tensor([False, True])
    terms = {"growth": torch.tensor([1.0, 3.0]), "cost": torch.tensor([0.0, 0.5])}
    found = mean_terms(LevelStep(torch.tensor([2.0, 4.0]), half, half, terms))
    assert found == {"reward": 3.0, "growth": 2.0, "cost": 0.25}


def test_each_stage_keeps_the_means_of_its_own_steps_and_evaluations() -> None:
    first = open_stage("calm", 0, 0, [0.0, 1.0, 0.0])
    second = open_stage("stress", 20, 2, [1.0, 0.0, 0.0])
    count_terms(first, {"growth": 1.0})
    count_terms(first, {"growth": 2.0})
    count_terms(second, {"growth": -3.0})
    scores = [{"excess_growth_pct": value} for value in (1.0, 4.0, -2.0)]
    calm, stress = stage_summaries([first, second], scores)
    assert calm == {
        "name": "calm",
        "from_step": 0,
        "from_evaluation": 0,
        "regime_mix": [0.0, 1.0, 0.0],
        "batch_steps": 2,
        "means": {"growth": 1.5},
        "validation_excess_growth_pct": 2.5,
    }
    assert stress["means"] == {"growth": -3.0}
    assert stress["validation_excess_growth_pct"] == -2.0


def test_a_stage_that_ended_at_once_has_no_means() -> None:
    (found,) = stage_summaries([open_stage("skipped", 0, 0, [0.0, 1.0, 0.0])], [])
    assert (found["means"], found["validation_excess_growth_pct"]) == ({}, None)
