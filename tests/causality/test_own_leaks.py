"""Leaks in what a user brings: tables, functions, rewards, policies, copies of stocks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA, RawData
from hrl_sarp.studies.audit import Check
from tests import raw_data
from tests.causality import audited
from tests.causality.leaky_variants import MODEL
from tests.tiny_runs import changed

MODULE = """
import numpy as np
import torch

def ahead(panel):
    value = np.full(panel.log_return.shape, np.nan)
    value[:-1] = panel.log_return[1:]
    return value

def behind(panel):
    return panel.log_return

def from_a_file(panel):
    kept = np.load("kept.npy")
    return kept[: len(panel.dates)]

def series_ahead(sources):
    return np.roll(sources.index_return, -1)

def series_behind(sources):
    return np.append(0.0, sources.index_return[:-1])

def paid_ahead(result, tensors):
    later = (result.day + 1).clamp_max(tensors.n_days - 1)
    return (result.weights_end * tensors.overnight[later]).sum(dim=1)

def paid_behind(result, tensors):
    return -result.cost

def foresees(view):
    row = min(view.row + 1, len(view._market.dates) - 1)
    rises = view._market.overnight_return[row] > 0
    return view.usable * rises / len(rises)

def remembers(view):
    rose = view.past_returns(1)[0] > 0
    return view.usable * rose / len(rose)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    audited.remember_calendars(monkeypatch)
    monkeypatch.setattr("hrl_sarp.studies.audit.behaviour.SESSIONS", 12)
    monkeypatch.setattr("hrl_sarp.market.assemble.fit_regime_model", lambda *data: MODEL)


