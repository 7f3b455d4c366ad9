"""Evenings on which Yahoo answers oddly, through the commands in the order of the guide.

The clock stands at half past midnight (UTC) after a session, as in the lines for cron and systemd,
so that no command is told its day.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml

from hrl_sarp.cli import live
from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import RawData, read_raw
from hrl_sarp.data.update import folder as updating
from tests.command_line import Command, Result, assert_refused
from tests.daily.conftest import HISTORY_DAYS, QUIET
from tests.daily.test_evenings import DAYS, Evenings, answers, stock_chart
from tests.data.sources.yahoo.yahoo_replay import ReplayingSession, Script, replay_link

Payloads = dict[str, Any]
FIRST = HISTORY_DAYS
"""Row of the first evening."""
ODD = "B1"
"""The stock whose answer is odd. It is in the universe."""
HOLIDAY = date(2007, 9, 3)
"""Labor Day, after the first evening."""


class OddEvenings(Evenings):
    """The folder of one test, begun as all of them, and its clock."""

    def __init__(self, folder: Path, command: Command, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, command, patch)
        bars = self.raw.bars.with_columns(pl.col("volume").round())  # Yahoo counts whole shares
        self.raw = RawData(**{**vars(self.raw), "bars": bars})

    def evening(self, payloads: Payloads, day: date, script: Script | None = None) -> None:
        """Let Yahoo answer, and the clock stand at half past midnight after a day."""
        session = ReplayingSession(payloads, script)
        self._patch.setattr(updating, "live_link", lambda _: replay_link(session, []))
        moment = datetime.combine(day + timedelta(days=1), time(0, 30), UTC)

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return moment.astimezone(tz)

        self._patch.setattr(live, "datetime", Clock)

    def try_update(self, *more: object) -> Result:
        given = ("--symbols", self.folder / "symbols.csv", *self.settings)
        return self._command("update-data", *given, *self.options, "--json", *more)

    def try_step(self) -> Result:
        given = ("--account", self.account, "--data-dir", self.data_dir, *self.settings)
        return self._command("paper", "step", *given, "--json")

    def try_decide(self) -> Result:
        given = ("--account", self.account, "--data-dir", self.data_dir, *self.settings)
        there = ("--output", self.folder / "decisions")
        return self._command("decide", *given, *there, "--json")

    def update_and_step(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run both commands, which must not need anybody; return what they say."""
        found = []
        for command in (self.try_update, self.try_step):
            code, out, err = command()
            assert code == 0, err
            found.append(json.loads(out))
        updated, booked = found
        return updated, booked

    def decide_as(self, booked: dict[str, Any]) -> None:
        """Expect that `decide` gives the orders that the account has taken."""
        code, out, err = self.try_decide()
        assert code == 0, err
        taken = {order["symbol"]: order["shares"] for order in booked["orders"]}
        assert {o["symbol"]: o["shares"] for o in json.loads(out)["orders"]} == taken

    def days(self) -> list[Any]:
        with PaperAccount.open(self.account) as account:
            return list(account.days)


