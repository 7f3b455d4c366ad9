"""Collected data of Yahoo go on: what is fetched again, what is new, what waits for tomorrow."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.sources.yahoo import download as yahoo
from hrl_sarp.data.sources.yahoo.download import OVERLAP_DAYS, YahooRequest
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import RawData, read_raw, write_raw
from hrl_sarp.data.update import folder as updating
from hrl_sarp.data.update.folder import Outcome, update_folder
from hrl_sarp.errors import DataError
from tests.command_line import Command, assert_refused
from tests.data.sources.yahoo.yahoo_replay import (
    RECORDED,
    ReplayingSession,
    Script,
    chart,
    plain_chart,
    replay_link,
)

CONFIG = load_config(market="us")
FIRST, COLLECTED = date(2023, 1, 2), date(2023, 1, 13)
TICKERS = ("AAA", "BBB")
SERIES = ("^SP500TR", "^VIX", "^IRX", "DX-Y.NYB", "CL=F", "GC=F")


@pytest.fixture(autouse=True)
def _set_up_as_live(tmp_path: Path) -> None:
    live_link(tmp_path)


class Market:
    """A folder that was collected from Yahoo, and what Yahoo answers next."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raw, self.monkeypatch = folder / "data" / "raw", monkeypatch
        self.symbols = folder / "symbols.csv"
        self.asked: list[str] = []
        self.list_symbols(*TICKERS)

    def list_symbols(self, *names: str) -> None:
        rows = "".join(f"{name},Energy\n" for name in names)
        self.symbols.write_text("symbol,sector\n" + rows)

    def collect(self, payloads: dict[str, Any], end: date = COLLECTED, start: date = FIRST) -> None:
        request = YahooRequest(self.symbols, start, end, end + timedelta(days=1))
        link = replay_link(ReplayingSession(payloads), [])
        write_raw(yahoo.load(request, CONFIG, self.raw.parent / "first", link), self.raw)

    def update(self, payloads: dict[str, Any], today: date, **given: Any) -> Outcome:
        payloads = {ticker: chart for ticker, chart in payloads.items() if chart is not None}
        session = ReplayingSession(payloads, given.pop("script", None))
        self.monkeypatch.setattr(updating, "live_link", lambda _: replay_link(session, []))
        request = YahooRequest(self.symbols, given.pop("start", None), None, today)
        try:
            return update_folder(self.raw, CONFIG, yahoo_request=request, **given)
        finally:
            self.asked = session.charts

    def read(self) -> RawData:
        return read_raw(self.raw)


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Market:
    return Market(tmp_path, monkeypatch)


def charts(n_days: int, **changes: Any) -> dict[str, Any]:
    plain = {ticker: plain_chart(ticker, n_days) for ticker in (*TICKERS, *SERIES)}
    return plain | changes


def test_new_days_are_appended_and_todays_bar_waits(market: Market) -> None:
    market.collect(charts(10))
    # weekdays up to 20 January are served, and today is the 19th
    made = market.update(charts(15), date(2023, 1, 19))
    assert made.status == "updated"
    assert (made.made.first, made.made.last) == (date(2023, 1, 16), date(2023, 1, 18))
    assert made.made.added["bars"] == 3 * len(TICKERS)
    assert made.made.added["index"] == 3
    raw = market.read()
    assert raw.bars["date"].max() == date(2023, 1, 18)
    assert raw.macro["date"].max() == date(2023, 1, 18)
    assert market.update(charts(15), date(2023, 1, 19)).status == "up to date"
    assert set(market.asked) == {*TICKERS, *SERIES}  # to see whether history changed
    # tomorrow the bar of today is final
    made = market.update(charts(15), date(2023, 1, 20))
    assert (made.made.first, made.made.last) == (date(2023, 1, 19), date(2023, 1, 19))


