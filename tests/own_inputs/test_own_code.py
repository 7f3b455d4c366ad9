"""Functions that a configuration names: found, called, checked, and refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples import own_code
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.own_code import load_function
from hrl_sarp.envs import make_level
from hrl_sarp.errors import ConfigError, FeatureError, HrlSarpError, OwnCodeError
from hrl_sarp.evaluation.own_policy import configured_policies
from hrl_sarp.features.macro import MacroSources
from hrl_sarp.market.own.causality import require_causal
from tests import tiny_runs
from tests.own_inputs.test_own_features import panel_of

MODULE = """
import numpy as np
import torch

def ahead(panel):
    value = np.full(panel.log_return.shape, np.nan)
    value[:-1] = panel.log_return[1:]
    return value

def whole_mean(panel):
    return np.nan_to_num(panel.log_return) - np.nan_to_num(panel.log_return).mean(axis=0)

def past(panel):
    return np.cumsum(np.nan_to_num(panel.log_return), axis=0)

def broken(*given):
    return 1 / 0

def short(*given):
    return np.zeros(3)

def words(*given):
    return "many"

def series_ahead(sources):
    return np.roll(sources.index_return, -1)

def cost_again(result, tensors):
    return -100.0 * result.cost

def not_finite(result, tensors):
    return result.cost * float("nan")

not_callable = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working folder, under a name of its own for each test."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def sources() -> MacroSources:
    panel = panel_of(np.random.default_rng(0).normal(0.0, 0.02, (120, 3)))
    return MacroSources(panel, panel.market_return, np.full((120, 3), 1 / 3), {})


@pytest.mark.parametrize("name", ["ahead", "whole_mean"])
def test_a_function_that_reads_the_future_is_refused_with_the_day(name: str, module: str) -> None:
    with pytest.raises(FeatureError, match=rf"look ahead: {module}:{name}: the value of 20") as no:
        require_causal(sources(), [f"{module}:{name}"], [])
    assert "\n" not in str(no.value)


def test_a_function_of_the_market_that_reads_the_future_is_refused(module: str) -> None:
    with pytest.raises(FeatureError, match="series_ahead: the value of"):
        require_causal(sources(), [], [f"{module}:series_ahead"])


def test_functions_of_the_past_pass(module: str) -> None:
    require_causal(
        sources(),
        [f"{module}:past", "examples.own_code:up_days"],
        ["examples.own_code:bear_change"],
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "broken failed with ZeroDivisionError: division by zero"),
        ("short", r"expected an array of shape \(120, 3\), found \(3,\)"),
        ("words", "expected an array of numbers, found str"),
    ],
)
def test_a_function_that_fails_is_one_line(name: str, said: str, module: str) -> None:
    with pytest.raises(OwnCodeError, match=said) as refused:
        require_causal(sources(), [f"{module}:{name}"], [])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.at_all:f", "cannot import nowhere.at_all"),
        ("{module}:missing", "expected the function missing in .*found ahead, broken"),
        ("{module}:not_callable", "expected the function not_callable"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(name: str, said: str, module: str) -> None:
    with pytest.raises(ConfigError, match=rf"rewards\.extra: .*{said}") as refused:
        load_function(name.format(module=module), "rewards.extra")
    assert "\n" not in str(refused.value)


def step_of(level: Any, extra: str | None) -> Any:
    config = tiny_runs.tiny_config(rewards={"extra": extra})
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    made = make_level(tensors, config, level, 2)
    made.reset(torch.tensor([60, 65]), torch.ones(2, dtype=torch.bool))
    size = made.action_space.shape[0]
    return made.step(torch.full((2, size), 1 / size, dtype=tensors.dtype))


@pytest.mark.parametrize("level", ["macro", "micro"])
def test_a_reward_term_is_added_session_by_session(level: str, module: str) -> None:
    plain, more = step_of(level, None), step_of(level, f"{module}:cost_again")
    assert float(plain.terms["cost"].min()) > 0
    torch.testing.assert_close(more.reward, plain.reward - 100.0 * plain.terms["cost"])


@pytest.mark.parametrize("name", ["broken", "short", "not_finite", "words"])
def test_a_reward_term_that_cannot_be_meant_is_refused(name: str, module: str) -> None:
    with pytest.raises(OwnCodeError, match=name):
        step_of("micro", f"{module}:{name}")


def test_baselines_and_policies_are_functions_of_the_past(module: str) -> None:
    names = ["examples.own_code:calm", f"{module}:broken"]
    calm, broken = configured_policies(names, "evaluation.extra_policies")
    assert (calm.name, broken.name) == ("calm", "broken")
    with pytest.raises(OwnCodeError, match="ZeroDivisionError"):
        broken.function(None)  # type: ignore[attr-defined]


def test_the_example_names_its_own_functions(repository: Path) -> None:
    path = repository / "examples" / "own_code.yaml"
    config = load_config(own_file=path)
    profile = config.market_profile
    names = [
        *profile.extra_stock_features,
        *profile.extra_macro_features,
        config.rewards.extra,
        *config.evaluation.extra_baselines,
    ]
    assert [load_function(str(name), "any") for name in names] == [
        own_code.up_days,
        own_code.bear_change,
        own_code.less_trading,
        own_code.calm,
    ]


@pytest.mark.parametrize("name", ["module", "module:", ":function", "a b:c", "module:f()"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(HrlSarpError, match=r"rewards\.extra: String should match pattern"):
        load_config(overrides={"rewards": {"extra": name}})
