"""Folds: years that follow each other, training that never reaches a test, values in one place."""

from datetime import date
from pathlib import Path

import pytest

from hrl_sarp.errors import ConfigError
from hrl_sarp.studies.walk_forward import Fold, Recipe


def recipe(**changes: object) -> Recipe:
    values = {"experiment": None, "years": {}, "variants": {"risk": None}, "phases": (1,)}
    return Recipe(**{**values, "changes": {}, **changes})  # type: ignore[arg-type]  # by name


def test_folds_cover_the_test_years_once() -> None:
    assert [fold.name for fold in recipe().folds("us", None)] == [
        "us-2005-2007",
        "us-2008-2010",
        "us-2011-2013",
        "us-2014-2016",
        "us-2017-2019",
    ]
    # nse begins a year later; its last fold is cut at the same last year
    assert [fold.first for fold in recipe().folds("nse", None)] == [2006, 2009, 2012, 2015, 2018]
    assert recipe().folds("nse", None)[-1] == Fold("nse", 2018, 2019)
    assert len(recipe().folds("us", 2)) == 2


def test_spans_end_where_the_next_one_begins() -> None:
    config = recipe().config(Fold("us", 2008, 2010), "risk", seed=4)
    spans = config.market_profile.spans
    assert spans.train.start == date(2001, 1, 1)  # the market's own first day
    assert spans.train.end == date(2006, 12, 31)
    assert (spans.validation.start, spans.validation.end) == (date(2007, 1, 1), date(2007, 12, 31))
    assert (spans.test.start, spans.test.end) == (date(2008, 1, 1), date(2010, 12, 31))
    assert (config.seed, config.threads) == (4, 1)


def test_years_of_the_command_line_win() -> None:
    years = {"first_test_year": 2010, "last_test_year": 2013, "test_years": 2}
    asked = recipe(years={**years, "validation_years": 2})
    assert [fold.name for fold in asked.folds("us", None)] == ["us-2010-2011", "us-2012-2013"]
    config = asked.config(Fold("us", 2010, 2011), "risk", seed=0)
    assert config.market_profile.spans.train.end == date(2007, 12, 31)
    with pytest.raises(ConfigError, match="at least one fold"):
        recipe(years={"first_test_year": 2020}).folds("us", None)


@pytest.mark.parametrize("market", ["us", "nse", "sample"])
def test_a_fold_takes_features_and_baselines_of_the_study(market: str) -> None:
    config = recipe().config(Fold(market, 2008, 2010), "growth", seed=0)
    section = config.walk_forward
    assert config.market_profile.macro_features == section.macro_features
    assert config.evaluation.baselines == section.baselines
    assert config.evaluation.rebalance == section.rebalance
    assert config.objective.kind == "growth"


def test_a_variant_is_an_objective_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "calm.yaml"
    file.write_text("objective: {risk_aversion: 8.0}\n")
    both = recipe(variants={"calm": file, "wild": None})
    assert both.config(Fold("us", 2008, 2010), "calm", 0).objective.risk_aversion == 8.0
    with pytest.raises(ConfigError, match="--variant wild"):
        both.config(Fold("us", 2008, 2010), "wild", 0)


def test_layers_of_a_variant_are_laid_over_each_other() -> None:
    changes = {"objective": {"risk_aversion": 3.0}, "evaluation": {"confidence": 0.8}}
    both = recipe(experiment="smoke", changes=changes, variants={"growth": None})
    config = both.config(Fold("nse", 2009, 2011), "growth", seed=0)
    assert (config.objective.kind, config.objective.risk_aversion) == ("growth", 3.0)
    assert config.evaluation.confidence == 0.8
    # of the market and of the experiment that were asked for
    assert config.market == "nse"
    plain = recipe().config(Fold("nse", 2009, 2011), "risk", seed=0)
    assert config.macro_agent != plain.macro_agent


def test_a_market_with_spans_as_shares_has_no_folds() -> None:
    spans = {"market_profile": {"spans": {"shares": [0.6, 0.2, 0.2]}}}
    with pytest.raises(ConfigError) as refused:
        recipe(changes=spans).config(Fold("us", 2008, 2010), "risk", seed=0)
    assert str(refused.value) == (
        "walk-forward: the market profile us has spans as shares of the data; expected "
        "`market_profile.spans.train.start`, the first day of every fold"
    )


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError) as refused:
        recipe().config(Fold("us", 2008, 2010), "wild", seed=0)
    assert str(refused.value) == (
        "--variant wild: expected one of risk, growth or NAME=FILE with a YAML file of values, "
        "found neither"
    )
