from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp import metrics
from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.baselines import make_baselines, make_constant_exposure
from hrl_sarp.evaluation.performance import (
    BY_NAME,
    MEASURES,
    Performance,
    certainty_equivalent,
    column,
    measure_policies,
)
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.evaluation.report.tables import detail_table, main_table
from hrl_sarp.evaluation.statistics import BEYOND_LUCK, Trials
from hrl_sarp.reporting.table import NONE
from tests import factories
from tests.evaluation.small_runs import small_config


def _measured(result: BacktestResult, count: int) -> dict[str, Performance]:
    main, market, config = result.main, result.market, result.config
    return measure_policies(main, market, config, Trials(count, ()), result.policy_names)


def test_every_measure_has_one_name_one_place_in_a_table_and_a_figure(
    result: BacktestResult, analysis: Analysis
) -> None:
    assert len(BY_NAME) == len(MEASURES)
    headings = [
        *main_table(result, analysis).header[1:],
        *detail_table(result, analysis).header[1:],
    ]
    level = f"{result.config.evaluation.confidence:.0%}"
    assert sorted(headings) == sorted(m.heading.format(level=level) for m in MEASURES)
    for performance in analysis.performances.values():
        assert list(performance) == list(BY_NAME)


def test_measure_is_not_said_of_the_policy_it_compares_with(analysis: Analysis) -> None:
    base = analysis.performances["1/N"]
    assert BY_NAME["tracking_error"].cell("1/N", base) == NONE
    assert BY_NAME["tracking_error"].cell("copy of 1/N", base) == "0.0 %"
    assert BY_NAME["growth_excess"].cell("copy of 1/N", base) == "0.0 [0.0, 0.0]"


def test_a_policy_that_differs_from_equal_weight_by_rounding_neither_beats_it_nor_loses(
    result: BacktestResult,
) -> None:
    main, net = result.main, result.main.net_return.copy()
    copy, base = column(main, "own"), column(main, "1/N")
    net[:, copy] = net[:, base] + np.random.default_rng(0).uniform(0.0, 4e-16, len(net))
    measured = _measured(replace(result, main=replace(main, net_return=net)), 1)["own"]
    excess = measured["growth_excess"]
    assert (excess.value, excess.low, excess.high) == (0.0, 0.0, 0.0)
    assert measured["probability_of_beating"] == 0.5
    assert (measured["information_ratio"], measured["tracking_error"]) == (0.0, 0.0)


def test_index_against_itself_has_beta_one_and_no_alpha(analysis: Analysis) -> None:
    index = analysis.performances["index"]
    assert index["beta"] == pytest.approx(1)
    assert index["alpha"] == pytest.approx(0, abs=1e-12)
    assert index["turnover"] == 0
    assert index["delistings"] is None


def test_equal_weight_has_no_excess_over_itself(analysis: Analysis) -> None:
    base = analysis.performances["1/N"]
    assert (base["growth_excess"].low, base["growth_excess"].high) == (0, 0)
    assert base["probability_of_beating"] == 0.5
    assert base["alpha_over_equal_weight"] == pytest.approx(0, abs=1e-12)


def test_figures_are_those_of_the_trajectory(result: BacktestResult, analysis: Analysis) -> None:
    own = analysis.performances["own"]
    main, i = result.main, result.main.names.index("own")
    base = main.names.index("1/N")
    assert own["total_return"] == pytest.approx(main.wealth[-1, i] - 1)
    growth = np.log(main.wealth[-1, i] / main.wealth[-1, base]) / len(main.dates) * 252
    assert own["growth_excess"].value == pytest.approx(growth)
    assert own["growth_excess"].low < growth < own["growth_excess"].high
    assert own["max_drawdown"] == metrics.max_drawdown(main.net_return[:, i])
    assert own["gross_annual_return"] > own["annual_return"]


def test_goal_of_even_sectors_is_nearly_met_by_an_even_portfolio(analysis: Analysis) -> None:
    alignment = analysis.performances["own"]["goal_alignment"]
    assert alignment is not None
    assert 0.85 < alignment < 1
    assert analysis.performances["1/N"]["goal_alignment"] is None


def test_delistings_are_counted_where_held(result: BacktestResult, analysis: Analysis) -> None:
    counted = analysis.performances["1/N"]["delistings"]
    forced = result.main.delisted_value[:, column(result.main, "1/N")]
    assert counted is not None
    assert counted >= np.count_nonzero(forced) > 0


