"""The permuted-returns control destroys the signal and nothing else, and tells it from noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.files import write_json
from hrl_sarp.studies import permuted_returns
from hrl_sarp.studies.permuted_returns import (
    InSampleGain,
    control_sentence,
    control_table,
    permuted_market,
    run_control,
    stored_control,
)
from hrl_sarp.training.phase import PhaseContext
from tests import factories
from tests.learning.planted import learning_config
from tests.tiny_runs import changed, context_of

BLOCK = 5


def _permuted(market: Market, seed: int = 0) -> Market:
    return permuted_market(market, BLOCK, np.random.default_rng(seed))


def test_blocks_of_training_days_move_together_and_other_days_stay() -> None:
    market = factories.market_with(
        np.zeros((120, 2)), np.arange(120)[:, None] * np.array([1e-4, 2e-4]), [0, 1]
    )
    span = market.split.train
    moved = np.rint(_permuted(market).intraday_return[:, 0] * 1e4).astype(int)
    inside = moved[span.start : span.stop]
    assert sorted(inside) == list(range(span.start, span.stop))
    assert (np.diff(inside) == 1).sum() >= len(inside) * (1 - 1 / BLOCK) - 1
    assert list(inside) != sorted(inside)
    outside = np.setdiff1d(np.arange(120), np.arange(span.start, span.stop))
    assert list(moved[outside]) == list(outside)


def test_agents_see_what_they_saw_and_stocks_without_a_bar_earn_nothing() -> None:
    market = factories.random_market(np.random.default_rng(3), n_days=200)
    moved = _permuted(market)
    for name in ("stock_features", "macro_features", "slots", "tradable", "listed", "dates"):
        assert getattr(moved, name) is getattr(market, name)
    assert not moved.session_return()[~market.tradable].any()
    assert not np.array_equal(moved.session_return(), market.session_return())


def test_classical_portfolios_move_with_the_returns_and_risk_inputs_stay() -> None:
    market = factories.random_market(np.random.default_rng(3), n_days=200)
    market = replace(market, risk=risk_tables(market, load_config(market="us")))
    moved = _permuted(market)
    before, after = market.risk, moved.risk
    assert before is not None
    assert after is not None
    assert after.inputs is before.inputs
    assert after.sector_inputs is before.sector_inputs
    np.testing.assert_allclose(after.sector_prior.sum(axis=1), 1)
    by_sector = after.stock_prior.reshape(market.n_days, market.n_sectors, -1).sum(axis=2)
    filled = (market.slots >= 0).reshape((*by_sector.shape, -1)).any(axis=2)
    np.testing.assert_allclose(by_sector, filled, atol=1e-12)
    same = sorted(before.prior_exposure[market.split.train.start : market.split.train.stop])
    span = slice(market.split.train.start, market.split.train.stop)
    assert sorted(after.prior_exposure[span]) == same


def _week_by_week(drift: float) -> Market:
    """Let a macro feature say at each week end which half of the sectors rises in the next week."""
    n_days, sectors = 260, np.repeat(np.arange(4), 2)
    rng = np.random.default_rng(7)
    week = (np.arange(n_days) + 1) // 5  # rows 4, 9, ... are week ends
    sign = rng.choice([-1.0, 1.0], week[-1] + 1)[week]
    intraday = rng.normal(0, 0.005, (n_days, len(sectors)))
    intraday[1:] += drift * sign[:-1, None] * np.where(sectors < 2, 1, -1)
    macro = np.column_stack([sign, rng.normal(size=(n_days, 2))])
    return factories.market_with(
        np.zeros_like(intraday), intraday, sectors, macro_features=macro,
        benchmark_return=intraday.mean(axis=1),
    )  # fmt: skip


def _config(**values: object) -> RunConfig:
    config = learning_config(
        macro_agent={"network": {"exchangeable": False}, "pretrain": {"epochs": 10}},
        curriculum={"temperature_grid": [0.0, 8.0]},
    )
    rules = {"objective": {"kind": "growth"}, "evaluation": {"permuted_runs": 3}, **values}
    quick: RunConfig = changed(config, rules)
    return quick


def _fitted_gain(context: PhaseContext, _: int) -> float:
    """Fit next week's return of each sector to what macro features say, and return the fit's R2."""
    market, train = context.market, context.market.split.train
    ends = np.flatnonzero(market.is_week_end)
    ends = ends[(ends >= train.start) & (ends < train.stop - BLOCK)]
    later = np.stack([market.session_return()[at + 1 : at + 1 + BLOCK].sum(axis=0) for at in ends])
    seen = np.column_stack([market.macro_features[ends], np.ones(len(ends))])
    residual = later - seen @ np.linalg.lstsq(seen, later, rcond=None)[0]
    return float(1 - residual.var() / later.var())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the phases by a least squares fit."""
    monkeypatch.setattr(permuted_returns, "in_sample_gain", _fitted_gain)


