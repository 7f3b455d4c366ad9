"""How well inputs tell volatility, on a market whose variance is known beforehand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.observed.forecasts import column_names
from hrl_sarp.observed.volatility_head import HORIZON
from hrl_sarp.studies.walk_forward import Recipe, WalkForward, cells
from hrl_sarp.studies.walk_forward.report.tables import skills_table
from hrl_sarp.studies.walk_forward.risk_seen import (
    DIRECT,
    HEAD,
    Skill,
    joined_skills,
    volatility_skill,
)
from tests import tiny_runs
from tests.encoders import panels


@pytest.fixture(scope="module")
def market() -> Market:
    """A market whose stocks swing between calm and wild months, all at other times."""
    plain = tiny_runs.tiny_market()
    rng = np.random.default_rng(3)
    phase = rng.uniform(0, 2 * np.pi, plain.n_assets)
    deviation = 0.01 * np.exp(np.sin(np.arange(plain.n_days)[:, None] / 20 + phase))
    returns = np.where(plain.tradable, deviation * rng.normal(size=deviation.shape), 0.0)
    quiet = np.zeros_like(returns)
    return replace(
        plain,
        overnight_return=quiet,
        intraday_return=np.expm1(returns),
        range_variance=None,
        manifest={**plain.manifest, "deviation": deviation},
    )


def showing(market: Market, columns: np.ndarray, kind: str = "har") -> Market:
    """Return the market with columns of a forecaster, in deviations of 1 around 0."""
    unit = {"kind": kind, "mean": [0.0] * columns.shape[2], "deviation": [1.0] * columns.shape[2]}
    names = list(column_names(kind))  # type: ignore[arg-type]
    facts = {"forecasts": {**unit, "clip": 5.0}, "names": names}
    table = columns.astype(np.float32)
    manifest = {**market.manifest, STOCK_EMBEDDINGS: facts}
    return replace(market, stock_embeddings=table, manifest=manifest)


def known_ahead(market: Market) -> np.ndarray:
    """Log of the deviation of the days to come, as no forecaster could know it."""
    deviation = market.manifest["deviation"]
    ahead = np.stack([np.roll(deviation, -k, axis=0) for k in range(1, HORIZON + 1)])
    return 0.5 * np.log((ahead**2).mean(axis=0))


def mean_of(found: dict[str, Any], way: str, name: str) -> float:
    return float(np.mean(found[way][name]))


def test_who_knows_the_variance_is_better_than_who_does_not(market: Market) -> None:
    truth = known_ahead(market)
    right = np.repeat(truth[:, :, None], 3, axis=2)
    noise = np.random.default_rng(0).normal(size=right.shape)
    plain, best, worst = (
        volatility_skill(each) for each in (market, showing(market, right), showing(market, noise))
    )
    assert set(plain) == {HEAD}
    assert set(best) == {HEAD, DIRECT}
    for name in ("qlike", "log_loss"):
        assert mean_of(best, DIRECT, name) < 0.8 * mean_of(plain, HEAD, name)
        assert mean_of(best, HEAD, name) < 0.9 * mean_of(plain, HEAD, name)
        assert mean_of(worst, DIRECT, name) > mean_of(best, DIRECT, name)
    # five squared normals around a known variance: E[x - log x - 1] = log(5 / 2) - digamma(5 / 2)
    assert mean_of(best, DIRECT, "qlike") == pytest.approx(0.213, abs=0.06)


def test_the_width_of_a_network_is_read_as_a_volatility(market: Market) -> None:
    names = column_names("toto")
    columns = np.zeros((market.n_days, market.n_assets, len(names)))
    columns[:, :, names.index("toto width 5d")] = 7.0 * np.exp(known_ahead(market))
    found = volatility_skill(showing(market, columns, "toto"))
    right = volatility_skill(showing(market, np.repeat(known_ahead(market)[:, :, None], 3, axis=2)))
    # a factor on all forecasts is fitted away
    assert found[DIRECT]["qlike"] == pytest.approx(right[DIRECT]["qlike"], rel=1e-4)


@pytest.mark.parametrize("bias", [-0.7, 0.7])
def test_scale_and_error_of_a_forecast_come_from_the_training_span(
    market: Market, bias: float
) -> None:
    # one whose level is wrong in validation alone pays for that: nobody could have known it before
    right = np.repeat(known_ahead(market)[:, :, None], 3, axis=2)
    later = np.arange(market.n_days)[:, None, None] >= market.split.train.stop
    biased = volatility_skill(showing(market, np.where(later, right + bias, right)))
    best = volatility_skill(showing(market, right))
    for name in ("qlike", "log_loss"):
        assert mean_of(biased, DIRECT, name) > 1.2 * mean_of(best, DIRECT, name)


def test_the_test_span_is_not_read(market: Market) -> None:
    stop = market.split.test.start
    later = np.arange(market.n_days)[:, None] >= stop
    other = replace(market, intraday_return=np.where(later, 0.5, market.intraday_return))
    assert volatility_skill(other) == volatility_skill(market)


def test_folds_are_joined_and_compared_week_by_week() -> None:
    def fold(first: float) -> dict[str, dict[str, list[float]]]:
        return {HEAD: {"qlike": [first, first + 0.2], "log_loss": [1.0, 1.0]}}

    found = joined_skills({"none": [fold(0.3), fold(0.5)], "har": [fold(0.2), fold(0.4)]})
    assert found["none"][HEAD]["qlike"].value == pytest.approx(0.5)
    assert found["none"][HEAD]["log_loss"] == Skill(1.0, 0.0, 0.0)
    own = found["har"][HEAD]["qlike"]
    assert (own.value, own.difference) == (pytest.approx(0.4), pytest.approx(-0.1))
    assert own.error == pytest.approx(0.0, abs=1e-12)
    page = skills_table({"us": found}).markdown()
    assert "| har, head | us | 0.4000 | \u22120.1000 ± 0.0000 | 1.0000 | 0.0000 ± 0.0000 |" in page


@pytest.fixture
def study(tmp_path: Path) -> WalkForward:
    """A study over collected data, of which no cell has run."""
    data_dir = panels.write_small_data(tmp_path)
    variants = {
        "none": {"encoders": {"observe": "none"}},
        "har": {"forecasters": {"observe": "har"}},
        "toto": {"forecasters": {"observe": "toto"}},
    }
    recipe = Recipe(None, {"test_years": 5}, variants, (1, 2), {})
    folds = {fold.name: fold for fold in recipe.folds("us", 1)}
    return WalkForward(recipe, {"us": data_dir}, tmp_path / "study", folds, (0,))


def test_a_study_is_refused_before_it_starts_if_a_forecaster_is_missing(
    study: WalkForward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "assembled_market", lambda *_: tiny_runs.tiny_market())
    with pytest.raises(MissingArtifactError, match="train-forecaster --model toto --panel"):
        study.require_startable()


def test_a_study_is_refused_before_it_starts_if_an_encoder_is_missing(study: WalkForward) -> None:
    variants = {"jade": {"encoders": {"observe": "jade"}}}
    other = replace(study, recipe=replace(study.recipe, variants=variants))
    with pytest.raises(MissingArtifactError, match="pretrain-encoder --encoder jade --panel"):
        other.require_startable()


def test_the_forecaster_is_part_of_what_a_cell_depends_on(study: WalkForward) -> None:
    (fold,) = study.folds.values()
    keys = {
        variant: study.identity(study.trained(fold, variant)[0])["market"]
        for variant in ("none", "har")
    }
    assert keys["har"].startswith(f"{keys['none']}, ")
