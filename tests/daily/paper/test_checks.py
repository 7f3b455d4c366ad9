"""A paper account asks of each session what `decide` asks of its day, in the same words."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml

from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import RawData, write_raw
from tests.command_line import Command, Result, assert_refused
from tests.daily.paper.conftest import DAYS, LAST_BAR, RULES, START, PaperSite

FIRST = DAYS.index(START)
Paper = Callable[..., Result]


@pytest.fixture
def paper(paper_site: PaperSite, tmp_path: Path, command: Command) -> Paper:
    """Run a command of `paper` on an account of fractions, with some settings."""

    def run(name: str, *options: object, data_dir: Path | None = None, **settings: Any) -> Result:
        path = tmp_path / "settings.yaml"
        values = RULES.model_dump(mode="json")
        drift = {**values["drift"], **settings.pop("drift", {})}
        path.write_text(yaml.safe_dump({**values, **settings, "drift": drift}))
        given = ["--account", tmp_path / "paper.sqlite", "--settings", path]
        if name == "init":
            given += ["--log-dir", paper_site.site.run_dir, "--fractional", "--start", START]
        return command("paper", name, *given, "--data-dir", data_dir or paper_site.whole, *options)

    return run


@pytest.fixture
def booked_to(tmp_path: Path) -> Callable[[], date]:
    """Return the last day of the account."""

    def last() -> date:
        with PaperAccount.open(tmp_path / "paper.sqlite") as account:
            return account.last.day

    return last


def written(raw: RawData, folder: Path, row: int) -> Path:
    """Write data up to a row."""
    write_raw(as_of(raw, DAYS[row]), folder / "raw")
    return folder / "raw"


def test_stale_data_are_refused_as_by_decide(
    paper: Paper, booked_to: Callable[[], date], command: Command, paper_site: PaperSite
) -> None:
    assert paper("init")[0] == 0
    told = ("stale data", "update-data", f"--as-of {DAYS[-1]}", "as if it were that evening")
    assert_refused(paper("step", max_stale_sessions=0), *told)
    assert booked_to() == START
    given = ("--log-dir", paper_site.site.run_dir, "--data-dir", paper_site.whole)
    assert_refused(command("decide", *given), *told)


def test_an_account_begins_on_stale_data_only_where_it_is_told_the_day(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    given = ("--account", tmp_path / "a.sqlite", "--data-dir", paper_site.whole)
    given += ("--log-dir", paper_site.site.run_dir, "--accept-drift")
    result = command("paper", "init", *given)
    assert_refused(result, "stale data", f"--start {DAYS[-1]}")
    assert not (tmp_path / "a.sqlite").exists()
    assert command("paper", "init", *given, "--start", DAYS[-1])[0] == 0


def test_sessions_are_booked_up_to_the_day_that_is_named(
    paper: Paper, booked_to: Callable[[], date]
) -> None:
    """So one data folder serves every evening of the past, and the account is that of each."""
    assert paper("init")[0] == 0
    wealth = []
    for row in (FIRST + 2, FIRST + 3):
        code, out, err = paper("step", "--as-of", DAYS[row], "--json", max_stale_sessions=0)
        assert code == 0, err
        assert booked_to() == DAYS[row]
        wealth.append(json.loads(out)["wealth"])
    assert len(set(wealth)) == 2
    code, out, _ = paper("step", "--as-of", DAYS[FIRST + 1], max_stale_sessions=0)
    assert (code, "nothing to do" in out) == (0, True)
    assert booked_to() == DAYS[FIRST + 3]
    result = paper("step", "--as-of", "2007-09-30", max_stale_sessions=0)
    assert_refused(result, "2007-09-30 is no session of the data")


@pytest.mark.parametrize("row", [LAST_BAR - 2, LAST_BAR + 1])
def test_a_session_booked_to_a_named_day_is_that_of_data_which_end_there(
    row: int, paper: Paper, paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    """Also after the end of a stock, which later data would show as gone."""
    start = ("--start", DAYS[LAST_BAR - 4])
    assert paper("init", *start)[0] == 0
    code, _, err = paper("step", "--as-of", DAYS[row])
    assert code == 0, err
    with PaperAccount.open(tmp_path / "paper.sqlite") as account:
        named, days = account.last, account.days
    assert [day.day for day in days] == DAYS[LAST_BAR - 4 : row + 1]
    (tmp_path / "paper.sqlite").unlink()
    assert paper("init", *start, data_dir=paper_site.cut(row))[0] == 0
    assert paper("step", data_dir=paper_site.cut(row))[0] == 0
    with PaperAccount.open(tmp_path / "paper.sqlite") as account:
        assert account.last.to_json() == named.to_json()


def test_drift_is_refused_with_its_day_and_days_before_it_are_booked(
    paper: Paper, booked_to: Callable[[], date], paper_site: PaperSite, tmp_path: Path
) -> None:
    assert paper("init")[0] == 0
    row = FIRST + 3
    volume = pl.when(pl.col("date") >= DAYS[row]).then(pl.col("volume") / 100.0)
    bars = paper_site.raw.bars.with_columns(volume.otherwise(pl.col("volume")).alias("volume"))
    data_dir = written(replace(paper_site.raw, bars=bars), tmp_path, row + 1)
    result = paper("step", data_dir=data_dir)
    assert_refused(result, f"sessions up to {DAYS[row]}", "log volume", "--accept-drift")
    assert booked_to() == DAYS[row - 1]
    code, out, err = paper("step", "--accept-drift", "--json", data_dir=data_dir)
    assert code == 0, err
    found = json.loads(out)
    assert found["booked"] == [str(DAYS[row]), str(DAYS[row + 1])]
    (warning,) = found["warnings"]
    assert warning.startswith("drift accepted: 1 of 2 levels: log volume")
    assert f"warning: {warning}" in err
    assert "1 sessions before had warnings, too" in err
    code, out, err = paper("report", "--output", tmp_path / "report", data_dir=data_dir)
    assert code == 0, err
    page = (tmp_path / "report" / "paper.html").read_text()
    assert "Warning: drift accepted" in page
    assert "Warnings of the decisions" in page
    days = json.loads((tmp_path / "report" / "paper.json").read_text())["days"]
    assert [bool(day["warnings"]) for day in days] == [False] * 3 + [True] * 2


def test_drift_is_refused_at_the_start_too(
    paper: Paper, paper_site: PaperSite, tmp_path: Path
) -> None:
    close = pl.when(pl.col("date") >= START).then(pl.col("close") / 100.0)
    bars = paper_site.raw.bars.with_columns(close.otherwise(pl.col("close")).alias("close"))
    data_dir = written(replace(paper_site.raw, bars=bars), tmp_path, FIRST)
    result = paper("init", data_dir=data_dir)
    assert result[0] == 1
    assert not (tmp_path / "paper.sqlite").exists()


def test_a_series_that_has_stopped_ends_the_booking(
    paper: Paper, booked_to: Callable[[], date], paper_site: PaperSite, tmp_path: Path
) -> None:
    assert paper("init")[0] == 0
    stopped = (pl.col("series") == "VIX") & (pl.col("date") > DAYS[FIRST - 8])
    raw = replace(paper_site.raw, macro=paper_site.raw.macro.filter(~stopped))
    data_dir = written(raw, tmp_path, FIRST + 12)
    result = paper("step", data_dir=data_dir)
    assert_refused(result, "VIX ends on", "have stopped before", "series_gap_factor")
    last = booked_to()
    assert START < last < DAYS[FIRST + 12]
    after = DAYS[DAYS.index(last) + 1]
    assert f"stopped before {after}" in result[2]


def test_agents_that_grow_old_are_told_and_too_old_ones_refused(
    paper: Paper, booked_to: Callable[[], date], paper_site: PaperSite
) -> None:
    assert paper("init")[0] == 0
    trained = paper_site.site.config.market_profile.spans.train.end
    assert isinstance(trained, date)
    age = (DAYS[FIRST + 2] - trained).days
    given = {"warn_age_days": 1, "max_age_days": age}
    result = paper("step", **given)
    assert_refused(result, f"{(DAYS[FIRST + 3] - trained).days} days before", "max_age_days")
    assert booked_to() == DAYS[FIRST + 2]
    code, _, err = paper("step", "--as-of", DAYS[FIRST + 3], warn_age_days=1)
    assert code == 0, err
    assert "warning: the training span of" in err
    assert "1 sessions before" not in err


def test_an_account_of_a_version_before_has_no_warnings(
    paper: Paper, paper_site: PaperSite, tmp_path: Path
) -> None:
    day = paper_site.begin(tmp_path / "old.sqlite", None)
    without = {key: value for key, value in day.decision.items() if key != "warnings"}
    assert replace(day, decision=without).warnings == ()


MOVED, MOVE_ROW = "B1", FIRST + 3
"""A stock of the universe, and the row of the night over which it moves."""


class Move(NamedTuple):
    """A night that the data do not explain."""

    price: float
    """Factor of all prices from the night on."""
    shares: float
    """Volume of the first day, over the median of the twenty days before."""
    has_split_before: bool = True


UNEXPLAINED = {
    "2 for 1": Move(1 / 2, 2.0, has_split_before=False),
    "2 for 1 again": Move(1 / 2, 2.0),
    "3 for 2 again": Move(1 / 1.5, 1.5),
    "7 for 1 again": Move(1 / 7, 7.0),
    "1 for 10": Move(10.0, 0.1),
    "pence": Move(100.0, 1.0),
    "another currency": Move(1.3, 1.0),
}


def undivided(raw: RawData) -> RawData:
    """Let the stock never split."""
    is_own = pl.col("symbol") == MOVED
    ratio = pl.when(is_own).then(pl.col("split").cum_prod().over("symbol")).otherwise(1.0)
    bars = raw.bars.with_columns(
        *(pl.col(name) * ratio for name in ("open", "high", "low", "close")),
        split=pl.when(is_own).then(1.0).otherwise("split"),
    )
    return replace(raw, bars=bars)


def moved(raw: RawData, move: Move, symbol: str = MOVED) -> RawData:
    """Move the prices of a stock over a night."""
    is_own, day, bars = pl.col("symbol") == symbol, pl.col("date"), raw.bars
    before = bars.filter(is_own, day < DAYS[MOVE_ROW])["volume"][-20:].median()
    later, first = is_own & (day >= DAYS[MOVE_ROW]), is_own & (day == DAYS[MOVE_ROW])
    prices = ("open", "high", "low", "close", "adj_close")
    bars = bars.with_columns(
        *(pl.when(later).then(pl.col(n) * move.price).otherwise(n).alias(n) for n in prices),
        volume=pl.when(first).then(pl.lit(before) * move.shares).otherwise("volume"),
    )
    return replace(raw, bars=bars)


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_night_that_the_data_do_not_explain_is_not_booked_until_they_do(
    name: str,
    paper: Paper,
    booked_to: Callable[[], date],
    command: Command,
    paper_site: PaperSite,
    tmp_path: Path,
) -> None:
    move = UNEXPLAINED[name]
    raw = paper_site.raw if move.has_split_before else undivided(paper_site.raw)
    true = written(raw, tmp_path / "true", MOVE_ROW + 1)
    assert paper("init", data_dir=true)[0] == 0
    data_dir = written(moved(raw, move), tmp_path, MOVE_ROW)
    result = paper("step", data_dir=data_dir)
    told = (f"night to {DAYS[MOVE_ROW]}", f"{MOVED} (x", "update-data", "--accept-moves")
    assert_refused(result, *told)
    assert booked_to() == DAYS[MOVE_ROW - 1]
    given = ("--data-dir", data_dir, "--settings", tmp_path / "settings.yaml")
    there = ("--output", tmp_path / "decisions", "--as-of", DAYS[MOVE_ROW])
    run = ("--log-dir", paper_site.site.run_dir)
    assert_refused(command("decide", *run, *given, *there), *told)
    assert not (tmp_path / "decisions").exists()
    # on the next evening the source has corrected it
    assert paper("step", data_dir=true)[0] == 0
    with PaperAccount.open(tmp_path / "paper.sqlite") as account:
        days = account.days
    (tmp_path / "paper.sqlite").unlink()
    assert paper("init", data_dir=true)[0] == 0
    assert paper("step", data_dir=true)[0] == 0
    with PaperAccount.open(tmp_path / "paper.sqlite") as account:
        assert account.days == days


def test_moves_that_were_looked_at_are_booked_and_told(
    paper: Paper, booked_to: Callable[[], date], paper_site: PaperSite, tmp_path: Path
) -> None:
    assert paper("init")[0] == 0
    raw = moved(paper_site.raw, UNEXPLAINED["2 for 1 again"])
    data_dir = written(raw, tmp_path, MOVE_ROW + 1)
    code, out, err = paper("step", "--accept-moves", "--json", data_dir=data_dir)
    assert code == 0, err
    assert booked_to() == DAYS[MOVE_ROW + 1]
    assert json.loads(out)["warnings"] == []
    with PaperAccount.open(tmp_path / "paper.sqlite") as account:
        (warning,) = account.days[-2].warnings
    assert warning.startswith("moves accepted: ")
    assert f"{MOVED} (x0.49" in warning
    assert "late_split, earned" in warning


def test_crashes_and_moves_of_stocks_that_nobody_may_buy_are_booked(
    paper: Paper, booked_to: Callable[[], date], paper_site: PaperSite, tmp_path: Path
) -> None:
    market = paper_site.site.today().market
    others = sorted(set(paper_site.raw.bars["symbol"]) - set(market.symbols))
    raw = moved(paper_site.raw, Move(1 / 2, 12.0))
    raw = moved(raw, UNEXPLAINED["2 for 1 again"], others[0])
    assert paper("init")[0] == 0
    code, _, err = paper("step", data_dir=written(raw, tmp_path, MOVE_ROW))
    assert code == 0, err
    assert booked_to() == DAYS[MOVE_ROW]
