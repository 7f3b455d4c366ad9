"""Baselines of risk: their weights on small markets worked out by hand."""

import gc
import weakref
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.objective_schema import PriorName, RiskBaselineName
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.evaluation.baselines import make_baselines, make_constant_exposure, risk
from hrl_sarp.evaluation.baselines.risk import RISK_NAMES, TITLES, risk_rules
from hrl_sarp.risk import risk_tables
from hrl_sarp.risk.priors import classical_weights, prior_days
from tests import factories


def config_with(**evaluation: Any) -> RunConfig:
    values = {"risk_model": {"min_history_days": 5}, "evaluation": evaluation}
    return load_config(market="sample", overrides=values)


def wavering_market(size: float, n_days: int = 200) -> Market:
    """Two stocks that rise and fall together by the same size on every day."""
    moves = size * np.where(np.arange(n_days) % 2, 1.0, -1.0)[:, None] * np.ones(2)
    return factories.market_with(moves * 0, moves, [0, 1])


def test_the_configuration_knows_exactly_these_names() -> None:
    assert set(RISK_NAMES) == set(get_args(RiskBaselineName))
    assert set(TITLES) == set(get_args(PriorName))
    titles = [title for name in RISK_NAMES for title in risk_rules(name, config_with())]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", RISK_NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_weights_are_long_only_and_of_what_can_be_bought(name: str, seed: int) -> None:
    market = factories.random_market(np.random.default_rng(seed), n_days=90)
    market = replace(market, implied_volatility=np.full(90, 0.3))
    days = np.array([3, 30, 31, 80])
    for rule in risk_rules(name, config_with()).values():
        weights = rule(market, days, config_with())
        assert weights.min() >= 0
        assert (weights[~market.slot_tradable()[days]] == 0).all()
        assert weights.sum(axis=1).max() <= 1 + 1e-12
        if not name.endswith("_neutral") and not name.startswith("volatility"):
            np.testing.assert_allclose(weights.sum(axis=1), 1.0)


@pytest.mark.parametrize("name", RISK_NAMES)
def test_no_rule_reads_a_later_row(name: str) -> None:
    market = factories.random_market(np.random.default_rng(1), n_days=90)
    market = replace(market, implied_volatility=np.random.default_rng(2).uniform(0.1, 0.5, 90))
    order = np.concatenate([np.arange(71), np.random.default_rng(3).permutation(np.arange(71, 90))])
    tables = ("overnight_return", "intraday_return", "tradable", "eligible", "slots")
    tables = (*tables, "implied_volatility")
    changed = replace(market, **{table: getattr(market, table)[order] for table in tables})
    days = np.array([40, 70])  # the training span ends before both
    for rule in risk_rules(name, config_with()).values():
        first, second = (rule(each, days, config_with()) for each in (market, changed))
        assert first.tobytes() == second.tobytes()


def test_neutral_exposure_is_that_of_the_priors() -> None:
    market = factories.random_market(
        np.random.default_rng(0), n_days=120, halts=False, delistings=False
    )
    config = load_config(
        market="sample",
        overrides={
            "risk_model": {
                "min_history_days": 5,
                "sector_prior": "maximum_diversification",
                "stock_prior": "maximum_diversification",
            },
            "objective": {"normal_variance_years": 0.1},
        },
    )
    days = prior_days(market)
    (rule,) = risk_rules("maximum_diversification_neutral", config).values()
    found = rule(market, days, config).sum(axis=1)
    expected = risk_tables(market, config).prior_exposure[days]
    # a sector that the portfolio leaves out has even shares in the tables, times 0
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["volatility_target_ewma", "volatility_target_har"])
def test_exposure_is_the_target_over_the_volatility(name: str) -> None:
    market = wavering_market(0.02)
    volatility = 0.02 * np.sqrt(252)
    config = config_with(volatility_targets=[0.1, 0.5])
    low, high = risk_rules(name, config).values()
    day = np.array([150])
    assert low(market, day, config).sum() == pytest.approx(0.1 / volatility)
    share = config.objective.invested_share
    assert high(market, day, config).sum() == pytest.approx(share)  # 0.5 is above 0.32


