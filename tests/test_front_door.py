"""The four functions that most users need, tried as the README shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from loguru import logger

import hrl_sarp
from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market
from hrl_sarp.errors import HrlSarpError, MarketError, MissingArtifactError, SimulatorError
from hrl_sarp.evaluation import Decision, DecisionView
from hrl_sarp.evaluation.own_policy import FunctionPolicy, PastView
from tests import tiny_runs

FEW = {"bootstrap_samples": 50, "random_portfolios": 2, "baselines": ["inverse_volatility"]}


@pytest.fixture(scope="module")
def sample() -> Market:
    return hrl_sarp.load_market()


@pytest.fixture(scope="module")
def config() -> Any:
    return load_config(market="sample", overrides={"evaluation": FEW})


def equal(view: PastView) -> np.ndarray:
    return view.usable / view.usable.sum()


def test_a_function_earns_what_the_baseline_of_the_same_rule_earns(
    sample: Market, config: Any, tmp_path: Path
) -> None:
    def monthly(view: PastView) -> Any:
        months = sample.dates[[view.row - 1, view.row]].astype("datetime64[M]")
        return equal(view) if view.is_first or months[0] != months[1] else None

    assert config.evaluation.rebalance == "monthly"
    found = hrl_sarp.backtest(monthly, sample, config, span="validation")
    names, returns = found.trajectory.names, found.trajectory.net_return
    mine, baseline = names.index("monthly"), names.index("1/N")
    np.testing.assert_allclose(returns[:, mine], returns[:, baseline], atol=1e-12)
    assert "monthly" in str(found)
    page = found.write_report(tmp_path / "report")
    assert "monthly" in page.read_text(encoding="utf-8")


def test_a_view_serves_the_past_alone_and_cannot_be_written_to(sample: Market) -> None:
    view = PastView(sample, 300, np.zeros(sample.n_assets), is_first=False)
    returns = view.past_returns(3)
    assert returns.shape == (3, sample.n_assets)
    last = (1 + sample.overnight_return[300]) * (1 + sample.intraday_return[300]) - 1
    np.testing.assert_allclose(returns[-1], last)
    for served in (returns, view.usable, view.feature(sample.feature_names[0])):
        with pytest.raises(ValueError, match="read-only"):
            served[...] = 0


def test_what_a_function_may_not_return_is_refused_with_day_and_reason(
    sample: Market, config: Any
) -> None:
    cases: dict[str, Any] = {
        "one for each of": lambda view: np.ones(3),
        "the weight nan for": lambda view: np.full(20, np.nan),
        "the weight -1.0 for": lambda view: -np.ones(20),
        "unknown symbols XYZ": lambda view: {"XYZ": 1.0},
        "two weights for one symbol": lambda view: pd.Series([0.1, 0.1], view.symbols[:1] * 2),
        "str, which is no array of numbers": lambda view: "all",
        "1 or more, found 0": lambda view: view.past_returns(0),
    }
    for reason, function in cases.items():
        with pytest.raises(SimulatorError, match=reason) as refusal:
            hrl_sarp.backtest(FunctionPolicy(function, "mine"), sample, config, "validation")
        told = [str(refusal.value), *getattr(refusal.value, "__notes__", [])]
        assert any("'mine' at the close of 2015" in line for line in told)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "NoneType, not a Decision"),
        ({"AAPL": 1.0}, "dict, not a Decision"),
        (Decision(np.full(55, np.nan)), "slot weights that are not finite"),
        (Decision(np.full(55, np.inf)), "slot weights that are not finite"),
    ],
)
def test_what_an_object_may_not_return_is_refused_with_day_and_reason(
    sample: Market, config: Any, answer: Any, reason: str
) -> None:
    class Mine:
        name = "mine"

        def decide(self, view: DecisionView) -> Any:
            return answer

    with pytest.raises(SimulatorError, match=f"'mine' at the close of 2015.* returned {reason}"):
        hrl_sarp.backtest(Mine(), sample, config, "validation")


def test_an_unknown_feature_is_refused_with_those_that_are_there(sample: Market) -> None:
    view = PastView(sample, 300, np.zeros(sample.n_assets), is_first=False)
    with pytest.raises(
        MarketError, match=f"no feature 'luck'; there are: {sample.feature_names[0]}"
    ):
        view.feature("luck")


def test_the_bundled_sample_refuses_embeddings_that_it_does_not_have() -> None:
    config = load_config(market="sample", overrides={"encoders": {"observe": "jade"}})
    with pytest.raises(MarketError, match=r"encoders\.observe is 'jade'"):
        hrl_sarp.load_market(config=config)


def test_an_error_inside_a_function_names_policy_and_day(sample: Market, config: Any) -> None:
    with pytest.raises(ZeroDivisionError) as problem:
        hrl_sarp.backtest(FunctionPolicy(lambda view: 1 / 0, "mine"), sample, config, "validation")
    assert "in policy 'mine' at the close of 2015" in problem.value.__notes__[0]


def test_weights_with_an_index_go_by_symbol_in_any_order(sample: Market, config: Any) -> None:
    ordered = {symbol: (0.05 if at < 3 else 0.0) for at, symbol in enumerate(sample.symbols)}
    turned = pd.Series(dict(reversed(ordered.items())))
    found = hrl_sarp.backtest(
        [
            FunctionPolicy(lambda view: ordered, "by name"),
            FunctionPolicy(lambda _: turned, "series"),
        ],
        sample,
        config,
        "validation",
    )
    returns = found.trajectory.net_return
    first, second = (found.trajectory.names.index(name) for name in ("by name", "series"))
    np.testing.assert_array_equal(returns[:, first], returns[:, second])


def test_a_policy_that_never_trades_is_named(
    sample: Market, config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING")
    found = hrl_sarp.backtest(
        FunctionPolicy(lambda view: None, "forgot"), sample, config, "validation"
    )
    logger.remove(sink)
    assert any("forgot never traded" in line for line in told)
    assert repr(found) == "<Backtest of forgot on the validation span>"
    with pytest.raises(HrlSarpError, match="name a folder"):
        found.write_report(Path(__file__))


def test_a_weight_by_symbol_is_the_weight_of_that_stock(sample: Market, config: Any) -> None:
    symbol = sample.symbols[int(np.flatnonzero(sample.eligible[sample.split.validation.start])[0])]
    found = hrl_sarp.backtest(
        FunctionPolicy(lambda view: {symbol: 0.05} if view.is_first else None, "one"),
        sample,
        config,
        "validation",
    )
    column = found.trajectory.names.index("one")
    held = found.trajectory.weights_after[0, column]
    assert held[sample.symbols.index(symbol)] == pytest.approx(0.05)
    assert held.sum() == pytest.approx(0.05)


def test_other_things_are_refused_in_one_line(sample: Market, config: Any, tmp_path: Path) -> None:
    with pytest.raises(HrlSarpError, match="span must be"):
        hrl_sarp.backtest(equal, sample, config, span="tomorrow")
    with pytest.raises(SimulatorError, match=r"docs/your_policy\.md"):
        hrl_sarp.backtest(3, sample, config)  # type: ignore[arg-type]  # what a user may try
    with pytest.raises(HrlSarpError, match=r"backtest\(policy, market\)"):
        hrl_sarp.backtest(sample, equal)  # type: ignore[arg-type]  # what a user may try
    with pytest.raises(SimulatorError, match=r"hand in FunctionPolicy\(\)"):
        hrl_sarp.backtest(FunctionPolicy, sample, config)
    with pytest.raises(MissingArtifactError, match="hrl-sarp train"):
        hrl_sarp.load_agents(tmp_path, sample)
    with pytest.raises(MarketError, match="folder of its collected data"):
        hrl_sarp.load_market(market="us")


def test_agents_are_trained_loaded_and_backtested(tmp_path: Path) -> None:
    market, config = tiny_runs.tiny_market(), tiny_runs.tiny_config(evaluation=FEW)
    trained = hrl_sarp.train(market, config, tmp_path)
    loaded = hrl_sarp.load_agents(tmp_path, market, config)
    first, second = (
        hrl_sarp.backtest(policy, market, config).trajectory for policy in (trained, loaded)
    )
    assert trained.name == "certified"
    np.testing.assert_array_equal(first.net_return, second.net_return)
