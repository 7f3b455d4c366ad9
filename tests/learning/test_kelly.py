"""The Kelly market: its oracle is pinned, both agents move towards it, others do not come near."""

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.known_markets import kelly
from hrl_sarp.known_markets.small_market import WeeklySpans, on_cpu, train_macro
from hrl_sarp.studies.summary import missed
from tests.tiny_runs import changed

SHORT = WeeklySpans(train_weeks=52_000, n_paths=4, path_weeks=60)
SHORT_LINE = 0.50
"""Share of the largest growth after a quarter or less of the steps; 1/N reaches 0.32."""


def short_config(**values: object) -> RunConfig:
    config: RunConfig = changed(load_config(experiment="kelly"), values)
    return config


def test_the_oracle_is_the_textbook_mix_and_its_growth_is_pinned() -> None:
    weights = kelly.kelly_weights()
    # mean - sd^2 w equal for both held: w1 - w2 = 0.003 / 0.0064 = 0.469 to first order
    assert weights == pytest.approx([0.734, 0.266, 0.0, 0.0, 0.0], abs=1e-3)
    assert float(kelly.expected_growth(weights)) == pytest.approx(0.00522, abs=5e-6)


def test_what_those_who_know_less_grow_is_pinned() -> None:
    largest = float(kelly.expected_growth(kelly.kelly_weights()))
    # 1/N: 0.2 x 1.1 % - 4 x 0.04 x 0.0064 / 2 = 0.00169 to second order
    assert float(kelly.expected_growth(np.full(5, 0.2))) == pytest.approx(0.00169, abs=1e-5)
    # all in the best: ln(1.008) - 0.0064 / 2 = 0.004768, exactly
    best = float(kelly.expected_growth(np.eye(5)[0]))
    assert best == pytest.approx(np.log(1.008) - 0.0032, abs=1e-12)
    assert best / largest == pytest.approx(0.913, abs=1e-3)
    random = kelly.expected_growth(np.random.default_rng(0).dirichlet(np.ones(5), 2000)).mean()
    assert float(random) / largest == pytest.approx(0.25, abs=0.02)


def test_growth_by_quadrature_agrees_with_a_long_draw() -> None:
    weights = np.array([0.5, 0.1, 0.1, 0.1, 0.2])
    market = kelly.kelly_market(1, kelly.MACRO_SECTORS, WeeklySpans(400_000, 1, 1))
    drawn = np.log1p(market.intraday_return @ weights)
    error = drawn.std() / len(drawn) ** 0.5
    assert abs(drawn.mean() - float(kelly.expected_growth(weights))) < 3 * error


def test_random_and_untrained_agents_miss_even_the_short_line() -> None:
    shares = kelly.reference_shares(short_config(), SHORT)
    assert max(shares.values()) < 0.4
    # fresh networks hold 1/N: 0.00168 / 0.00522
    assert shares["untrained macro"] == pytest.approx(0.322, abs=0.005)
    assert shares["untrained micro"] == pytest.approx(0.322, abs=0.005)
    figures = {"macro": shares["random"], "micro": shares["untrained micro"]}
    assert len(missed(kelly.THRESHOLDS, figures)) == len(kelly.THRESHOLDS)


def test_ppo_moves_to_the_best_weights() -> None:
    config = short_config(macro_agent={"ppo": {"total_timesteps": 70_656}})
    tensors = on_cpu(kelly.kelly_market(0, kelly.MACRO_SECTORS, SHORT))
    share = kelly.macro_share(tensors, config, train_macro(tensors, config), SHORT)
    assert share > SHORT_LINE