@pytest.mark.usefixtures("quick")
def test_planted_signal_gains_more_than_permuted_returns_and_noise_does_not(
    tmp_path: Path,
) -> None:
    market = context_of(_week_by_week(0.006), _config(), tmp_path / "signal")
    gains = run_control(market, (1,))
    assert gains["phase 1"].true > 3 * max(gains["phase 1"].permuted)
    assert gains["phase 1"].exceeds_permuted(0.9)
    assert "there is a signal" in control_sentence(gains, 0.9)
    noise = run_control(context_of(_week_by_week(0.0), _config(), tmp_path / "noise"), (1,))
    assert noise["phase 1"].true < 1.5 * max(noise["phase 1"].permuted)
    assert not noise["phase 1"].exceeds_permuted(0.9)
    assert "cannot be told apart in phase 1" in control_sentence(noise, 0.9)


@pytest.mark.slow
def test_phase_gains_from_a_planted_signal_what_it_does_not_from_permuted_returns(
    tmp_path: Path,
) -> None:
    gains = run_control(context_of(_week_by_week(0.006), _config(), tmp_path / "signal"), (1,))
    assert gains["phase 1"].true > 1.5 * max(gains["phase 1"].permuted)
    assert gains["phase 1"].exceeds_permuted(0.9)
    noise = run_control(context_of(_week_by_week(0.0), _config(), tmp_path / "noise"), (1,))
    assert noise["phase 1"].true < 1.5 * max(noise["phase 1"].permuted)
    assert not noise["phase 1"].exceeds_permuted(0.9)


@pytest.mark.usefixtures("quick")
def test_control_is_kept_and_not_repeated(tmp_path: Path) -> None:
    context = context_of(_week_by_week(0.006), _config(), tmp_path)
    first = run_control(context, (1,))
    cells = sorted((tmp_path / "permuted").glob("*/cell.json"))
    assert len(cells) == 4
    times = [cell.stat().st_mtime_ns for cell in cells]
    assert run_control(context, (1,)) == first
    assert [cell.stat().st_mtime_ns for cell in cells] == times


@pytest.mark.usefixtures("quick")
def test_stored_control_is_that_of_the_run(tmp_path: Path) -> None:
    assert stored_control(tmp_path) is None
    context = context_of(_week_by_week(0.006), _config(), tmp_path)
    gains = run_control(context, (1,))
    assert stored_control(tmp_path) is None  # no phase has finished
    metrics = tmp_path / "pretrain_macro" / "pretrain_macro_metrics.json"
    write_json(metrics, context.run_identity())
    assert stored_control(tmp_path) == gains
    write_json(metrics, {**context.run_identity(), "seed": 4})
    assert stored_control(tmp_path) is None


def test_table_shows_both_gains_and_the_verdict() -> None:
    gains = {"phase 1": InSampleGain(8.0, (1.0, 2.0)), "phase 2": InSampleGain(1.0, (1.0, 3.0))}
    rows = control_table(gains, 0.9).rows
    assert rows[0] == ("phase 1", "8.00 / 1.50", "1.00 to 2.00", "yes")
    assert rows[1][3] == "no"
