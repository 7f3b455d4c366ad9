"""The file of a search: what may be tried, and what is refused before the first trial."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hrl_sarp.config.loading import (
    DEFAULT_CONFIG_DIR,
    TUNING,
    config_hash,
    load_apart,
    load_config,
)
from hrl_sarp.config.study_schema import TuningConfig
from hrl_sarp.errors import ConfigError
from hrl_sarp.studies.tuning.space import as_label, choice_of, require_search
from tests.studies.tuning.small_search import PLAIN, RATE, space

CONFIG = load_config(market="us")
FLOAT = {"low": 0.1, "high": 0.2, "log": False}
INNER = PLAIN["inner"]


def refusal(tuning: TuningConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        require_search(tuning, CONFIG, "mine.yaml")
    return str(caught.value)


def test_the_shipped_space_fits_the_configuration() -> None:
    shipped = load_apart(DEFAULT_CONFIG_DIR / TUNING, TuningConfig, "the search space")
    require_search(shipped, CONFIG, TUNING)


def test_it_is_no_value_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    for path in DEFAULT_CONFIG_DIR.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    (folder / "markets").mkdir()
    profile = DEFAULT_CONFIG_DIR / "markets" / "us.yaml"
    (folder / "markets" / "us.yaml").write_text(profile.read_text())
    before = config_hash(load_config(folder, "us"))
    (folder / TUNING).write_text("startup_trials: 3\n")
    assert config_hash(load_config(folder, "us")) == before == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"floats": {RATE: {**FLOAT, "lwo": 1.0}}}, r"unknown key; did you mean 'low'"),
        ({"floats": {RATE: {"low": 0.1, "high": 0.2}}}, r"log: required key is missing"),
        ({"floats": {RATE: {**FLOAT, "high": 0.1}}}, "expected low below high"),
        ({"floats": {RATE: {**FLOAT, "low": 0.0, "log": True}}}, "expected low above 0"),
        ({"ints": {RATE: {"low": 1.5, "high": 3, "log": False}}}, r"ints.*low: .*integer"),
        ({"choices": {RATE: [0.1]}}, "at least 2"),
        ({"choices": {RATE: [0.1, 0.2]}}, f"expected each key once, found {RATE} twice"),
        ({"floats": {}, "ints": {}, "choices": {}}, "expected at least one key"),
        ({"inner": {**INNER, "folds": 1, "seeds": 1}}, "at least two trainings"),
        ({"inner": {**INNER, "folds": 0}}, "at least two trainings"),
        ({"float": {}}, "float: unknown key; did you mean 'floats'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    with pytest.raises(ConfigError, match=told):
        load_apart(path, TuningConfig, "the search space")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (
            "macro_agent.gradient.learning_rte",
            "no value of the configuration; did you mean 'macro_agent.gradient.learning_rate'?",
        ),
        ("macro_agent.gradient", "no value of the configuration"),
        ("risk.min_cash", "trials share it"),
        ("market_profile.costs.buy_bps", "trials share it"),
        ("curriculum.acceptance.confidence", "trials share it"),
        ("curriculum.certification.length", "trials share it"),
    ],
)
def test_a_key_that_cannot_be_tuned_is_refused(key: str, told: str) -> None:
    message = refusal(space(floats={key: FLOAT}, ints={}, choices={}))
    assert f"{key}: {told}" in message
    assert "mine.yaml" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # each end is laid over the configuration alone
        (
            {"floats": {"macro_agent.network.dropout": {**FLOAT, "high": 1.5}}},
            ("macro_agent.network.dropout", "1.5"),
        ),
        (
            {"floats": {"macro_agent.network.hidden": FLOAT}},
            ("macro_agent.network.hidden", "integer"),
        ),
        (
            {"floats": {}, "choices": {"macro_agent.graph.layer": ["gcn", "gta"]}},
            ("macro_agent.graph.layer", "'gta'"),
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    message = refusal(space(**{"ints": {}, "choices": {}, **changes}))
    assert all(word in message for word in words), message


def test_choices_of_any_kind_are_found_again() -> None:
    choices: list[Any] = [True, 1, 0.5, None, "gat", [0.0, 1.0], {"a": 1}]
    found = [choice_of(as_label(value), choices) for value in choices]
    assert found == choices
    assert [type(value) for value in found] == [type(value) for value in choices]
