"""Figures that other libraries compute, too: arch, ffn and scipy beside ours."""

import ffn
import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import optimal_block_length
from arch.covariance.kernel import Bartlett
from scipy import stats

from hrl_sarp import metrics
from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from tests.evaluation.statistics.drawn import persistent

YEAR = metrics.SESSIONS_PER_YEAR
DAILY = np.random.default_rng(3).standard_t(4, 500) * 0.01 + 0.0003
INDEX = 0.5 * DAILY + np.random.default_rng(4).normal(0.0002, 0.008, 500)


def test_ratios_and_drawdowns_agree_with_ffn() -> None:
    daily, index = pd.Series(DAILY), pd.Series(INDEX)
    prices = pd.Series(np.cumprod(np.concatenate([[1.0], 1.0 + DAILY])))
    ratio = ffn.calc_sharpe(daily, nperiods=YEAR)
    assert metrics.sharpe_ratio(DAILY, YEAR) == pytest.approx(ratio, rel=1e-10)
    ratio = ffn.calc_information_ratio(daily, index)
    assert metrics.information_ratio(DAILY - INDEX, 1) == pytest.approx(ratio, rel=1e-10)
    assert metrics.max_drawdown(DAILY) == pytest.approx(-ffn.calc_max_drawdown(prices), rel=1e-10)
    expected = -ffn.to_drawdown_series(prices).to_numpy()[1:]
    np.testing.assert_allclose(metrics.drawdowns(DAILY), expected, rtol=1e-9, atol=1e-12)
    assert metrics.total_return(DAILY) == pytest.approx(ffn.calc_total_return(prices), rel=1e-10)


def test_moments_and_lines_agree_with_scipy() -> None:
    assert metrics.skewness(DAILY) == pytest.approx(stats.skew(DAILY), rel=1e-10)
    assert metrics.kurtosis(DAILY) == pytest.approx(stats.kurtosis(DAILY, fisher=False), rel=1e-10)
    line = stats.linregress(INDEX, DAILY)
    assert metrics.beta(DAILY, INDEX) == pytest.approx(line.slope, rel=1e-10)
    assert metrics.alpha(DAILY, INDEX, YEAR) == pytest.approx(YEAR * line.intercept, rel=1e-10)


@pytest.mark.parametrize("correlation", [0.2, 0.9])
def test_block_length_is_that_of_the_library(correlation: float) -> None:
    series = persistent(correlation)
    expected = optimal_block_length(series)["stationary"].iloc[0]
    assert statistics.optimal_block_days(series) == pytest.approx(expected, rel=1e-12)
    # Politis and White: independent periods need no blocks, and dependent ones the longer ones
    assert statistics.optimal_block_days(series) > statistics.optimal_block_days(persistent(0.0))


def test_block_length_of_still_and_short_series() -> None:
    assert statistics.optimal_block_days(np.full(100, 0.01)) == 1.0
    edge = metrics.ROUNDING * np.repeat([-1.0, 1.0], 50)  # its deviation is the rounding
    assert statistics.optimal_block_days(edge) == 1.0
    assert statistics.optimal_block_days(1.5 * edge) > 5.0
    independent = np.random.default_rng(0).normal(size=500)
    assert optimal_block_length(independent)["stationary"].iloc[0] < 1  # the rule alone
    assert statistics.optimal_block_days(independent) == 1.0
    for wrong in (persistent(0.0, n=19), np.full(100, np.nan)):
        with pytest.raises(MetricError, match=r"at least 20 finite numbers; use a longer span$"):
            statistics.optimal_block_days(wrong)
    assert statistics.optimal_block_days(persistent(0.0, n=20)) >= 1.0


@pytest.mark.parametrize("lags", [0, 1, 7, None])
def test_error_of_a_mean_agrees_with_arch(lags: int | None) -> None:
    series = persistent(0.5, n=500)
    count = 5 if lags is None else lags  # 4 x 5^(2/9) = 5.72
    variance = float(np.squeeze(Bartlett(series, bandwidth=count).cov.long_run))
    error = (variance / 500) ** 0.5
    assert statistics.newey_west_error(series, lags) == pytest.approx(error, rel=1e-9)
    assert statistics.newey_west_t(series, lags) == pytest.approx(series.mean() / error, rel=1e-9)
