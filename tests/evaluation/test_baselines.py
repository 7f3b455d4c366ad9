from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import MarketError
from hrl_sarp.evaluation.baselines import (
    RULES,
    ScheduledPolicy,
    make_baselines,
    make_random_portfolios,
    rules,
)
from hrl_sarp.evaluation.baselines.rules import fit_ridge
from hrl_sarp.evaluation.baselines.schedule import decision_days, n_selected
from hrl_sarp.features.labels import stock_label
from hrl_sarp.market.tensors import MarketTensors
from tests import factories
from tests.evaluation.small_runs import CHEAP_BASELINES, small_config, steady_market


def _days(*rows: int) -> np.ndarray:
    return np.array(rows)


def _four_stocks(n_days: int = 60) -> Market:
    return steady_market([0.001, 0.002, 0.003, 0.004], n_days, [0, 0, 1, 1])


def test_monthly_decisions_are_the_first_day_and_the_first_of_each_month() -> None:
    market = steady_market([0.0], 60, [0])  # Mondays to Fridays from 2001-01-01
    found = decision_days(market, DayRange(5, 60), "monthly")
    assert market.dates[found].astype(str).tolist() == ["2001-01-08", "2001-02-01", "2001-03-01"]


def test_a_rule_that_knows_until_a_day_repeats_what_it_wanted_then() -> None:
    market = factories.random_market(np.random.default_rng(0), halts=False, delistings=False)
    config, asked = small_config(), []

    def rule(market: Market, days: np.ndarray, config: RunConfig) -> np.ndarray:
        asked.extend(days.tolist())
        return RULES["inverse_volatility"][1](market, days, config)

    policy = ScheduledPolicy("own", rule, config, knows_until=40)
    policy.prepare(MarketTensors(market, torch.float64, "cpu"), [DayRange(20, 60)])
    assert asked == [20, 23, 40]  # the decision of Thursday 2001-03-01, row 43, looks at row 40
    (expected,) = RULES["inverse_volatility"][1](market, _days(40), config)
    np.testing.assert_array_equal(policy._orders[43 - 20].slot_weights[0], expected)


def test_weekly_decisions_are_the_first_day_and_the_week_ends() -> None:
    market = steady_market([0.0], 14, [0])
    # rows 4 and 9 are Fridays; 13 is the last session and decides nothing
    assert decision_days(market, DayRange(2, 14), "weekly").tolist() == [2, 4, 9]


def test_equal_weight_counts_only_what_can_be_bought() -> None:
    market = _four_stocks()
    tradable = market.tradable.copy()
    tradable[7, 3] = False
    halted = replace(market, tradable=tradable)
    found = rules.equal_weight(halted, _days(6, 7), small_config())
    assert found[0] == pytest.approx([0.25] * 4)
    assert found[1] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


def test_inverse_volatility_of_two_stocks_by_hand() -> None:
    sign = np.where(np.arange(40) % 2 == 0, 1.0, -1.0)
    intraday = np.stack([0.01 * sign, 0.03 * sign], axis=1)
    market = factories.market_with(np.zeros_like(intraday), intraday, [0, 1])
    # deviations are 1 : 3, so the weights are 3/4 and 1/4
    found = rules.inverse_volatility(market, _days(30), small_config())
    assert found[0] == pytest.approx([0.75, 0.25])


def test_momentum_ignores_the_latest_sessions() -> None:
    intraday = np.zeros((60, 4))
    intraday[:54, 2] = 0.01  # the winner of the formation period
    intraday[54:, 0] = 0.50  # a jump inside the skipped sessions
    market = factories.market_with(np.zeros_like(intraday), intraday, [0, 0, 1, 1])
    config = small_config(momentum_positions=1)
    found = rules.momentum(market, _days(58), config)
    assert found[0] == pytest.approx([0, 0, 1, 0])


def test_momentum_waits_in_cash_until_the_formation_period_exists() -> None:
    found = rules.momentum(_four_stocks(), _days(39, 40), small_config())
    assert found[0].sum() == 0
    assert found[1].sum() == pytest.approx(1)


def test_sector_momentum_holds_all_of_the_best_sector() -> None:
    found = rules.sector_momentum(_four_stocks(), _days(50), small_config())
    assert found[0] == pytest.approx([0, 0, 0.5, 0.5])