def test_updates_of_recorded_answers_give_the_data_of_one_collection(
    market: Market, tmp_path: Path
) -> None:
    # Apple's split of 9 June 2014 and its dividend of 8 May lie among the new days
    payloads = charts(0, AAPL=json.loads((RECORDED / "AAPL.json").read_text()))
    market.list_symbols("AAPL")
    start, config = date(2014, 5, 1), CONFIG
    link = replay_link(ReplayingSession(payloads), [])
    request = YahooRequest(market.symbols, start, date(2014, 6, 9), date(2014, 6, 10))
    whole = yahoo.load(request, config, tmp_path / "whole", link)
    early = replace(whole, bars=whole.bars.filter(pl.col("date") <= date(2014, 5, 7)))
    write_raw(early, market.raw)
    with pytest.raises(DataError, match=r"no bar of 2014-05-09, .*--start DATE"):
        market.update(payloads, date(2014, 6, 10))  # the recorded answer has four days of the span
    holed = load_config(market="us", overrides={"data": {"calendar_changes": {"removed": HOLES}}})
    market.monkeypatch.setattr(f"{__name__}.CONFIG", holed)
    assert market.update(payloads, date(2014, 6, 10)).status == "updated"
    assert market.read().bars.equals(whole.bars)


HOLES = [
    date(2014, 5, 9) + timedelta(days=n)
    for n in range(31)
    if date(2014, 5, 9) + timedelta(days=n) != date(2014, 6, 6)
]


def test_a_dividend_of_a_new_day_rescales_what_was_collected(market: Market) -> None:
    days = pl.date_range(FIRST, date(2023, 1, 18), eager=True)
    days = [day for day in days.to_list() if day.weekday() < 5]
    market.collect(charts(10))
    factor = 1 - 1 / 110  # paid on the 16th: the close before is 110
    rows = [
        (day, 100 + n, 102 + n, 99 + n, 101 + n, (101 + n) * (factor if n < 10 else 1), 1000 + n)
        for n, day in enumerate(days)
    ]
    paid = chart("AAA", rows, dividends={date(2023, 1, 16): 1.0})
    made = market.update(charts(15, AAA=paid), date(2023, 1, 19))
    assert made.status == "updated"
    assert made.made.rescaled == ("AAA",)
    bars = market.read().bars.filter(pl.col("symbol") == "AAA")
    gross = (bars["adj_close"] / bars["adj_close"].shift(1)).to_list()
    assert gross[10] == pytest.approx(111 / 110 / factor, rel=1e-6)
    assert gross[9] == pytest.approx(110 / 109, rel=1e-6)
    assert bars["close"].to_list() == [101.0 + n for n in range(13)]


def test_a_corrected_bar_is_named_and_needs_consent(market: Market) -> None:
    market.collect(charts(10))
    corrected = plain_chart("AAA", 15)
    corrected["chart"]["result"][0]["indicators"]["quote"][0]["volume"][5] = 7
    before = (market.raw / "manifest.json").read_bytes()
    made = market.update(charts(15, AAA=corrected), date(2023, 1, 19))
    (change,) = made.made.changes
    assert made.status == "refused"
    assert (change.name, change.column, change.first) == ("AAA", "volume", "2023-01-09")
    assert (market.raw / "manifest.json").read_bytes() == before
    made = market.update(charts(15, AAA=corrected), date(2023, 1, 19), accept_changes=True)
    assert made.status == "updated"
    volume = market.read().bars.filter(pl.col("symbol") == "AAA")["volume"].to_list()
    assert volume == [1000.0 + n if n != 5 else 7.0 for n in range(13)]