def content(folder: Path) -> dict[str, bytes]:
    """Return all files but the cache of Yahoo and locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "yahoo" not in path.parts and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def begun() -> dict[str, Path]:
    """Where the folder lies that the first test begins and all others copy."""
    return {}


@pytest.fixture
def site(
    begun: dict[str, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> OddEvenings:
    """Data of Yahoo up to the day before the first evening, a run, and an account of that day."""
    live_link(tmp_path)
    if "folder" not in begun:
        folder = tmp_path_factory.mktemp("begun")
        first = OddEvenings(folder, command, monkeypatch)
        first.collect(FIRST - 1)
        for phase in (1, 2):
            first.run("train", "--phase", phase, *first.options, "--log-dir", first.log_dir)
        first.paper("init", "--log-dir", first.log_dir, "--start", DAYS[FIRST - 1])
        begun["folder"] = folder
    found = OddEvenings(tmp_path, command, monkeypatch)
    shutil.copytree(begun["folder"] / "data", tmp_path / "data")
    shutil.copyfile(begun["folder"] / "paper.sqlite", found.account)
    found.log_dir = begun["folder"] / "logs"
    rules = QUIET.model_copy(update={"max_stale_sessions": 0, "max_missing_share": 0.2})
    (tmp_path / "daily.yaml").write_text(yaml.safe_dump(rules.model_dump(mode="json")))
    return found


def part(chart: Payloads) -> dict[str, Any]:
    result: dict[str, Any] = chart["chart"]["result"][0]
    return result


def columns(chart: Payloads) -> Iterator[list[Any]]:
    """Return the lists of a chart that have an entry for each day, its times apart."""
    values = part(chart)["indicators"]
    yield from values["quote"][0].values()
    yield values["adjclose"][0]["adjclose"]


def with_today(payloads: Payloads) -> Payloads:
    """The session of today has begun: its bar is half of it, at other prices."""
    for chart in payloads.values():
        times = part(chart)["timestamp"]
        times.append(times[-1] + 24 * 3600)
        for column in columns(chart):
            column.append(column[-1] * 1.5)
    return payloads


def with_live_row(payloads: Payloads) -> Payloads:
    """The last session stands twice, the second time stamped by its last trade."""
    for chart in payloads.values():
        times = part(chart)["timestamp"]
        times.append(times[-1] + 23400)
        for column in columns(chart):
            column.append(column[-1])
    return payloads


def with_nulls(payloads: Payloads) -> Payloads:
    """The last row of a stock has no numbers yet."""
    for column in columns(payloads[ODD]):
        column[-1] = None
    return payloads


def with_event_before_prices(payloads: Payloads) -> Payloads:
    with_nulls(payloads)
    when = part(payloads[ODD])["timestamp"][-1]
    events = part(payloads[ODD])["events"]
    events.setdefault("dividends", {})[str(when)] = {"amount": 0.4, "date": when}
    return payloads


def that_ends_early(payloads: Payloads) -> Payloads:
    part(payloads[ODD])["timestamp"].pop()
    for column in columns(payloads[ODD]):
        column.pop()
    return payloads


def that_is_gone(payloads: Payloads) -> Payloads:
    return {ticker: chart for ticker, chart in payloads.items() if ticker != ODD}


def without_a_series(payloads: Payloads) -> Payloads:
    return {ticker: chart for ticker, chart in payloads.items() if ticker != "^VIX"}


def of_another_zone(payloads: Payloads) -> Payloads:
    """Mumbai's midnight is in the evening of the day before, in UTC."""
    for chart in payloads.values():
        part(chart)["meta"]["exchangeTimezoneName"] = "Asia/Kolkata"
        part(chart)["timestamp"] = [stamp - 10 * 3600 for stamp in part(chart)["timestamp"]]
    return payloads


class Odd(NamedTuple):
    """How the answers of one evening differ, and whether a bar is missing for it."""

    change: Callable[[Payloads], Payloads]
    script: Script | None = None
    is_missing: bool = False


UNREADABLE: list[Any] = ["{", "<html>Will be right back</html>", 502, '{"chart": {}}'] * 5
PLAIN = Odd(lambda charts: charts)
ODDITIES = {
    "today": Odd(with_today),
    "nulls": Odd(with_nulls, is_missing=True),
    "live row": Odd(with_live_row),
    "event before prices": Odd(with_event_before_prices, is_missing=True),
    "another zone": Odd(of_another_zone),
    "ends early": Odd(that_ends_early, is_missing=True),
    "no series": Odd(without_a_series),
    "gone": Odd(that_is_gone, is_missing=True),
    "plain": PLAIN,
    "half of an answer": Odd(PLAIN.change, {ODD: UNREADABLE}, is_missing=True),
    "plain again": PLAIN,
}
"""What is missing on one evening is there on the next one."""


@pytest.mark.slow
def test_a_fortnight_of_odd_answers_needs_nobody(site: OddEvenings) -> None:
    for row, (name, odd) in enumerate(ODDITIES.items(), start=FIRST):
        site.evening(odd.change(answers(site.raw, DAYS[row])), DAYS[row], odd.script)
        updated, booked = site.update_and_step()
        told = (updated["status"], updated["last_day"], updated["changes"])
        assert told == ("updated", str(DAYS[row]), []), name
        assert (ODD in updated["stale_symbols"]) == odd.is_missing, name
        assert booked["booked"] == [str(DAYS[row])], name
        bars = read_raw(site.data_dir).bars.filter(pl.col("symbol") == ODD)
        assert (bars["date"].max() != DAYS[row]) == odd.is_missing, name
    site.decide_as(booked)
    assert [day.day for day in site.days()] == DAYS[FIRST - 1 : row + 1]
    require_data_of(site, site.raw, row)


def require_data_of(site: OddEvenings, raw: RawData, row: int) -> None:
    """Expect the data that one collection of undisturbed answers would have left."""
    expected = raw.bars.filter(pl.col("date") <= DAYS[row])
    found = read_raw(site.data_dir).bars
    both = found.join(expected, on=["symbol", "date"], suffix="_drawn")
    assert both.height == found.height == expected.height
    for name in ("open", "high", "low", "close", "volume", "split", "dividend"):
        np.testing.assert_allclose(both[name], both[f"{name}_drawn"], rtol=1e-9)
    growth = [pl.col(name) / pl.col(name).shift(1) for name in ("adj_close", "adj_close_drawn")]
    own, drawn = both.sort("symbol", "date").select(
        *(g.over("symbol").fill_null(1.0).alias(f"g{n}") for n, g in enumerate(growth))
    )
    np.testing.assert_allclose(own, drawn, rtol=1e-9)