def test_more_trials_lower_the_deflated_sharpe(result: BacktestResult) -> None:
    few, many = (_measured(result, count)["own"] for count in (2, 1000))
    assert many["deflated_sharpe"] < few["deflated_sharpe"]
    assert many["needed_appraisal_ratio"] > few["needed_appraisal_ratio"]
    assert many["appraisal_ratio"] == few["appraisal_ratio"]


def test_trials_of_policies_do_not_change_baselines(result: BacktestResult) -> None:
    few, many = (_measured(result, count)["inverse volatility"] for count in (2, 1000))
    assert few == many


def test_needed_ratio_and_certificate_say_the_same(result: BacktestResult) -> None:
    for name, found in _measured(result, 3).items():
        passes = found["appraisal_ratio"] > found["needed_appraisal_ratio"]
        assert passes == (found["deflated_sharpe"] > BEYOND_LUCK), name


def test_intervals_follow_the_seed(result: BacktestResult) -> None:
    first, again = (_measured(result, 2)["own"] for _ in range(2))
    moved = result.config.model_copy(update={"seed": 1})
    other = _measured(replace(result, config=moved), 2)["own"]
    assert first == again
    assert other["sharpe"].low != first["sharpe"].low
    assert other["sharpe"].value == first["sharpe"].value


def test_trajectory_of_another_market_is_refused(result: BacktestResult) -> None:
    other = factories.random_market(np.random.default_rng(0), n_days=20)
    with pytest.raises(MetricError, match="does not lie on the market"):
        measure_policies(result.main, other, small_config(), Trials(1, ()), [])


def test_unknown_policy_is_refused_with_the_names(result: BacktestResult) -> None:
    with pytest.raises(MetricError, match=r"no policy 'joint'.*1/N"):
        column(result.main, "joint")


def test_total_loss_is_measured_not_refused(result: BacktestResult) -> None:
    net = result.main.net_return.copy()
    net[3, column(result.main, "own")] = -1.0
    ruined = replace(result.main, net_return=net)
    found = _measured(replace(result, main=ruined), 1)["own"]
    assert found["annual_return"] == -1
    assert found["max_drawdown"] == 1


def test_risk_comes_first_in_the_table(result: BacktestResult, analysis: Analysis) -> None:
    table = main_table(result, analysis)
    assert table.header[1] == "volatility"
    kept = {table.header[column] for column in table.telling[1:5]}
    assert kept == {"return, net", "volatility", "max drawdown", "Sharpe [90%]"}


def test_certainty_equivalent_by_hand() -> None:
    # mean 0.001 x 252 = 0.252; sample variance of (0.011, -0.009) is 0.0002, x 252 = 0.0504
    assert certainty_equivalent(np.array([0.011, -0.009]), 5.0) == pytest.approx(0.252 - 0.126)
    assert certainty_equivalent(np.array([0.011, -0.009]), 10.0) == pytest.approx(0.0)


def test_certainty_equivalents_name_their_gamma(result: BacktestResult, analysis: Analysis) -> None:
    net = result.main.net_return[:, column(result.main, "own")]
    for gamma in (5, 10):
        found = analysis.performances["own"][f"certainty_equivalent_{gamma}"]
        assert found == certainty_equivalent(net, gamma)
        assert BY_NAME[f"certainty_equivalent_{gamma}"].heading == f"CE, gamma={gamma}"


def test_less_of_equal_weight_is_no_lower_risk_at_equal_exposure() -> None:
    """Cash alone leaves the ratio at 1: half of 1/N has half of its volatility."""
    market = factories.random_market(np.random.default_rng(5), n_days=400)
    config = small_config(baselines=[], random_portfolios=0)
    half = make_constant_exposure(config, 0.5)
    low = make_baselines(market, small_config(baselines=["inverse_volatility"]))[-1]
    found = run_backtest(market, [half, low], "test", config)
    measured = _measured(found, 2)
    diluted = measured[half.name]
    assert diluted["exposure"] == pytest.approx(0.5, abs=0.02)
    assert diluted["volatility"] < 0.6 * measured["1/N"]["volatility"]
    assert diluted["relative_volatility"].value == pytest.approx(1, abs=0.05)
    ratio = measured[low.name]["relative_volatility"]
    exposed = measured["1/N"]["exposure"] / measured[low.name]["exposure"]
    volatility = measured[low.name]["volatility"] / measured["1/N"]["volatility"]
    assert ratio.value == pytest.approx(exposed * volatility)
    assert ratio.low < ratio.value < ratio.high
    assert measured["index"]["relative_volatility"] is None