def _planted_market(strength: float, seed: int = 0) -> Market:
    """Stocks whose feature 0 is their drift; the other features are noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, 12, 3))
    features[:, :, 0] = np.linspace(-1.5, 1.5, 12)
    intraday = strength * features[:, :, 0] + rng.normal(0, 0.01, (200, 12))
    market = factories.market_with(np.zeros_like(intraday), intraday, [0, 0, 0, 1, 1, 1] * 2)
    return replace(market, stock_features=features, feature_names=("a", "b", "c"))


def test_ridge_finds_the_planted_feature() -> None:
    market = _planted_market(strength=0.003)
    found = fit_ridge(market, market.split.train, small_config().evaluation)
    assert found[0] > 0.2
    assert np.abs(found[1:]).max() < 0.05


def test_ridge_agrees_with_another_implementation() -> None:
    market, section = _planted_market(strength=0.003), small_config().evaluation
    span, horizon = market.split.train, section.ridge_label_days
    labels = stock_label(market, horizon)[0][span.start : span.stop - 1 - horizon]
    features = market.stock_features[span.start : span.stop - 1 - horizon].reshape(-1, 3)
    target = (labels - labels.mean(axis=1, keepdims=True)) / labels.std(axis=1, keepdims=True)
    # the penalty is times rows times the mean square of a feature, so times their sum over F
    other = Ridge(section.ridge_penalty * (features**2).sum() / 3, fit_intercept=False)
    found = fit_ridge(market, span, section)
    np.testing.assert_allclose(found, other.fit(features, target.ravel()).coef_, rtol=1e-9)


def test_ridge_of_noise_is_shrunk_to_nearly_nothing() -> None:
    market = _planted_market(strength=0.0)
    found = fit_ridge(market, market.split.train, small_config().evaluation)
    assert np.abs(found[1:]).max() < 0.05


def test_ridge_reads_no_label_that_ends_after_the_training_span() -> None:
    market = _planted_market(strength=0.003)
    stop = market.split.train.stop
    changed = market.intraday_return.copy()
    changed[stop:] = 0.5
    moved = replace(market, intraday_return=changed)
    section = small_config().evaluation
    np.testing.assert_array_equal(
        fit_ridge(moved, market.split.train, section),
        fit_ridge(market, market.split.train, section),
    )


def _noisy_sectors(seed: int = 0) -> Market:
    """Feature 0 is the drift inside the sectors; feature 1 that of each sector in training only."""
    rng = np.random.default_rng(seed)
    sector_of, stop = np.repeat([0, 1, 2], 4), 120
    inside = np.tile([-1.5, -0.5, 0.5, 1.5], 3)
    whole = np.repeat([-1.0, 0.0, 1.0], 4)
    features = np.broadcast_to(np.stack([inside, whole], axis=1), (200, 12, 2)).copy()
    intraday = 0.002 * inside + rng.normal(0, 0.005, (200, 12))
    intraday[:stop] += 0.02 * whole
    market = factories.market_with(np.zeros_like(intraday), intraday, sector_of)
    return replace(market, stock_features=features, feature_names=("inside", "whole"))


def test_the_ridge_inside_sectors_does_not_see_what_moves_whole_sectors() -> None:
    market, section = _noisy_sectors(), small_config().evaluation
    over_all = fit_ridge(market, market.split.train, section)
    inside = fit_ridge(market, market.split.train, section, in_sectors=True)
    assert over_all[1] > over_all[0]
    # inside a sector it has one value, which is 0 once it is centred
    assert inside[1] == 0
    assert inside[0] > 2 * over_all[0]


def test_ridge_inside_sectors_holds_the_best_of_each_sector() -> None:
    market = _noisy_sectors()
    eligible = market.eligible.copy()
    eligible[:, 0] = False  # the first sector has three stocks, of 11
    slots = np.where(market.slots == 0, -1, market.slots)
    market = replace(market, eligible=eligible, slots=slots)
    config = small_config(ridge_positions=6, max_universe_share=1.0)
    found = rules.ridge_in_sectors(market, _days(150), config)[0].reshape(3, 4)
    expected = np.array([[0, 0, 3, 3], [0, 0, 4, 4], [0, 0, 4, 4]]) / 22
    np.testing.assert_allclose(found, expected)


def test_ridge_without_a_complete_label_is_refused() -> None:
    market = _planted_market(strength=0.003)
    with pytest.raises(MarketError, match="lengthen the training span"):
        fit_ridge(market, DayRange(0, 5), small_config().evaluation)


def test_shuffled_ridge_holds_as_many_other_stocks() -> None:
    market, config = _planted_market(strength=0.003), small_config(ridge_positions=4)
    days = np.arange(100, 160)
    plain, shuffled = (rule(market, days, config) for rule in (rules.ridge, rules.ridge_shuffled))
    np.testing.assert_array_equal((plain > 0).sum(axis=1), (shuffled > 0).sum(axis=1))
    overlap = ((plain > 0) & (shuffled > 0)).sum() / (plain > 0).sum()
    held = n_selected(config, 4, market, days) / 12
    assert overlap == pytest.approx(held, abs=0.12)


def test_least_traded_takes_the_smallest_volumes() -> None:
    market = _four_stocks()
    volume = np.tile([4e6, 1e6, 3e6, 2e6], (60, 1))
    config = small_config(random_positions=2)
    found = rules.least_traded(replace(market, dollar_volume=volume), _days(50), config)
    # the caps of the risk section ask for at least 1 / 0.2 = 5 stocks, of which 2 are wanted
    assert found[0] == pytest.approx([0, 0.5, 0, 0.5])


def test_small_universe_lowers_the_number_of_positions_but_not_below_the_caps() -> None:
    market = factories.random_market(np.random.default_rng(0), n_sectors=4, slots_per_sector=6)
    config = small_config(max_universe_share=0.5)
    usable = 24
    assert n_selected(config, 30, market, _days(5)) <= usable * 0.5
    assert n_selected(config, 30, market, _days(5)) >= 5
    assert n_selected(config, 3, market, _days(5)) == 3


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_rules_ignore_the_future(name: str) -> None:
    market = factories.random_market(np.random.default_rng(8), n_days=200)
    rng, cut = np.random.default_rng(9), 150
    after = (np.arange(200) > cut)[:, None]
    noise = rng.normal(0, 0.05, market.intraday_return.shape)
    changed = replace(
        market,
        intraday_return=np.where(after & market.tradable, noise, market.intraday_return),
        dollar_volume=np.where(after, 1.0, market.dollar_volume),
        stock_features=np.where(after[:, :, None], 0.0, market.stock_features),
    )
    days = _days(125, 140, cut)
    rule = RULES[name][1]
    np.testing.assert_array_equal(
        rule(changed, days, small_config()), rule(market, days, small_config())
    )


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_rules_give_weights_of_usable_slots_that_sum_to_one(name: str) -> None:
    market = factories.random_market(np.random.default_rng(8), n_days=200)
    days = _days(125, 140, 199)
    found = RULES[name][1](market, days, small_config())
    usable = (market.slots[days] >= 0) & market.tradable[
        days[:, None], np.maximum(market.slots[days], 0)
    ]
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.min() >= 0
    assert not (found > 0)[~usable].any()


@pytest.mark.parametrize(
    "name", ["minimum_variance", "mean_variance", "risk_budgeting", "hierarchical_risk_parity"]
)
def test_optimised_rules_prefer_the_calm_stocks(name: str) -> None:
    from hrl_sarp.evaluation.baselines.optimised import OPTIMISED_RULES

    rng = np.random.default_rng(4)
    intraday = rng.normal(0.0, [0.005, 0.02] * 6, (80, 12))
    market = factories.market_with(np.zeros_like(intraday), intraday, [0] * 6 + [1] * 6)
    found = OPTIMISED_RULES[name][1](market, _days(30, 60), small_config())
    assert found[0].sum() == 0  # 40 sessions of history do not exist yet: cash
    assert found[1].sum() == pytest.approx(1, abs=1e-6)
    if name != "mean_variance":
        assert found[1, ::2].sum() > 2 * found[1, 1::2].sum()


@pytest.mark.parametrize("name", ["minimum_variance", "risk_budgeting"])
def test_optimised_rules_leave_out_a_stock_that_does_not_move(name: str) -> None:
    from hrl_sarp.evaluation.baselines.optimised import OPTIMISED_RULES

    intraday = np.random.default_rng(4).normal(0.0, 0.01, (80, 4))
    intraday[:, 1] = 0.0
    market = factories.market_with(np.zeros_like(intraday), intraday, [0, 0, 1, 1])
    (found,) = OPTIMISED_RULES[name][1](market, _days(60), small_config())
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found[1] == 0


def test_random_portfolios_buy_once_and_follow_the_seed() -> None:
    market = factories.random_market(np.random.default_rng(3))
    tensors = MarketTensors(market, torch.float64, "cpu")
    first, second = make_random_portfolios(small_config())[:2]
    again = make_random_portfolios(small_config())[0]
    for policy in (first, second, again):
        policy.prepare(tensors, [DayRange(10, 40)])
        assert list(policy._orders) == [0]
    own, other, same = (p._orders[0].slot_weights for p in (first, second, again))
    assert torch.equal(own, same)
    assert not torch.equal(own, other)
    assert float(own.sum()) == pytest.approx(1)


def test_unknown_volume_leaves_the_canary_out() -> None:
    market = _four_stocks()
    assert not market.dollar_volume.any()
    names = [policy.name for policy in make_baselines(market, small_config())]
    assert "least traded" not in names
    assert names[0] == "1/N"


def test_large_universe_leaves_the_optimised_baselines_out() -> None:
    market = _four_stocks()
    config = small_config(baselines=["minimum_variance"], optimised_max_slots=3)
    assert [policy.name for policy in make_baselines(market, config)] == ["1/N"]
