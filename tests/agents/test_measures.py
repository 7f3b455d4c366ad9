"""Measures of networks, gradients, portfolios and rankings, each worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from hrl_sarp.agents.measures import (
    GradientNorms,
    as_numbers,
    compare_with_ridge,
    critic_measures,
    daily_rank_ic,
    fit_ridge,
    goal_measures,
    mean_terms,
    mean_with_error,
    portfolio_measures,
    score_measures,
    spread,
)
from hrl_sarp.agents.ppo.networks import SectorDirichlet
from hrl_sarp.contracts import Goal, StepResult
from hrl_sarp.envs.levels import LevelStep
from hrl_sarp.market.tensors import MarketTensors
from tests import factories


def two_parameters() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))


def test_norms_are_those_before_clipping_and_the_share_is_of_the_whole() -> None:
    actor, critic = two_parameters()
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        for scale in (1.0, 2.0):
            actor.grad = critic.grad = None
            (scale * (3 * actor + 4 * critic)).sum().backward()
            nn.utils.clip_grad_norm_([actor, critic], 0.1)
    # gradients 3 and 4, then 6 and 8: together 5 and 10, one of them above 6
    found = norms.summary(limit=6.0)
    assert found == pytest.approx({"actor_grad_norm": 4.5, "critic_grad_norm": 6.0, "clipped": 0.5})


def test_a_frozen_group_is_left_out() -> None:
    actor, critic = two_parameters()
    actor.requires_grad = False
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        (actor * critic).sum().backward()
    assert norms.summary(limit=0.5) == {"critic_grad_norm": 1.0, "clipped": 1.0}


def test_nothing_is_noted_outside_the_context() -> None:
    actor, critic = two_parameters()
    with GradientNorms({"actor": [actor], "critic": [critic]}) as norms:
        pass
    (actor * critic).sum().backward()
    assert norms.summary(limit=1.0) == {}


def test_several_parameters_of_a_group_have_one_norm() -> None:
    first, second = two_parameters()
    with GradientNorms({"actor": [first, second]}) as norms:
        (3 * first + 4 * second).sum().backward()
    assert norms.summary(limit=5.5) == {"actor_grad_norm": 5.0, "clipped": 0.0}


def test_spread_names_mean_deviation_and_range() -> None:
    # deviations from 2 are -1, -1, 2: variance 2
    found = spread("advantage", np.array([1.0, 1.0, 4.0]))
    assert found == pytest.approx(
        {
            "advantage_mean": 2.0,
            "advantage_std": 2**0.5,
            "advantage_min": 1.0,
            "advantage_max": 4.0,
        }
    )


def test_goals_that_switch_sectors_are_concentrated_and_move() -> None:
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    regime = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    found = as_numbers(goal_measures(Goal(shares, torch.tensor([0.1, 0.3]), regime)))
    # each sector is 0 or 1 half of the time: deviation 0.5; P(bear) is 0.4 +- 0.2
    assert found == pytest.approx(
        {
            "goal_cash": 0.2,
            "goal_cash_std": 0.1,
            "goal_hhi": 1.0,
            "goal_std": 0.5,
            "p_bear": 0.4,
            "p_bear_std": 0.2,
        }
    )


def test_constant_even_goals_show_neither() -> None:
    shares = torch.full((3, 4), 0.25)
    goal = Goal(shares, torch.full((3,), 0.1), torch.full((3, 3), 1 / 3))
    found = as_numbers(goal_measures(goal))
    assert found["goal_hhi"] == pytest.approx(0.25)
    assert found["goal_std"] == found["p_bear_std"] == 0.0


def test_kappa_is_read_back_from_the_distribution_unlisted_sectors_or_not() -> None:
    listed = torch.tensor([[True, True, False], [True, True, True]])
    shares = SectorDirichlet(torch.zeros(2, 3), torch.tensor([10.0, 30.0]), listed)
    found = as_numbers(shares.measures())
    assert found["kappa"] == pytest.approx(20.0)
    assert found["entropy"] == pytest.approx(float(shares.entropy().mean()))


def test_scores_are_measured_where_they_count() -> None:
    scores = torch.tensor([[1.0, -1.0, 0.99], [0.0, 0.0, 0.0]])
    tradable = torch.tensor([[True, True, False], [True, True, False]])
    # 1, -1, 0, 0: deviation sqrt(2 / 4), half of them beyond 0.95; the third slot does not count
    found = as_numbers(score_measures(scores, tradable))
    assert found == pytest.approx({"score_std": 0.5**0.5, "score_saturation": 0.5})


def test_values_are_measured_beside_their_targets() -> None:
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 3.0])
    found = as_numbers(critic_measures((first, second), torch.tensor([0.0, 4.0])))
    assert found == pytest.approx(
        {
            "q1_mean": 2.0,
            "q2_mean": 2.5,
            "q_std": 1.0,
            "q_min": 1.0,
            "q_max": 3.0,
            "target_mean": 2.0,
            "td_error": 1.0,  # |1 - 0| and |3 - 4|
            "twin_gap": 0.5,  # |1 - 2| and |3 - 3|
        }
    )


# Portfolios


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


def level_step(trade: StepResult, goal: torch.Tensor) -> LevelStep:
    nothing = torch.zeros(len(goal))
    return LevelStep(nothing, nothing > 0, nothing > 0, {}, trade, goal)


def test_portfolios_are_measured_against_their_limits_and_goal() -> None:
    still = np.zeros((3, 4))
    market = factories.market_with(still, still, [0, 0, 1, 1])
    tensors = MarketTensors(market, torch.float64, "cpu")
    goal = torch.tensor([[0.5, 0.5, 0.0, 0.2, 0.5, 0.3]] * 3, dtype=torch.float64)
    trade = traded([0.2, 0.2, 0.1, 0.0], [0.2, 0.3, 0.2, 0.28], [0.0] * 4)
    risk = factories.risk_config(stock_cap=0.3, sector_cap=0.5)
    found = portfolio_measures(tensors, level_step(trade, goal), risk)
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
    trade = traded([0.0], [0.0])
    reward = torch.tensor([2.0, 4.0])
    found = mean_terms(LevelStep(reward, half, half, terms, trade, torch.zeros(2, 5)))
    assert found == {"reward": 3.0, "growth": 2.0, "cost": 0.25}


# Rankings


@pytest.mark.parametrize("decimals", [0, 6])  # 0 makes many ties
def test_rank_correlations_are_spearmans(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores, label = rng.normal(size=(2, 30, 12)).round(decimals)
    mask = rng.random((30, 12)) > 0.3
    expected = [spearmanr(scores[d, mask[d]], label[d, mask[d]]).statistic for d in range(30)]
    np.testing.assert_allclose(daily_rank_ic(scores, label, mask), expected, atol=1e-12)


def test_days_without_an_order_count_as_zero() -> None:
    scores = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    label = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    mask = np.array([[True] * 3, [True] * 3, [True, False, False], [True] * 3])
    np.testing.assert_allclose(daily_rank_ic(scores, label, mask), [0, 0, 0, -1], atol=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=12).map(np.array),
    share=st.floats(0.0, 1.0),
    decimals=st.sampled_from([0, 6]),
)
def test_inside_groups_each_spearman_weighs_its_stocks_less_one(
    seed: int, groups: np.ndarray, share: float, decimals: int
) -> None:
    rng = np.random.default_rng(seed)
    scores, label = rng.normal(size=(2, 5, len(groups))).round(decimals)
    mask = rng.random(scores.shape) < share
    found = daily_rank_ic(scores, label, mask, groups)
    for day in range(5):
        parts = []
        for group in range(4):
            chosen = mask[day] & (groups == group)
            pair = scores[day, chosen], label[day, chosen]
            tied = any(len(set(values)) < 2 for values in pair)
            parts.append((0.0 if tied else spearmanr(*pair).statistic, max(chosen.sum() - 1, 0)))
        expected = sum(r * n for r, n in parts) / max(sum(n for _, n in parts), 1)
        assert found[day] == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_inside_groups_only_the_order_within_them_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.array([0, 0, 0, 1, 1, 2])  # the last is alone
    scores, label = rng.normal(size=(2, 4, 6))
    mask = np.array([True, True, True, True, True, True])[None].repeat(4, axis=0)
    found = daily_rank_ic(scores, label, mask, groups)
    moved = label + rng.normal(size=(4, 3))[:, groups], scores * 3 + rng.normal(size=3)[groups]
    np.testing.assert_array_equal(daily_rank_ic(moved[1], moved[0], mask, groups), found)
    mask[:, 5] = False
    np.testing.assert_array_equal(daily_rank_ic(scores, label, mask, groups), found)


def test_newey_west_error_by_hand() -> None:
    # mean 2, deviations -1 1 -1 1: variance 1, autocovariances -3/4 and 2/4 (sums over n = 4)
    series = np.array([1.0, 3.0, 1.0, 3.0])
    assert mean_with_error(series, 0) == pytest.approx((2.0, np.sqrt(1 / 4)))
    # one lag weighs 1/2: 1 + 2 x 1/2 x -3/4 = 1/4
    assert mean_with_error(series, 1) == pytest.approx((2.0, np.sqrt((1 / 4) / 4)))
    # two lags weigh 2/3 and 1/3: 1 - 2 x 2/3 x 3/4 + 2 x 1/3 x 1/2 = 1/3
    assert mean_with_error(series, 2) == pytest.approx((2.0, np.sqrt((1 / 3) / 4)))


def test_overlap_of_slow_series_widens_the_error() -> None:
    rng = np.random.default_rng(1)
    slow = np.convolve(rng.normal(size=2000), np.ones(5) / 5, mode="valid")
    _, naive = mean_with_error(slow, 0)
    _, honest = mean_with_error(slow, 5)
    assert honest > 1.5 * naive


def test_ridge_by_hand() -> None:
    # one feature: sum x y / (sum x^2 (1 + penalty)) = 5 / (5 x 1.5)
    features = np.array([[[1.0], [2.0], [9.0]]])
    label, mask = np.array([[1.0, 2.0, 7.0]]), np.array([[True, True, False]])
    assert fit_ridge(features, label, mask, penalty=0.5).tolist() == pytest.approx([1 / 1.5])


def test_a_planted_linear_signal_is_ranked_by_the_ridge_and_not_by_noise() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(300, 20, 3))
    label = 0.5 * features[..., 0] + rng.normal(size=(300, 20))
    mask = np.ones((300, 20), dtype=bool)
    weights = fit_ridge(features[:200], label[:200], mask[:200], penalty=0.1)
    scores, ridge = rng.normal(size=(100, 20)), features[200:] @ weights
    one_group = np.zeros(20, dtype=np.int64)
    found = compare_with_ridge(scores, ridge, label[200:], mask[200:], one_group, overlap=1)
    # Pearson 0.5 / sqrt(1.25) = 0.447, Spearman 6 / pi x asin(0.447 / 2) = 0.431
    assert found["ridge_rank_ic"] == pytest.approx(0.431, abs=0.05)
    assert found["ridge_universe_rank_ic"] == found["ridge_rank_ic"]
    assert abs(found["rank_ic"]) < 3 * found["rank_ic_se"]
    assert found["rank_ic_minus_ridge"] == pytest.approx(found["rank_ic"] - found["ridge_rank_ic"])
    assert found["rank_ic_minus_ridge"] < -5 * found["rank_ic_minus_ridge_se"]
