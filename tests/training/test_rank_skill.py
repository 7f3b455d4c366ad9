"""Rank correlations against SciPy's, standard errors and ridge coefficients by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from hrl_sarp.training.rank_skill import (
    RankingData,
    compare_with_ridge,
    daily_rank_ic,
    fit_ridge,
    mean_with_error,
)


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
    data = RankingData(
        train_features=features[:200],
        train_label=label[:200],
        train_mask=mask[:200],
        features=features[200:],
        label=label[200:],
        mask=mask[200:],
        scores=rng.normal(size=(100, 20)),
        horizon=1,
    )
    found = compare_with_ridge(data, penalty=0.1)
    # Pearson 0.5 / sqrt(1.25) = 0.447, Spearman 6 / pi x asin(0.447 / 2) = 0.431
    assert found["ridge_rank_ic"] == pytest.approx(0.431, abs=0.05)
    assert abs(found["rank_ic"]) < 3 * found["rank_ic_se"]
    assert found["rank_ic_minus_ridge"] == pytest.approx(found["rank_ic"] - found["ridge_rank_ic"])
    assert found["rank_ic_minus_ridge"] < -5 * found["rank_ic_minus_ridge_se"]
