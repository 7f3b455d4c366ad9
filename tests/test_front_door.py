"""The four functions that most users need, tried as the README shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from loguru import logger

import hrl_sarp
from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market
from hrl_sarp.errors import (
    HrlSarpError,
    MarketError,
    MetricError,
    MissingArtifactError,
    SimulatorError,
)
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
    sample: Market, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    for width in (60, 80, 100, 140):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(map(len, str(found).splitlines())) <= width
    page = found.report(tmp_path / "report")
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
        found.report(Path(__file__))


@pytest.mark.parametrize("is_daily", [True, False])
@pytest.mark.parametrize(
    ("n_stocks", "share", "moved", "invested"),
    [
        (3, 1 / 3, 0.68, 0.3),  # three caps of 10 % hold 30 of the 98 % that may be invested
        (1, 0.5, 0.4, 0.1),
        (2, 0.1, 0.0, 0.2),  # at its caps and within them
        (20, 0.05, 0.0, 0.98),
    ],
)
def test_a_policy_that_limits_cut_is_named_with_what_they_did(
    sample: Market,
    config: Any,
    is_daily: bool,  # noqa: FBT001 -- a parameter of the test
    n_stocks: int,
    share: float,
    moved: float,
    invested: float,
) -> None:
    told: list[str] = []
    sink = logger.add(told.append, level="WARNING", format="{message}")
    found = hrl_sarp.backtest(
        FunctionPolicy(
            lambda view: (
                share * (np.arange(20) < n_stocks) * view.usable
                if is_daily or view.is_first
                else None
            ),
            "mine",
        ),
        sample,
        config,
        "validation",
    )
    logger.remove(sink)
    mine = found.summary().row(by_predicate=pl.col("policy") == "mine", named=True)
    assert mine["moved_by_limits"] == pytest.approx(moved, abs=1e-9)
    assert mine["exposure"] == pytest.approx(invested, abs=2e-3 if is_daily else 0.2)
    n = len(found.trajectory.dates)
    n = n if is_daily else 1
    counted = f"{n:,} of {n:,} sessions with orders"
    cut = f"Limits of mine: the stock cap of 10 % bound in {counted}; limits put"
    assert any(line.startswith(f"{cut} {100 * moved:.1f} % of wealth") for line in told) == (
        moved > 0
    )


def test_the_tables_of_a_result_agree_with_its_ledger(sample: Market, config: Any) -> None:
    found = hrl_sarp.backtest(equal, sample, config, "validation")
    ledger = found.trajectory
    mine = ledger.names.index("equal")
    assert found.summary()["policy"][0] == "equal"
    row = found.summary().row(0, named=True)
    growth = np.prod(1 + ledger.net_return[:, mine]) ** (252 / len(ledger.dates)) - 1
    assert row["annual_return"] == pytest.approx(growth)
    assert row["sharpe_low"] <= row["sharpe"] <= row["sharpe_high"]
    held = found.holdings().group_by("date").agg(pl.col("weight").sum()).sort("date")
    np.testing.assert_allclose(held["weight"], ledger.weights_after[:, mine].sum(axis=1))
    assert set(found.holdings("1/N")["policy"]) == {"1/N"}
    days = found.daily().filter(policy="equal")
    np.testing.assert_array_equal(days["wealth"], ledger.wealth[:, mine])
    assert len(found.plot().axes) == 2
    with pytest.raises(MetricError, match=r"no policy 'mine' .*found index, 1/N"):
        found.holdings("mine")


def test_no_row_s_deflated_sharpe_depends_on_which_baselines_are_shown(
    sample: Market, tmp_path: Path
) -> None:
    seen: dict[str, set[float]] = {}
    for at, baselines in enumerate([[], ["momentum"], ["momentum", "inverse_volatility"]]):
        few = load_config(
            market="sample", overrides={"evaluation": {**FEW, "baselines": baselines}}
        )
        log = tmp_path / f"{at}.jsonl"
        found = hrl_sarp.backtest(equal, sample, few, "validation", trial_log=log).summary()
        assert set(found["configurations"]) == {1}
        for name, ratio in found.select("policy", "deflated_sharpe").iter_rows():
            seen.setdefault(name, set()).add(round(ratio, 12))
    assert {name: len(ratios) for name, ratios in seen.items() if len(ratios) > 1} == {}
    assert "12-1 momentum" in seen


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
