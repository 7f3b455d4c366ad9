"""Ledgers add up to the sessions, and the figures are strict JSON."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.contracts import REGIME_NAMES, Regime
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.report import write_backtest
from hrl_sarp.evaluation.report.files import daily_ledger, stock_ledger


def test_files_are_written_and_strict(result: BacktestResult, tmp_path: Path) -> None:
    write_backtest(result, tmp_path / "backtest")
    assert sorted(path.name for path in (tmp_path / "backtest").iterdir()) == [
        "daily.parquet",
        "ledger.parquet",
        "metrics.json",
        "report.html",
    ]
    text = (tmp_path / "backtest" / "metrics.json").read_text()

    def refuse(token: str) -> None:
        raise AssertionError(token)

    document = json.loads(text, parse_constant=refuse)
    assert document["headline_policy"] == "own"
    assert document["provenance"]["trials"] == 50
    assert set(document["performances"]) == set(result.main.names)


def test_stock_ledger_adds_up_to_the_sessions(result: BacktestResult) -> None:
    costs = result.config.market_profile.costs
    ledger = stock_ledger(result.main, result.market, costs)
    own = result.main.names.index("own")
    sums = (
        ledger.filter(pl.col("policy") == "own")
        .group_by("date", maintain_order=True)
        .agg(pl.col("cost").sum(), pl.col("traded").abs().sum(), pl.col("weight").sum())
    )
    np.testing.assert_allclose(sums["cost"], result.main.cost[:, own], atol=1e-15)
    np.testing.assert_allclose(sums["traded"] / 2, result.main.turnover[:, own], atol=1e-12)
    np.testing.assert_allclose(sums["weight"], result.main.weights_after[:, own].sum(axis=1))
    # rates by hand: 13 bps of purchases, 9 bps of sales
    by_rate = np.where(ledger["traded"] > 0, 13e-4, -9e-4) * ledger["traded"].to_numpy()
    np.testing.assert_allclose(ledger["cost"].to_numpy(), by_rate, atol=1e-12)


def test_net_return_follows_from_the_stock_ledger(result: BacktestResult) -> None:
    ledger = stock_ledger(result.main, result.market, result.config.market_profile.costs)
    own = result.main.names.index("own")
    day = ledger.filter((pl.col("policy") == "own") & (pl.col("date") == result.main.dates[1]))
    # the second session: nights earn on the drifted first portfolio, days on the traded weights
    first = ledger.filter((pl.col("policy") == "own") & (pl.col("date") == result.main.dates[0]))
    first = first.filter(pl.col("weight") > 0)
    closing = first["weight"] * (1 + first["intraday_return"])
    held = closing / (1 + (first["weight"] * first["intraday_return"]).sum())
    night_of = dict(zip(day["symbol"], day["overnight_return"], strict=True))
    row = int(np.searchsorted(result.market.dates, result.main.dates[1]))
    cash = result.market.risk_free[row] * (1 - held.sum())
    night = sum(w * night_of[s] for s, w in zip(first["symbol"], held, strict=True)) + cash
    session = (day["weight"] * day["intraday_return"]).sum()
    net = (1 + night) * (1 - day["cost"].sum()) * (1 + session) - 1
    assert net == pytest.approx(result.main.net_return[1, own], abs=1e-12)


def test_daily_ledger_keeps_goals_and_marks_their_absence(result: BacktestResult) -> None:
    daily = daily_ledger(result)
    own = daily.filter(pl.col("policy") == "own")
    regime = f"goal/{REGIME_NAMES[result.config.objective.kind][Regime.BULL]}"
    assert own[regime].unique().to_list() == pytest.approx([0.5])
    assert daily.filter(pl.col("policy") == "1/N")[regime].null_count() == own.height
    np.testing.assert_array_equal(own["net_return"], result.main.net_return[:, -1])