def split_on(raw: RawData, row: int, ratio: float) -> RawData:
    """Let a stock split on a day that has no split of its own."""
    is_own = pl.col("symbol") == ODD
    is_after = is_own & (pl.col("date") >= DAYS[row])
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    bars = raw.bars.with_columns(
        *(pl.when(is_after).then(price / ratio).otherwise(price).name.keep() for price in prices),
        volume=pl.when(is_after).then(pl.col("volume") * ratio).otherwise("volume"),
        split=pl.when(is_own & (pl.col("date") == DAYS[row])).then(ratio).otherwise("split"),
    )
    return RawData(**{**vars(raw), "bars": bars})


def uncounted(raw: RawData, row: int, evening: int) -> Payloads:
    """Return answers with the split of the day, in which earlier prices are not divided by it."""
    charts = answers(raw, DAYS[evening])
    bars = raw.bars.filter((pl.col("symbol") == ODD) & (pl.col("date") <= DAYS[evening]))
    is_day = pl.col("date") == DAYS[row]
    (ratio,) = bars.filter(is_day)["split"]
    plain = stock_chart(
        ODD,
        bars.with_columns(
            split=pl.when(is_day).then(1.0).otherwise("split"),
            adj_close=pl.when(pl.col("date") < DAYS[row])
            .then(pl.col("adj_close") * ratio)
            .otherwise("adj_close"),
        ),
    )
    part(plain)["events"].setdefault("splits", {}).update(
        {
            key: event
            for key, event in part(charts[ODD])["events"]["splits"].items()
            if int(key) == part(charts[ODD])["timestamp"][-1 - (evening - row)]
        }
    )
    return charts | {ODD: plain}


def without_events(charts: Payloads) -> Payloads:
    """Forget the splits of the last session, and leave the prices as they are."""
    events = part(charts[ODD])["events"]["splits"]
    del events[str(part(charts[ODD])["timestamp"][-1])]
    return charts


def as_before_the_split(raw: RawData, row: int) -> Payloads:
    """Return answers on the evening of a split of which Yahoo knows nothing yet."""
    return without_events(uncounted(raw, row, row))


@pytest.mark.slow
def test_a_split_that_yahoo_names_before_it_divides_prices_needs_nobody(site: OddEvenings) -> None:
    raw, row = split_on(site.raw, FIRST + 1, 4.0), FIRST + 1
    for evening in range(FIRST, FIRST + 3):
        is_late = evening == row
        charts = uncounted(raw, row, evening) if is_late else answers(raw, DAYS[evening])
        site.evening(charts, DAYS[evening])
        updated, booked = site.update_and_step()
        assert (updated["status"], updated["changes"]) == ("updated", [])
        assert booked["booked"] == [str(DAYS[evening])]
    require_data_of(site, raw, FIRST + 2)
    require_earned(site, site.raw)


def require_earned(site: OddEvenings, raw: RawData) -> None:
    """Expect that holdings earned what they earn without the split, up to what was traded."""
    moves = raw.bars.sort("symbol", "date").with_columns(
        r=pl.col("adj_close") / pl.col("adj_close").shift(1).over("symbol") - 1
    )
    days = site.days()[1:]  # the account begins in cash, so that the first day is all trade
    assert any(day.standing.weights.get(ODD, 0.0) > 0.03 for day in days[:-1])
    for before, day in pairwise(days):
        of_day = moves.filter(pl.col("date") == day.day).drop_nulls("r")
        r = dict(of_day.select("symbol", "r").iter_rows())
        earned = sum(weight * r[symbol] for symbol, weight in before.standing.weights.items())
        # what was traded, and a holding of a tenth that is valued a day late
        slack = (2 * day.turnover + 0.1) * max(map(abs, r.values())) + day.cost
        assert abs(day.net_return - earned) <= slack


