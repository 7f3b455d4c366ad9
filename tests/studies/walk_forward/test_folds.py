"""Folds: years that follow each other, training that never reaches a test, values in one place."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.config.study_schema import StudyConfig, StudyFoldsConfig
from hrl_sarp.errors import ConfigError
from hrl_sarp.studies.walk_forward import Fold, Recipe
from hrl_sarp.studies.walk_forward.folds import COMMON, _merged

FOLD = Fold("us", 2008, 2010)


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
    for count in (1, 2):
        assert len(recipe().folds("us", count)) == count


def test_the_recipe_of_a_study_holds_what_its_file_says(tmp_path: Path) -> None:
    study = StudyConfig(
        experiment="smoke",
        markets={"us": None},
        values={"objective": {"risk_aversion": 3.0}},
        variants={"risk": None},
        folds=StudyFoldsConfig(
            first_test_year=2010, last_test_year=None, test_years=5, validation_years=None, count=2
        ),
        seeds=[0],
        phases=[1, 2],
        impact_coefficient=0.1,
    )
    # years that are null stay those of the market; the count of folds is no year
    assert Recipe.of(study, "mine.yaml", tmp_path) == Recipe(
        experiment="smoke",
        years={"first_test_year": 2010, "test_years": 5},
        variants={"risk": None},
        phases=(1, 2),
        changes={"objective": {"risk_aversion": 3.0}},
        origin="mine.yaml",
        config_dir=tmp_path,
        impact_coefficient=0.1,
    )


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
    with pytest.raises(ConfigError) as refused:
        recipe(years={"first_test_year": 2020}).folds("us", None)
    assert str(refused.value) == (
        "walk_forward of market 'us': expected at least one fold, found tests from 2020 to 2019 "
        "and a count of None; correct the years"
    )
    with pytest.raises(ConfigError, match="a count of 0; correct"):
        recipe().folds("us", 0)


@pytest.mark.parametrize("market", ["us", "nse", "sample"])
def test_a_fold_takes_features_and_baselines_of_the_study(market: str) -> None:
    config = recipe().config(Fold(market, 2008, 2010), "growth", seed=0)
    section = config.walk_forward
    assert config.market_profile.macro_features == section.macro_features
    assert config.evaluation.baselines == section.baselines
    assert config.evaluation.rebalance == section.rebalance
    assert config.objective.kind == "growth"


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


def test_mappings_merge_and_everything_else_is_replaced() -> None:
    first = {"a": {"b": 1, "c": {"d": 2}}, "e": [1], "f": {"g": 3}}
    second = {"a": {"c": {"d": 4}, "h": 5}, "e": [6], "f": None, "i": 7}
    both = {"a": {"b": 1, "c": {"d": 4}, "h": 5}, "e": [6], "f": None, "i": 7}
    assert _merged(first, second) == both
    assert _merged(second, first)["f"] == {"g": 3}


def test_a_market_with_spans_as_shares_has_no_folds() -> None:
    with pytest.raises(ConfigError) as refused:
        recipe().config(Fold("own", 2008, 2010), "risk", seed=0)
    assert str(refused.value) == (
        "walk-forward: the market profile own has spans as shares of the data; expected "
        "`market_profile.spans.train.start`, the first day of every fold"
    )


def test_a_variant_is_an_objective_or_values() -> None:
    calm = {"objective": {"risk_aversion": 8.0}}
    both = recipe(variants={"calm": calm, "growth": calm, "wild": None}, origin="mine.yaml")
    assert both.config(FOLD, "calm", 0).objective.risk_aversion == 8.0
    growth = both.config(FOLD, "growth", 0).objective
    assert (growth.kind, growth.risk_aversion) == ("growth", 8.0)
    with pytest.raises(ConfigError) as refused:
        both.config(FOLD, "wild", 0)
    assert str(refused.value) == (
        "variant wild has no values [mine.yaml]: expected some, or a name that is an objective: "
        "risk, growth"
    )


def test_values_give_the_configuration_that_a_file_of_them_gives(tmp_path: Path) -> None:
    # a study that was begun with files goes on: the hash of a cell is that of its values
    values = {"micro_agent": {"network": {"trade_speed": 0.5}}, "objective": {"kind": "risk"}}
    file = tmp_path / "slow.yaml"
    file.write_text(yaml.safe_dump(values))
    plain = recipe().config(FOLD, "risk", 2).model_dump(include={"market_profile", "evaluation"})
    by_file = load_config(market="us", own_file=file, overrides={**plain, "seed": 2, "threads": 1})
    inline = recipe(variants={"slow": values}).config(FOLD, "slow", 2)
    assert config_hash(inline) == config_hash(by_file)


def test_an_unknown_key_of_a_variant_is_named_with_its_file_and_the_near_one() -> None:
    odd = recipe(variants={"calm": {"objective": {"risk_aversoin": 8.0}}}, origin="mine.yaml")
    with pytest.raises(ConfigError, match=r"did you mean 'risk_aversion'\? \[mine.yaml\]"):
        odd.config(FOLD, "calm", 0)


@pytest.mark.parametrize("section", COMMON)
@pytest.mark.parametrize("variant", ["calm", "risk"])
def test_a_variant_changes_nothing_that_baselines_share(section: str, variant: str) -> None:
    costs = recipe(variants={variant: {section: {"anything": 1}}})
    with pytest.raises(ConfigError, match=f"variant {variant} sets {section} "):
        costs.config(FOLD, variant, 0)


def test_all_that_a_variant_may_not_change_is_named() -> None:
    both = recipe(variants={"calm": {"stress": {"x": 1}, "data": {"x": 1}}}, origin="mine.yaml")
    with pytest.raises(ConfigError) as refused:
        both.config(FOLD, "calm", 0)
    assert str(refused.value) == (
        "variant calm sets data, stress [mine.yaml], which baselines share with all variants; set "
        "it in `values`"
    )


@pytest.mark.parametrize("values", [{"seed": 3}, {"threads": 2}, {"market": "nse"}])
def test_a_variant_sets_nothing_that_the_study_sets(values: dict[str, object]) -> None:
    (name,) = values
    own = recipe(variants={"calm": values}, origin="mine.yaml")
    with pytest.raises(ConfigError) as refused:
        own.config(FOLD, "calm", 0)
    assert str(refused.value) == (
        f"{name} [mine.yaml]: the study sets this itself, from its markets, folds and seeds and "
        "the section `walk_forward`; leave it out"
    )


def test_all_values_that_the_study_sets_are_named_in_their_order() -> None:
    values = {"threads": 2, "walk_forward": {"test_years": 5, "samples": 9}, "seed": 1}
    own = recipe(changes=values, years={"test_years": 3})
    with pytest.raises(ConfigError, match=r"^seed, threads, walk_forward.test_years \["):
        own.base("us")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 3},
        {"threads": 2},
        {"market": "nse"},
        {"evaluation": {"baselines": ["momentum"]}},
        {"evaluation": None},
        {"market_profile": {"macro_features": []}},
        {"market_profile": {"spans": {"test": {"start": date(2012, 1, 1)}}}},
        {"market_profile": {"spans": None}},
        {"walk_forward": {"test_years": 5}},
    ],
)
def test_a_value_that_the_study_sets_itself_is_refused(values: dict[str, object]) -> None:
    (section,) = values
    with pytest.raises(ConfigError, match=f"{section}.*the study sets this itself"):
        recipe(changes=values, years={"test_years": 3}).config(FOLD, "risk", 0)


def test_values_reach_the_section_of_the_walk_forward_and_the_first_day() -> None:
    values = {
        "walk_forward": {"samples": 50, "baselines": ["equal_weight"]},
        "market_profile": {"spans": {"train": {"start": date(2002, 1, 1)}}},
    }
    found = recipe(changes=values, years={"test_years": 1})
    section = found.base("us").walk_forward
    assert (section.samples, section.test_years) == (50, 1)
    config = found.config(FOLD, "risk", 0)
    assert config.evaluation.baselines == ["equal_weight"]
    assert config.market_profile.spans.train.start == date(2002, 1, 1)
