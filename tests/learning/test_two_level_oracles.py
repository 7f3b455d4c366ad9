"""The two-level market's oracles reach the growth that a good policy can reach: pinned figures.

Source of the figures: spec/evaluation.md 4, and one run over 20 ten-year paths (seed 0): macro
0.331 +- 0.005, micro 0.421 +- 0.004 at speed 0.8, both 0.607 +- 0.006 a year over 1/N.
"""

import numpy as np
import pytest
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from hrl_sarp.features.labels import regime_label
from hrl_sarp.known_markets.two_level import (
    MacroOracle,
    MicroOracle,
    PathPlan,
    PathScore,
    PlantedMarket,
    filter_beliefs,
    label_probabilities,
    oracle_shares,
    planted_market,
    sector_variance,
    share_of_gap,
    transition_matrix,
)
from hrl_sarp.known_markets.two_level_study import ORACLE_SPEED
from hrl_sarp.market.tensors import MarketTensors

PLAN = PathPlan(train_weeks=104, validation_weeks=52, n_paths=20, path_weeks=78)
CONFIG = load_config(experiment="two_level")


@pytest.fixture(scope="module")
def planted() -> PlantedMarket:
    return planted_market(CONFIG, PLAN, seed=0)


@pytest.fixture(scope="module")
def score(planted: PlantedMarket) -> PathScore:
    return PathScore(MarketTensors(planted.market, torch.float32, "cpu"), CONFIG, PLAN)


@pytest.fixture(scope="module")
def equal_weight(score: PathScore) -> np.ndarray:
    return score.equal_weight()


def test_macro_oracle_earns_what_the_specification_says(
    planted: PlantedMarket, score: PathScore, equal_weight: np.ndarray
) -> None:
    oracle = MacroOracle(score.tensors, planted, CONFIG.risk)
    gain = score.growth(oracle, FollowGoal(score.tensors, CONFIG.risk)) - equal_weight
    assert gain.mean() == pytest.approx(0.334, abs=0.05)


def test_micro_oracle_earns_what_the_specification_says(
    score: PathScore, equal_weight: np.ndarray
) -> None:
    oracle = MicroOracle(score.tensors, CONFIG.risk, ORACLE_SPEED)
    gain = score.growth(ProportionalGoal(score.tensors), oracle) - equal_weight
    assert gain.mean() == pytest.approx(0.430, abs=0.05)


def test_both_oracles_together_earn_what_the_specification_says(
    planted: PlantedMarket, score: PathScore, equal_weight: np.ndarray
) -> None:
    macro = MacroOracle(score.tensors, planted, CONFIG.risk)
    micro = MicroOracle(score.tensors, CONFIG.risk, ORACLE_SPEED)
    gain = score.growth(macro, micro) - equal_weight
    assert gain.mean() == pytest.approx(0.607, abs=0.05)


def test_oracle_shares_solve_the_capped_quadratic_problem() -> None:
    # cap 0.5 binds for the first; the others satisfy drift - variance x w = nu: with drifts 0.02
    # and 0.01, variance 0.1: w2 - w3 = 0.1 and w2 + w3 = 0.5 -> 0.3, 0.2
    drift = np.array([[0.5, 0.02, 0.01]])
    assert oracle_shares(drift, 0.1, 0.5) == pytest.approx(np.array([[0.5, 0.3, 0.2]]), abs=1e-9)


def test_beliefs_are_calibrated(planted: PlantedMarket) -> None:
    # of the weeks to which the filter gives probability p, a part p must turn out so
    ends = np.flatnonzero(planted.market.is_week_end)[:-1]
    next_regime = planted.truth.regime[planted.truth.week_of[ends] + 1]
    for regime in Regime:
        p, happened = planted.beliefs[ends, regime], next_regime == regime
        error = np.sqrt((p * (1 - p)).sum()) / len(p)
        assert abs(happened.mean() - p.mean()) < 3 * error
        sure = p > 0.8
        assert happened[sure].mean() == pytest.approx(p[sure].mean(), abs=0.03)


def test_beliefs_do_not_move_when_later_rows_change(planted: PlantedMarket) -> None:
    truth, t = planted.truth, 2000
    returns, market = truth.log_return.copy(), truth.market_log_return.copy()
    returns[t + 1 :], market[t + 1 :] = 0.1, -0.1
    changed = type(truth)(**{**vars(truth), "log_return": returns, "market_log_return": market})
    again = filter_beliefs(changed, planted.synthetic)
    assert np.array_equal(again[: t + 1], planted.beliefs[: t + 1])
    assert not np.allclose(again[t + 10], planted.beliefs[t + 10])


def test_label_probabilities_are_calibrated(planted: PlantedMarket) -> None:
    data, market = CONFIG.data, planted.market
    label = regime_label(market, data.regime)
    rows = np.flatnonzero(market.is_week_end & (label >= 0))
    p = label_probabilities(planted.beliefs[rows], rows, market, data.regime, planted.synthetic)
    assert p.sum(axis=1) == pytest.approx(1.0)
    for regime in Regime:
        # four overlapping weeks: about a quarter of the rows are independent
        error = 2 * np.sqrt((p[:, regime] * (1 - p[:, regime])).sum()) / len(rows)
        assert abs((label[rows] == regime).mean() - p[:, regime].mean()) < 3 * error


def test_parameters_follow_from_the_configuration(planted: PlantedMarket) -> None:
    transition = transition_matrix(planted.synthetic)
    assert transition.sum(axis=1) == pytest.approx(1.0)
    assert transition[0] == pytest.approx([0.95, 0.025, 0.025])
    # 0.8 %^2 + 1.5 %^2 / 9
    assert sector_variance(planted.synthetic) == pytest.approx(0.64e-4 + 0.25e-4)


def test_share_of_gap_is_0_for_equal_weight_and_1_for_the_oracle() -> None:
    even, oracle = np.array([0.0, 0.2]), np.array([0.4, 0.6])
    assert share_of_gap(even, oracle, even) == 0.0
    assert share_of_gap(oracle, oracle, even) == 1.0
    assert share_of_gap(np.array([0.1, 0.3]), oracle, even) == pytest.approx(0.25)
