"""Evenings of a scheduler with data of Yahoo, through the commands: no test has a network.

Answers have the form of Yahoo's chart endpoint and are parsed by yfinance: prices divided by later
splits, adjusted closes of the day of the download.
"""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.data import collect as collecting
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import RawData, read_manifest, read_raw
from hrl_sarp.data.update import folder as updating
from hrl_sarp.run.files import sha256_plain
from tests.command_line import Command, Result
from tests.daily.conftest import HISTORY_DAYS, N_DAYS, QUIET
from tests.data.sources.yahoo.yahoo_replay import ReplayingSession, chart, replay_link
from tests.raw_data import random_raw, sessions, small_config
from tests.tiny_runs import TINY

DAYS = [day.item() for day in sessions(N_DAYS)]
SERIES = {"^SP500TR": 0, "^VIX": 1, "^IRX": 2, "DX-Y.NYB": 3, "CL=F": 4, "GC=F": 5}
RESTATED, CORRECTED = "A0", "B1"
CENTS = ("open", "high", "low", "close")


def answers(raw: RawData, evening: date) -> dict[str, Any]:
    """Return what Yahoo answers on an evening, by ticker."""
    known = raw.bars.filter(pl.col("date") <= evening)
    found = {
        symbol: stock_chart(symbol, bars)
        for (symbol,), bars in known.partition_by("symbol", as_dict=True).items()
    }
    days = [day for day in DAYS if day <= evening]
    for ticker, number in SERIES.items():
        rng = np.random.default_rng(number)
        level = 20.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, N_DAYS)))
        rows = [(day, *[value] * 5, 0) for day, value in zip(days, level, strict=False)]
        found[ticker] = chart(ticker, rows)
    return found


def stock_chart(symbol: str, bars: pl.DataFrame) -> dict[str, Any]:
    """Print bars as Yahoo does after their last day."""
    later = np.append(np.cumprod(bars["split"].to_numpy()[::-1])[::-1][1:], 1.0)
    adjusted = bars["adj_close"] / bars["adj_close"][-1] * bars["close"][-1]
    columns = [bars[name] / later for name in CENTS]
    rows = zip(bars["date"], *columns, adjusted, bars["volume"] * later, strict=True)
    paid = bars.with_columns(dividend=pl.col("dividend") / later).filter(pl.col("dividend") > 0)
    splits = bars.filter(pl.col("split") != 1.0).select("date", "split").iter_rows()
    return chart(
        symbol,
        rows,
        {day: (int(new), 1) for day, new in splits},
        dict(paid.select("date", "dividend").iter_rows()),
    )


def changed(raw: RawData, symbol: str, row: int, column: str, factor: float) -> RawData:
    """Print one number otherwise."""
    is_own = (pl.col("symbol") == symbol) & (pl.col("date") == DAYS[row])
    value = pl.when(is_own).then(pl.col(column) * factor).otherwise(column).alias(column)
    return RawData(**{**vars(raw), "bars": raw.bars.with_columns(value)})