def test_implied_volatility_sets_the_exposure_and_is_left_out_without_an_index() -> None:
    market = wavering_market(0.01)
    config = config_with(volatility_targets=[0.15], baselines=["volatility_target_implied"])
    (rule,) = risk_rules("volatility_target_implied", config).values()
    level = np.full(200, 0.3)
    level[:10] = 0.0  # not published yet
    known = replace(market, implied_volatility=level)
    assert rule(known, np.array([5, 50]), config).sum(axis=1) == pytest.approx([1.0, 0.5])
    assert [policy.name for policy in make_baselines(market, config)] == ["1/N"]
    names = [policy.name for policy in make_baselines(known, config)]
    assert names == ["1/N", "1/N at 15 % volatility, implied"]


def test_one_policy_for_each_target_and_none_is_left_out_in_a_large_universe() -> None:
    config = config_with(
        volatility_targets=[0.12, 0.18],
        baselines=["volatility_target_ewma", "minimum_variance_ridge", "minimum_variance"],
        optimised_max_slots=1,
    )
    names = [policy.name for policy in make_baselines(wavering_market(0.01), config)]
    targets = ["1/N at 12 % volatility, EWMA", "1/N at 18 % volatility, EWMA"]
    assert names == ["1/N", *targets, "minimum variance, ridge"]


def test_constant_exposure_holds_even_weights_of_that_sum() -> None:
    config = config_with()
    policy = make_constant_exposure(config, 0.6)
    assert policy.name == "60 % 1/N"
    found = policy._rule(wavering_market(0.01), np.array([10]), config)
    np.testing.assert_allclose(found, [[0.3, 0.3]])


def test_all_baselines_of_a_backtest_share_one_pass_over_the_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [name for name in RISK_NAMES if not name.startswith("volatility_target")]
    config, days = config_with(baselines=names), np.array([30, 60, 80])
    first, second = (
        factories.random_market(np.random.default_rng(seed), n_days=90) for seed in (0, 1)
    )
    passes = []

    def counted(market: Market, *arguments: Any) -> Any:
        passes.append(market is first)
        return classical_weights(market, *arguments)

    monkeypatch.setattr(risk, "classical_weights", counted)
    monkeypatch.setattr(risk, "_last", [])
    rules = {name: next(iter(risk_rules(name, config).values())) for name in names}
    found = {name: rule(first, days, config) for name, rule in rules.items()}
    assert passes == [True]
    for name, rule in rules.items():  # as each would compute alone
        monkeypatch.setattr(risk, "_last", [])
        alone = rule(first, days, config_with(baselines=["equal_weight"]))
        assert alone.tobytes() == found[name].tobytes()
    # other days, another market, another model and a portfolio that is not configured are no others
    name = names[0]
    model = load_config(
        market="sample",
        overrides={"risk_model": {"min_history_days": 5, "correlation_shrinkage": 0.9}},
    )
    shorter, other = days[:2], config_with(baselines=["equal_weight"])
    for market, asked, settings in (
        (first, days, config),
        (first, days + 1, config),
        (first, shorter, config),
        (second, shorter, config),
        (second, shorter, model),
        (second, shorter, other),
        (first, days, other),
    ):
        after_others = rules[name](market, asked, settings)
        monkeypatch.setattr(risk, "_last", [])
        assert after_others.tobytes() == rules[name](market, asked, settings).tobytes()


def test_a_market_is_not_kept_alive_for_its_baselines() -> None:
    market = factories.random_market(np.random.default_rng(0), n_days=90)
    rule = risk_rules("minimum_variance_ridge", config_with())["minimum variance, ridge"]
    rule(market, np.array([60]), config_with())
    held = weakref.ref(market)
    del market
    gc.collect()
    assert held() is None