def test_a_new_symbol_of_the_list_comes_with_its_whole_history(market: Market) -> None:
    start = COLLECTED - timedelta(days=2 * OVERLAP_DAYS)
    earlier = plain_chart("AAA", 10)
    market.collect(charts(10, AAA=earlier), start=start)
    market.list_symbols("AAA", "CCC", "DDD")
    made = market.update(charts(15, CCC=plain_chart("CCC", 15, 50.0)), date(2023, 1, 19))
    assert made.made.new_symbols == ("CCC",)
    assert made.made.absent == ("BBB",)
    assert any(note.startswith("not collected, DDD: unknown to Yahoo") for note in made.notes)
    found = market.read().bars.filter(pl.col("symbol") == "CCC")
    assert (found["date"].min(), found["date"].max()) == (FIRST, date(2023, 1, 18))
    assert "That is no delisting" in made.sentences()[-1]


@pytest.mark.parametrize("is_refused", [False, True])
def test_the_same_command_asks_again_where_yahoo_was_late_or_wrong(
    market: Market,
    is_refused: bool,  # noqa: FBT001 -- drawn
) -> None:
    market.collect(charts(10))
    early = charts(10)  # answers of the evening, before Yahoo had the new days
    if is_refused:
        early["AAA"]["chart"]["result"][0]["indicators"]["quote"][0]["volume"][5] = 7
    made = market.update(early, date(2023, 1, 19))
    assert made.status == ("refused" if is_refused else "up to date")
    made = market.update(charts(15), date(2023, 1, 19))
    assert (made.status, made.made.last) == ("updated", date(2023, 1, 18))
    assert set(market.asked) == {*TICKERS, *SERIES}


def test_an_update_that_yahoo_stops_goes_on_where_it_was(market: Market) -> None:
    market.collect(charts(10))
    before = (market.raw / "manifest.json").read_bytes()
    blocked: Script = {ticker: [429] * 20 for ticker in ("BBB", *SERIES)}
    with pytest.raises(DataError, match=r"3 tickers in a row .* 1 of 8 tickers are kept"):
        market.update(charts(15), date(2023, 1, 19), script=blocked)
    assert (market.raw / "manifest.json").read_bytes() == before
    made = market.update(charts(15), date(2023, 1, 19))
    assert set(market.asked) == {"BBB", *SERIES}
    assert (made.status, made.made.last) == ("updated", date(2023, 1, 18))
    assert [*(market.raw.parent / "yahoo").glob("*_*")] == []


@pytest.mark.parametrize("n_ended", [1, 3])
def test_stocks_that_ended_long_ago_are_no_failures(market: Market, n_ended: int) -> None:
    """Else a list that nobody cuts would stop all updates once a tenth of it has ended."""
    gone = [f"E{n}" for n in range(n_ended)]
    market.list_symbols("AAA", *gone)
    end = FIRST + timedelta(days=OVERLAP_DAYS + 30)
    whole = charts(60)
    market.collect(whole | {name: plain_chart(name, 5) for name in gone}, end=end)
    made = market.update(whole, end + timedelta(days=5))  # Yahoo knows nothing of them any more
    assert made.status == "updated"
    assert sum(note.startswith("not collected, E") for note in made.notes) == n_ended
    # one that stops today counts
    with pytest.raises(DataError, match="1 of 1 symbols failed"):
        market.update(whole | {"AAA": None}, end + timedelta(days=8))


def test_a_list_without_collected_symbols_is_refused(market: Market) -> None:
    market.collect(charts(10))
    market.list_symbols("CCC")
    with pytest.raises(DataError, match="names none of the collected symbols"):
        market.update(charts(15), date(2023, 1, 19))


def test_the_command_asks_the_source_of_the_collection(market: Market, command: Command) -> None:
    market.collect(charts(10))
    link = replay_link(ReplayingSession(charts(15)), [])
    market.monkeypatch.setattr(updating, "live_link", lambda _: link)
    options = ("update-data", "--data-dir", market.raw, "--symbols", market.symbols, "--json")
    code, out, err = command(*options, "--market", "us")
    assert code == 0, err
    found = json.loads(out)
    assert (found["source"], found["last_day"]) == ("yahoo", "2023-01-20")
    assert_refused(
        command(*options, "--input", market.raw), "--input and --macro belong to the source files"
    )