class Evenings:
    """A folder of data of Yahoo, a run trained on it, and an account."""

    def __init__(self, folder: Path, command: Command, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.raw = folder, random_raw(np.random.default_rng(4), N_DAYS)
        self.data_dir, self.log_dir = folder / "data" / "raw", folder / "logs"
        self.account, self._command, self._patch = folder / "paper.sqlite", command, patch
        config = small_config("us", N_DAYS).market_profile
        profile = config.model_dump(mode="json", include={"sectors", "universe"})
        profile["spans"] = config.spans.model_dump()
        (folder / "tiny.yaml").write_text(yaml.safe_dump({"market_profile": profile, **TINY}))
        (folder / "daily.yaml").write_text(yaml.safe_dump(QUIET.model_dump(mode="json")))
        rows = (f"{symbol},{sector}" for symbol, sector in self.raw.sectors.iter_rows())
        (folder / "symbols.csv").write_text("\n".join(["symbol,sector", *rows]))
        self.options = ("--data-dir", self.data_dir, "--experiment", "yahoo_us")
        self.options += ("--config", folder / "tiny.yaml")
        self.settings = ("--settings", folder / "daily.yaml")

    def serve(self, raw: RawData, row: int) -> None:
        """Let Yahoo answer as on the evening of a session."""
        session = ReplayingSession(answers(raw, DAYS[row]))
        for module in (collecting, updating):
            self._patch.setattr(module, "live_link", lambda _: replay_link(session, []))

    def run(self, *arguments: object, code: int = 0) -> Result:
        result = self._command(*arguments)
        assert result[0] == code, result[2]
        return result

    def collect(self, row: int, data_dir: Path | None = None) -> None:
        self.serve(self.raw, row)
        span = ("--start", DAYS[0], "--end", DAYS[row], "--symbols", self.folder / "symbols.csv")
        options = (*self.options, "--data-dir", data_dir or self.data_dir)
        self.run("collect-data", "--source", "yahoo", *span, *options)

    def update(self, raw: RawData, row: int, *more: object, code: int = 0) -> dict[str, Any]:
        self.serve(raw, row)
        given = ("--symbols", self.folder / "symbols.csv", "--end", DAYS[row], *self.settings)
        _, out, err = self.run("update-data", *given, *self.options, "--json", *more, code=code)
        found: dict[str, Any] = json.loads(out)
        return {**found, "err": err}

    def decide(self, row: int, data_dir: Path | None = None) -> dict[str, Any]:
        given = ("--account", self.account, "--as-of", DAYS[row], *self.settings)
        there = ("--data-dir", data_dir or self.data_dir, "--output", self.folder / "decisions")
        out = self.run("decide", *given, *there, "--overwrite", "--json")[1]
        found: dict[str, Any] = json.loads(out)
        return found

    def paper(self, name: str, *options: object) -> dict[str, Any]:
        given = ("--account", self.account, "--data-dir", self.data_dir, *self.settings)
        found: dict[str, Any] = json.loads(self.run("paper", name, *given, *options, "--json")[1])
        return found


@pytest.fixture
def evenings(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Evenings]:
    """Collect, train and open an account."""
    live_link(tmp_path)

    def begin() -> Evenings:
        found, last = Evenings(tmp_path, command, monkeypatch), HISTORY_DAYS - 1
        found.collect(last)
        for phase in (1, 2):
            found.run("train", "--phase", phase, *found.options, "--log-dir", found.log_dir)
        found.paper("init", "--log-dir", found.log_dir, "--start", DAYS[last])
        return found

    return begin


def test_a_week_of_evenings_needs_nobody(evenings: Callable[[], Evenings]) -> None:
    """New days, a restated volume and series; then a corrected close, which somebody accepts."""
    site = evenings()
    first = HISTORY_DAYS
    before = changed(site.raw, RESTATED, first, "volume", 0.4)  # the first print lacks trades
    for row in range(first, first + 3):
        found = site.update(before if row == first else site.raw, row)
        assert (found["status"], found["last_day"]) == ("updated", str(DAYS[row]))
        assert found["changes"] == []
        restated = [(c["name"], c["column"], c["first"]) for c in found["restated"]]
        expected = [(RESTATED, "volume", str(DAYS[first]))] if row == first + 1 else []
        assert restated == expected
        assert ("provisional values were restated" in found["err"]) == bool(expected)
        booked = site.paper("step", "--as-of", DAYS[row])
        assert booked["booked"] == [str(DAYS[row])]
        decided = site.decide(row)
        assert decided["day"] == str(DAYS[row])
        taken = {order["symbol"]: order["shares"] for order in booked["orders"]}
        assert {o["symbol"]: o["shares"] for o in decided["orders"]} == taken
    manifest = read_manifest(site.data_dir)
    updates = manifest["updates"]
    assert [len(entry["restated"]) for entry in updates] == [0, 1, 0]
    assert [entry["accepted"] for entry in updates] == [[], [], []]
    assert updates[2]["parent"] == sha256_plain(updates[1])

    row = first + 3
    corrected = changed(site.raw, CORRECTED, first - 10, "close", 1.01)
    found = site.update(corrected, row, code=1)
    assert {c["column"] for c in found["changes"]} >= {"close"}
    assert read_manifest(site.data_dir) == manifest
    found = site.update(corrected, row, "--accept-changes")
    assert found["status"] == "updated"
    assert site.paper("step", "--as-of", DAYS[row])["booked"] == [str(DAYS[row])]
    with PaperAccount.open(site.account) as account:
        assert [day.day for day in account.days] == DAYS[first - 1 : row + 1]
        assert account.last.wealth != account.terms.capital


@pytest.mark.slow
def test_evenings_leave_the_data_of_one_collection(evenings: Callable[[], Evenings]) -> None:
    """Over splits and dividends of new days, and as agents see them."""
    site, row = evenings(), HISTORY_DAYS + 12
    for last in range(HISTORY_DAYS, row + 1, 4):
        site.update(site.raw, last)
    whole = site.folder / "whole" / "raw"
    site.collect(row, whole)
    found, expected = read_raw(site.data_dir), read_raw(whole)
    keys = ["symbol", "date"]
    # Yahoo says nothing more of the stock that left
    both = found.bars.join(expected.bars, on=keys, suffix="_one")
    assert both.height == expected.bars.height == found.bars.height
    for name in (*CENTS, "volume", "adj_close", "split", "dividend"):
        np.testing.assert_allclose(both[name], both[f"{name}_one"], rtol=1e-9)
    site.paper("step", "--as-of", DAYS[row])
    decided, alone = site.decide(row), site.decide(row, whole)
    assert decided["targets"].keys() == alone["targets"].keys()
    for symbol, weight in decided["targets"].items():
        assert weight == pytest.approx(alone["targets"][symbol], abs=1e-6)
