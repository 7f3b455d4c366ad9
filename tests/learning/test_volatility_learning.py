"""Gradient and PPO learn the market of known risk; growth, permuted and random agents do not.

Shares of the gap between the classical portfolio and the best policy on fresh paths, one seed. The
full study with more weeks, steps and paths is `hrl-sarp known-markets`.
"""

from dataclasses import replace
from typing import Any

import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from hrl_sarp.graph import with_node_features
from hrl_sarp.known_markets.two_level import PathPlan
from hrl_sarp.known_markets.volatility.study import (
    VolatilityStudy,
    over_even_stocks,
    prepare_volatility,
)
from hrl_sarp.risk import risk_tables
from tests import tiny_runs
from tests.learning.planted import random_weights, untrained

LINE = 0.20
PLAN = PathPlan(train_weeks=1560, validation_weeks=104, n_paths=20, path_weeks=52)
COURSE: dict[str, Any] = {
    "macro_agent": {
        "gradient": {"epochs": 10},
        "ppo": {"total_timesteps": 15_360, "eval_every_steps": 7_680},
    },
    "micro_agent": {"gradient": {"epochs": 6}},
    "curriculum": {"temperature_grid": [0.0, 1.0], "checkpoint_seconds": 1e9},
}
"""Shorter than the study. The gradient reached 0.65 when this was written."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> VolatilityStudy:
    config = tiny_runs.changed(load_config(experiment="volatility_regimes"), COURSE)
    return prepare_volatility(config, tmp_path_factory.mktemp("volatility"), PLAN)


@pytest.fixture(scope="module")
def macro_study(study: VolatilityStudy) -> VolatilityStudy:
    config = over_even_stocks(study.config)
    market = replace(study.planted.market, risk=risk_tables(study.planted.market, config))
    return replace(study, config=config, planted=replace(study.planted, market=market))


def shortened(study: VolatilityStudy) -> VolatilityStudy:
    """Return a study whose trainings end early: a control has nothing to learn."""
    changes = {
        "macro_agent": {"gradient": {"epochs": 3}, "ppo": {"total_timesteps": 5_120}},
        "micro_agent": {"gradient": {"epochs": 2}},
    }
    return replace(study, config=tiny_runs.changed(study.config, changes))


def test_the_gradient_closes_the_gap_of_both_levels(study: VolatilityStudy) -> None:
    assert study.gradient()["gradient"] >= 2 * LINE


def test_ppo_from_scratch_closes_the_gap_of_the_macro_level(macro_study: VolatilityStudy) -> None:
    assert macro_study.macro_from_scratch()["macro_share"] >= LINE


def test_the_objective_growth_misses_the_line(study: VolatilityStudy) -> None:
    # it chases the luck of the training span, and holds no cash when risk is high
    assert shortened(study).growth()["growth"] < 0.0


def test_nothing_is_learned_from_sessions_in_another_order(study: VolatilityStudy) -> None:
    # the networks see the true past, which says nothing about the returns that they are paid for
    assert shortened(study).permuted()["permuted"] <= LINE / 4


def test_fresh_agents_hold_the_classical_portfolio_and_random_ones_something_worse(
    study: VolatilityStudy,
) -> None:
    market = with_node_features(study.planted.market, study.config.macro_agent.graph)
    context = study.context("apart", market)
    tensors, config = context.tensors, study.config
    found = study.shares(
        context,
        {
            "fresh": untrained(tensors, config),
            "random": random_weights(tensors, config),
            "1/N": (ProportionalGoal(tensors), FollowGoal(tensors, config.risk)),
        },
        "optimum",
    )
    assert found["fresh"] == pytest.approx(0.0, abs=0.02)
    assert found["random"] < 0.0
    assert found["1/N"] < 0.0