@pytest.mark.slow
def test_prices_that_are_divided_before_the_split_is_named_are_refused_for_an_evening(
    site: OddEvenings,
) -> None:
    raw, row = split_on(site.raw, FIRST, 2.0), FIRST
    site.evening(without_events(answers(raw, DAYS[row])), DAYS[row])
    before = content(site.folder)
    result = site.try_update()
    assert (result[0], result[1]) == (1, "")
    assert f"{ODD}: the close of" in result[2].splitlines()[-1]
    assert_refused(site.try_step(), "stale data", "update-data")
    assert content(site.folder) == before
    site.evening(answers(raw, DAYS[row + 1]), DAYS[row + 1])
    updated, booked = site.update_and_step()
    assert updated["changes"] == []
    assert booked["booked"] == [str(day) for day in DAYS[row : row + 2]]
    require_data_of(site, raw, row + 1)


@pytest.mark.slow
def test_a_split_that_is_named_a_day_late_is_booked_when_it_is_named(
    site: OddEvenings,
) -> None:
    raw, row = split_on(site.raw, FIRST + 1, 2.0), FIRST + 1
    site.evening(answers(raw, DAYS[FIRST]), DAYS[FIRST])
    site.update_and_step()
    site.evening(as_before_the_split(raw, row), DAYS[row])
    assert site.try_update()[0] == 0
    kept = site.account.read_bytes()
    for command in (site.try_step, site.try_decide):
        assert_refused(command(), f"night to {DAYS[row]}", f"{ODD} (x0.5", "--accept-moves")
    assert site.account.read_bytes() == kept
    site.evening(answers(raw, DAYS[row + 1]), DAYS[row + 1])
    held = content(site.data_dir)
    code, out, err = site.try_update()
    assert code == 1, err
    assert "split" in {change["column"] for change in json.loads(out)["changes"]}
    assert content(site.data_dir) == held
    assert site.try_update("--accept-changes")[0] == 0
    assert site.try_step()[0] == 0
    assert [day.day for day in site.days()] == DAYS[FIRST - 1 : row + 2]
    require_data_of(site, raw, row + 1)
    require_earned(site, site.raw)


@pytest.mark.slow
def test_an_evening_without_data_writes_nothing_and_an_hour_later_all_is_there(
    site: OddEvenings,
) -> None:
    charts = answers(site.raw, DAYS[FIRST])
    tickers = [*charts]
    blocked: Script = {ticker: [429] * 40 for ticker in tickers[3:]}
    rest = {ticker: charts[ticker] for ticker in tickers[3:]}
    before = content(site.folder)
    for served, script, words in (
        (charts, blocked, "3 tickers in a row"),
        (rest, None, "2 of 17 symbols failed"),
        (answers(site.raw, DAYS[FIRST - 1]), None, ""),
    ):
        shutil.rmtree(site.data_dir.parent / "yahoo", ignore_errors=True)
        site.evening(served, DAYS[FIRST], script)
        code, out, err = site.try_update()
        if words:
            assert (code, out) == (1, "")
            assert words in err.splitlines()[-1]
        else:
            assert json.loads(out)["status"] == "up to date"
        assert content(site.folder) == before
    assert_refused(site.try_step(), "stale data", "update-data")
    assert_refused(site.try_decide(), "stale data", "update-data")
    assert content(site.folder) == before
    site.evening(charts, DAYS[FIRST])
    updated, booked = site.update_and_step()
    assert (updated["status"], booked["booked"]) == ("updated", [str(DAYS[FIRST])])


@pytest.mark.slow
@pytest.mark.parametrize("printed", ["nothing", "one", "all"])
def test_the_evening_of_a_holiday_books_nothing(site: OddEvenings, printed: str) -> None:
    """Also where Yahoo prints the close before once more."""
    last = max(row for row, day in enumerate(DAYS) if day < HOLIDAY)
    site.evening(answers(site.raw, DAYS[last]), DAYS[last])
    _, booked = site.update_and_step()
    assert booked["booked"][-1] == str(DAYS[last])
    site.decide_as(booked)
    decided = content(site.folder / "decisions")
    charts = answers(site.raw, DAYS[last])
    n_days = (HOLIDAY - DAYS[last]).days
    for ticker, chart in charts.items():
        if printed == "nothing" or (printed == "one" and ticker != ODD):
            continue
        times, close = part(chart)["timestamp"], part(chart)["indicators"]["quote"][0]["close"][-1]
        times.append(times[-1] + n_days * 24 * 3600)
        for column in columns(chart):
            column.append(close)
        part(chart)["indicators"]["quote"][0]["volume"][-1] = 0
    site.evening(charts, HOLIDAY)
    updated, again = site.update_and_step()
    assert updated["status"] == ("up to date" if printed == "nothing" else "updated")
    assert again["booked"] == []
    site.decide_as(booked)
    assert content(site.folder / "decisions") == decided
    site.evening(answers(site.raw, DAYS[last + 1]), DAYS[last + 1])
    assert site.update_and_step()[1]["booked"] == [str(DAYS[last + 1])]