@pytest.fixture(scope="module")
def raw() -> RawData:
    return raw_data.random_raw(np.random.default_rng(0), audited.N_DAYS)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working folder, under a name of its own for each test."""
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def returns_of(raw: RawData) -> pl.DataFrame:
    """Return the close-to-close return of each bar: `date, symbol, value, next_date`."""
    level, bars = pl.col("adj_close"), raw.bars.sort("symbol", "date")
    moves = bars.select(
        "date",
        "symbol",
        value=(level / level.shift(1) - 1).over("symbol"),
        before=pl.col("date").shift(1).over("symbol"),
        earlier=pl.col("date").shift(2).over("symbol"),
    )
    return moves.drop_nulls()


def with_table(raw: RawData, known_at: str, noise: float) -> RawData:
    """Add a table of returns that claims to be public on an earlier or on the same day.

    A value is seen from the session after `known_at` on. So what was public two sessions before it
    was earned is seen at the close before it.
    """
    moves = returns_of(raw)
    rng = np.random.default_rng(5)
    size = float(moves["value"].std() or 0.0)  # type: ignore[arg-type] # a number
    table = moves.select(
        date=pl.col(known_at),
        known_at=pl.col(known_at),
        symbol="symbol",
        name=pl.lit("mine"),
        value=pl.col("value") + noise * size * pl.Series(rng.normal(size=moves.height)),
    )
    return dataclasses.replace(raw, own_features=table.select(OWN_FEATURES_SCHEMA.names()))


def own_config(**values: Any) -> RunConfig:
    return changed(audited.small_config("us"), values)


def test_a_table_of_tomorrow_is_named_and_left_out(raw: RawData) -> None:
    own, subject = audited.audited(with_table(raw, "earlier", noise=0.0))
    assert own.result == "leak"
    assert "mine: its correlation with the return of the next 1 session is 1.00" in own.where
    assert "mine" not in subject.market.feature_names


def test_a_table_of_today_passes(raw: RawData) -> None:
    own, subject = audited.audited(with_table(raw, "date", noise=0.0))
    assert own.result == "ok"
    assert "mine" in subject.market.feature_names
    assert audited.check_of(subject, "lag").result == "ok"


@pytest.mark.parametrize(("known_at", "result"), [("earlier", "leak"), ("date", "ok")])
def test_a_faint_leak_of_a_table_shows_because_it_vanishes_a_day_later(
    raw: RawData, known_at: str, result: str
) -> None:
    # four parts of noise leave a correlation of 1 / sqrt(17) = 0.24: less than training refuses
    own, subject = audited.audited(with_table(raw, known_at, noise=4.0))
    assert own.result == "ok"
    check = audited.check_of(subject, "lag")
    assert check.result == result
    assert ("mine" in check.where) == (result == "leak")


@pytest.mark.parametrize(
    ("key", "leaky", "clean"),
    [
        ("extra_stock_features", "ahead", "behind"),
        ("extra_macro_features", "series_ahead", "series_behind"),
    ],
)
def test_a_function_that_reads_the_future_is_named(
    raw: RawData, module: str, key: str, leaky: str, clean: str
) -> None:
    names = [f"{module}:{name}" for name in (leaky, clean)]
    own, subject = audited.audited(raw, config=own_config(market_profile={key: names}))
    assert own.result == "leak"
    assert [place.split(": ")[0] for place in own.places] == [names[0]]
    known = (*subject.market.feature_names, *subject.market.macro_names)
    assert names[0] not in known
    assert names[1] in known


def test_a_function_that_reads_the_future_from_a_file_is_named(raw: RawData, module: str) -> None:
    panel = audited.subject(raw).market  # the rows before the market begins stay unknown
    n_before = audited.N_DAYS - panel.n_days
    symbols = raw.bars["symbol"].unique().sort().to_list()
    kept = np.full((audited.N_DAYS, len(symbols)), np.nan)
    columns = [symbols.index(symbol) for symbol in panel.symbols]
    kept[n_before:-1, columns] = panel.session_return()[1:]
    np.save("kept.npy", kept)
    name = f"{module}:from_a_file"
    config = own_config(market_profile={"extra_stock_features": [name]})
    own, subject = audited.audited(raw, config=config)
    assert own.result == "ok"
    assert f"{name}: 1.00" in audited.check_of(subject, "lag").where


@pytest.mark.parametrize(("name", "result"), [("paid_ahead", "leak"), ("paid_behind", "ok")])
def test_a_reward_of_the_users_is_named(raw: RawData, module: str, name: str, result: str) -> None:
    config = own_config(rewards={"extra": f"{module}:{name}"})
    check = rewards_of(raw, config)
    assert check.result == result
    assert (f"see {module}:{name}" in check.where) == (result == "leak")


def rewards_of(raw: RawData, config: RunConfig) -> Check:
    return audited.check_of(audited.on_one_day(audited.subject(raw, config=config)), "rewards")


def test_a_policy_of_the_users_is_named(raw: RawData, module: str) -> None:
    names = [f"{module}:{name}" for name in ("foresees", "remembers")]
    config = own_config(evaluation={"extra_policies": names})
    subject = audited.on_one_day(audited.subject(raw, config=config))
    check = audited.check_of(subject, "decisions")
    assert check.result == "leak"
    assert [place.split(" ")[0] for place in check.places] == ["foresees"]


@pytest.mark.parametrize(("early", "result"), [(0, "note"), (1, "leak"), (3, "ok")])
def test_a_copy_of_a_stock_is_named(raw: RawData, early: int, result: str) -> None:
    # A0 of sector Alpha is copied as Z; an early copy has the returns of a session later
    bars = raw.bars.filter(pl.col("symbol") == "A0").sort("date")
    numbers = [name for name in bars.columns if name not in ("date", "symbol")]
    copy = bars.with_columns(pl.col(numbers).shift(-early), symbol=pl.lit("Z")).drop_nulls("close")
    sectors = pl.DataFrame({"symbol": ["Z"], "sector": ["Alpha"]})
    config = own_config(market_profile={"universe": {"stocks_per_sector": 7}})
    both = dataclasses.replace(
        raw,
        bars=pl.concat([raw.bars, copy.select(raw.bars.columns)]),
        sectors=pl.concat([raw.sectors, sectors]),
    )
    check = audited.check_of(audited.subject(both, config=config), "duplicates")
    assert check.result == result
    assert ("Z" in check.where) == (result != "ok")


def test_stocks_that_never_leave_are_a_note(raw: RawData) -> None:
    last = (
        raw.bars.group_by("symbol")
        .agg(pl.max("date"))
        .filter(pl.col("date").ne(pl.col("date").max()))
    )
    staying = raw.bars.filter(~pl.col("symbol").is_in(last["symbol"].implode()))
    subject = audited.subject(raw)
    assert audited.check_of(subject, "survivorship").result == "ok"
    alone = dataclasses.replace(subject, raw=dataclasses.replace(raw, bars=staying))
    check = audited.check_of(alone, "survivorship")
    assert (check.result, check.places[0]) == (
        "note",
        "0 of 17 stocks end before the data, in 3 years",
    )


def test_reports_that_are_public_when_their_period_ends_are_a_note(raw: RawData) -> None:
    reports = audited.reports(raw, np.random.default_rng(2))
    at_once = reports.unique(["date", "symbol"]).with_columns(known_at=pl.col("date"))
    for own, result in ((reports, "ok"), (at_once, "note")):
        subject = audited.subject(dataclasses.replace(raw, own_features=own))
        assert audited.check_of(subject, "publication").result == result
