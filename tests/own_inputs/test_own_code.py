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
from hrl_sarp.errors import ConfigError, FeatureError, HrlSarpError, OwnCodeError, SimulatorError
from hrl_sarp.evaluation.own_policy import (
    FunctionPolicy,
    PastView,
    configured_policies,
    require_configured,
)
from hrl_sarp.features.macro import MacroSources
from hrl_sarp.features.stock import stock_feature
from hrl_sarp.market.own.causality import require_causal
from hrl_sarp.training import run_phase
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

def leaves(*given):
    raise SystemExit(3)

def says(panel):
    print("many words")
    return panel.log_return

def masked(panel):
    return np.ma.masked_array(np.ones(panel.log_return.shape), mask=panel.log_return < 0)

def complex_numbers(panel):
    return panel.log_return * 1j

def writes_a_field(panel):
    panel.overnight_return[:] = 0.0
    return panel.log_return

def writes_a_table(panel):
    value = panel.log_return
    value *= 2.0
    return value

def writes_a_flag(panel):
    panel.tradable[0] = False
    return panel.log_return

def writes_a_series(sources):
    sources.index_return[0] = 1.0
    return sources.index_return

def writes_the_result(result, tensors):
    result.net_return.zero_()
    result.cost.add_(1.0)
    return 0.0 * result.turnover

def of_text(panel):
    return panel.log_return

of_text.columns = "close"

def of_words(panel):
    return panel.log_return

of_words.lookback_days = "many"

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
        ("leaves", "leaves failed with SystemExit: 3"),
        ("complex_numbers", "expected an array of numbers, found ndarray"),
        ("writes_a_field", "read-only"),
        ("writes_a_flag", "read-only"),
        ("of_words", "whole number of sessions as its lookback_days, found 'many'"),
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


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("module", r"\(was"),
        ("module:", r"\(was"),
        (":function", r"\(was"),
        ("a b:c", r"\(was"),
        ("module:f()", r"\(was"),
        ("module.function", "; write 'module:function'"),
        ("a.module.function", "; write 'a.module:function'"),
    ],
)
def test_a_name_of_another_form_is_refused_in_words(name: str, cure: str) -> None:
    said = rf"rewards\.extra: expected package\.module:function, a colon .* function ?{cure}"
    with pytest.raises(HrlSarpError, match=said):
        load_config(overrides={"rewards": {"extra": name}})


def test_a_misspelt_function_has_its_near_one_named(module: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{module}:whole_mean'"):
        load_function(f"{module}:whole_maen", "rewards.extra")


OWN_CODE = {
    "rewards": lambda name: {"rewards": {"extra": name}},
    "extra_baselines": lambda name: {"evaluation": {"extra_baselines": [name]}},
    "extra_policies": lambda name: {"evaluation": {"extra_policies": [name]}},
}


@pytest.mark.parametrize("name", ["{0}:broken", "{0}:short", "{0}:words", "{0}:absent", "no.way:f"])
@pytest.mark.parametrize("key", OWN_CODE)
def test_what_an_own_function_cannot_do_is_said_before_phase_1(
    key: str, name: str, module: str, tmp_path: Path
) -> None:
    market = tiny_runs.tiny_market()
    config = tiny_runs.tiny_config(**OWN_CODE[key](name.format(module)))
    context = tiny_runs.context_of(market, config, tmp_path / "logs")

    def begin() -> None:
        require_configured(market, config, "test")
        run_phase(1, context)

    with pytest.raises(HrlSarpError) as refused:
        begin()
    assert "\n" not in str(refused.value)
    assert name.split(":")[1] in str(refused.value)
    assert not any(path.is_dir() for path in (tmp_path / "logs").iterdir())


def test_a_reward_that_is_no_number_is_named(module: str) -> None:
    with pytest.raises(OwnCodeError, match="expected a tensor of 2 finite numbers, found nan"):
        step_of("micro", f"{module}:not_finite")


@pytest.mark.parametrize("warm", [False, True])
def test_a_function_cannot_change_what_others_read(module: str, *, warm: bool) -> None:
    given, expected = sources(), sources().panel.log_return
    if warm:  # computed before the function asks for it
        np.testing.assert_array_equal(given.panel.log_return, expected)
    for name in ("writes_a_table", "writes_a_field", "writes_a_flag"):
        try:
            require_causal(given, [f"{module}:{name}"], [])
        except OwnCodeError as refused:
            assert "read-only" in str(refused)  # noqa: PT017 -- either it is refused or harmless
    with pytest.raises(OwnCodeError, match="read-only"):
        require_causal(given, [], [f"{module}:writes_a_series"])
    np.testing.assert_array_equal(given.panel.log_return, expected)
    assert given.panel.tradable.all()


@pytest.mark.parametrize("level", ["macro", "micro"])
def test_a_reward_term_cannot_change_the_session(level: str, module: str) -> None:
    plain, more = step_of(level, None), step_of(level, f"{module}:writes_the_result")
    torch.testing.assert_close(more.reward, plain.reward)
    torch.testing.assert_close(more.terms["cost"], plain.terms["cost"])


def test_what_a_function_prints_stays_out_of_the_output(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    require_causal(sources(), [f"{module}:says"], [])
    out, err = capsys.readouterr()
    assert out == ""
    assert "many words" in err


def test_masked_values_are_missing_and_one_column_may_be_a_text(module: str) -> None:
    panel = sources().panel
    feature = stock_feature(f"{module}:masked", panel.columns)
    np.testing.assert_array_equal(np.isnan(feature.compute(panel)), panel.log_return < 0)
    assert stock_feature(f"{module}:of_text", panel.columns).columns == {"close"}


def test_a_module_that_leaves_when_it_is_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script_of_mine.py").write_text("import sys\nprint('usage')\nsys.exit(2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot import script_of_mine .*SystemExit: 2"):
        load_function("script_of_mine:f", "rewards.extra")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.ma.masked_array(np.zeros(15), mask=np.arange(15) == 3), "the weight nan for"),
        (np.zeros(15) * 1j, "returned ndarray, which is no array of numbers"),
    ],
)
def test_weights_that_are_masked_or_complex_are_refused(weights: Any, said: str) -> None:
    market = tiny_runs.tiny_market()
    view = PastView(market, 120, np.zeros(15), is_first=True)
    with pytest.raises(SimulatorError, match=said):
        FunctionPolicy(lambda view: weights, "mine").ask(view)
