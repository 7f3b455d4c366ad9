"""The no-trade band: its oracle is pinned, PPO learns not to churn, others do not."""

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.known_markets import no_trade_band
from hrl_sarp.known_markets.no_trade_band import BandPolicy
from hrl_sarp.known_markets.small_market import WeeklySpans, on_cpu, train_macro
from hrl_sarp.studies.summary import Threshold, missed
from tests.tiny_runs import changed

SHORT = WeeklySpans(train_weeks=52_000, n_paths=60, path_weeks=156)
SHORT_THRESHOLDS = (
    Threshold("share of the gap", ">=", 0.25),
    Threshold("turnover / oracle's", "<=", 8.0),
)
"""After a sixth of the steps; a fresh network always rebalances: 0, at 8.7 times the turnover."""


def band_config(**values: object) -> RunConfig:
    config: RunConfig = changed(load_config(experiment="no_trade_band"), values)
    return config


def test_the_best_band_and_what_it_earns_are_pinned() -> None:
    band, best = no_trade_band.solve_band()
    assert (band.low, band.high) == pytest.approx((0.388, 0.610), abs=1e-3)
    assert best.growth == pytest.approx(0.00117, abs=5e-6)
    assert best.turnover == pytest.approx(0.0023, abs=5e-5)


def test_what_always_rebalancing_earns_is_pinned() -> None:
    centre, weekly = no_trade_band.always_rebalance()
    # to second order the growth is 0.005 w - 0.01 w^2 / 2, largest at 0.5
    assert centre == 0.5
    # the weight drifts by 0.25 x 10 % x |z|, mean |z| = 0.798
    assert weekly.turnover == pytest.approx(0.25 * 0.1 * np.sqrt(2 / np.pi), rel=5e-3)
    # 0.00124 without costs, less 2 % of the turnover
    free = float(no_trade_band.expected_growth(np.array(0.5)))
    assert weekly.growth == pytest.approx(free - 0.02 * weekly.turnover, abs=2e-6)
    assert weekly.growth == pytest.approx(0.000844, abs=2e-6)


def test_the_oracle_pays_the_costs_of_the_simulator() -> None:
    config = band_config()
    tensors = on_cpu(no_trade_band.band_market(0, SHORT))
    band, best = no_trade_band.solve_band()
    figures = no_trade_band.figures_of(tensors, config, BandPolicy(band), SHORT)
    assert figures["share of the gap"] == pytest.approx(1.0)
    # 60 paths of 52 weeks on which the weight hardly turns: some 60 independent states
    assert figures["growth"] == pytest.approx(best.growth, abs=3e-5)
    assert figures["turnover"] == pytest.approx(best.turnover, rel=0.2)


@pytest.mark.parametrize(("held", "target"), [(0.3, 0.5), (0.7, 0.5), (0.5, 0.5), (0.0, 1.0)])
def test_a_shift_costs_both_legs(held: float, target: float) -> None:
    cost = float(no_trade_band.trade_cost(np.array(held), np.array(target)))
    risky = abs(target * (1 - cost) - held)
    riskless = abs((1 - target) * (1 - cost) - (1 - held))
    assert cost == pytest.approx(0.01 * (risky + riskless), abs=1e-15)
    assert cost == pytest.approx(0.02 * abs(target - held), rel=0.02)


def test_random_and_untrained_agents_miss_the_lines() -> None:
    figures = no_trade_band.reference_figures(band_config(), SHORT)
    for name in ("untrained", "random"):
        own = {
            key.removeprefix(f"{name}: "): value
            for key, value in figures.items()
            if key.startswith(f"{name}: ")
        }
        assert len(missed(no_trade_band.THRESHOLDS, own)) == 2
        assert len(missed(SHORT_THRESHOLDS, own)) == 2
    # a fresh network asks for half and half each week
    assert figures["untrained: share of the gap"] == pytest.approx(0.0, abs=1e-3)


def test_ppo_learns_to_hold_instead_of_churning() -> None:
    short = {"total_timesteps": 90_112, "critic_warmup_steps": 4_096, "n_epochs": 8}
    config = band_config(macro_agent={"ppo": short})
    tensors = on_cpu(no_trade_band.band_market(0, SHORT))
    trained = train_macro(tensors, config)
    figures = no_trade_band.figures_of(tensors, config, trained, SHORT)
    assert missed(SHORT_THRESHOLDS, figures) == []
