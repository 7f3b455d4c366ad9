"""The source yahoo over replayed answers: patience, cache, resume, failures; and its fields."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import requests
from loguru import logger

from hrl_sarp.cli import entry as cli
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data import collect as collecting
from hrl_sarp.data.quality.validation import validate
from hrl_sarp.data.sources.yahoo import download as yahoo
from hrl_sarp.data.sources.yahoo.download import SYMBOLS_DIR, YahooRequest, make_plan
from hrl_sarp.data.sources.yahoo.history import HistoryCache, as_traded, live_link
from hrl_sarp.data.store import RawData, read_raw
from hrl_sarp.errors import ConfigError, DataError, MissingArtifactError
from hrl_sarp.features.macro import find_macro_problems
from tests.data.sources.yahoo.yahoo_replay import (
    NOT_FOUND,
    RECORDED,
    ReplayingSession,
    Script,
    plain_chart,
    replay_link,
)

START, END, TODAY = date(2023, 1, 2), date(2023, 1, 13), date(2024, 1, 1)
STOCKS = {"AAA": "Energy", "BBB": "Energy", "CCC": "Utilities", "D.D": "Utilities", "EEE": "Energy"}
TICKERS = ["AAA", "BBB", "CCC", "D-D", "EEE"]
SERIES = ["^SP500TR", "^VIX", "^IRX", "DX-Y.NYB", "CL=F", "GC=F"]
CONFIG = load_config(market="us")
NO_FIELDS = '{"chart": {"result": [{"meta": {}}], "error": null}}'
CONNECTION_LOST = requests.exceptions.ConnectionError("connection lost")


@pytest.fixture(autouse=True)
def _set_up_as_live(tmp_path: Path) -> None:
    """Keep yfinance's cookies and time zones in the test's folder, and its failures loud."""
    live_link(tmp_path)


@pytest.fixture
def symbols(tmp_path: Path) -> Path:
    path = tmp_path / "symbols.csv"
    rows = "".join(f"{symbol},{sector}\n" for symbol, sector in STOCKS.items())
    path.write_text("symbol,sector\n" + rows)
    return path


@pytest.fixture
def warned() -> list[str]:
    """What is logged as a warning while the test runs."""
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(number)


def everything(**changes: Any) -> dict[str, Any]:
    """Return a chart for each ticker; keyword arguments replace or, with None, remove one."""
    charts = {ticker: plain_chart(ticker) for ticker in [*TICKERS, *SERIES]} | changes
    return {ticker: chart for ticker, chart in charts.items() if chart is not None}


def patient(**changes: Any) -> RunConfig:
    """Return the configuration with another patience."""
    return load_config(market="us", overrides={"data": {"yahoo": changes}})


class Yahoo:
    """One run over a replayed Yahoo; what it asked for and how long it would have slept."""

    def __init__(self, tmp_path: Path, symbols: Path) -> None:
        self.cache_dir, self.symbols = tmp_path / "cache", symbols
        self.asked: list[str] = []
        self.sleeps: list[float] = []

    def load(
        self,
        payloads: dict[str, Any],
        script: Script | None = None,
        config: RunConfig = CONFIG,
    ) -> RawData:
        session = ReplayingSession(payloads, script)
        request = YahooRequest(self.symbols, START, END, TODAY)
        self.sleeps.clear()
        try:
            link = replay_link(session, self.sleeps)
            return yahoo.load(request, config, self.cache_dir, link)
        finally:
            self.asked = session.charts


@pytest.fixture
def source(tmp_path: Path, symbols: Path) -> Yahoo:
    return Yahoo(tmp_path, symbols)


def test_everything_arrives_once_and_in_the_form_of_the_store(
    source: Yahoo, tmp_path: Path
) -> None:
    raw = source.load(everything())
    assert source.asked == [*TICKERS, *SERIES]
    assert raw.sectors.rows() == sorted(STOCKS.items())
    # weekdays from 2 to 13 January 2023: ten rows, closes 101 to 110
    assert raw.bars.height == 10 * len(STOCKS)
    first = raw.bars.row(0, named=True)
    prices = {"open": 100.0, "high": 102.0, "low": 99.0, "close": 101.0, "adj_close": 101.0}
    events = {"volume": 1000.0, "dividend": 0.0, "split": 1.0}
    assert first == {"date": START, "symbol": "AAA", **prices, **events}
    assert raw.index["close"].to_list() == [101.0 + n for n in range(10)]
    assert raw.macro["series"].unique().sort().to_list() == sorted(
        ["VIX", "IRX", "DXY", "WTI_FUTURE", "GOLD"]
    )
    collecting.write_raw(raw, tmp_path / "raw")
    assert read_raw(tmp_path / "raw").bars.equals(raw.bars)


def test_only_the_pause_is_slept_where_all_goes_well(source: Yahoo) -> None:
    source.load(everything())
    assert source.sleeps == [CONFIG.data.yahoo.pause_seconds] * len([*TICKERS, *SERIES])


def test_splits_after_the_span_are_undone_so_that_prices_are_those_traded() -> None:
    # Apple as served today: divided by 28 before the split of 9 June 2014, by 4 before 2020-08-31
    payloads = {"AAPL": json.loads((RECORDED / "AAPL.json").read_text())}
    link = replay_link(ReplayingSession(payloads), [])
    served = link.fetch("AAPL", date(2014, 5, 1))
    bars = as_traded(served, date(2014, 5, 1), date(2014, 12, 31))
    assert bars["date"].to_list() == [
        date(2014, 5, 7),
        date(2014, 5, 8),
        date(2014, 6, 6),
        date(2014, 6, 9),
    ]
    # as printed on those days
    assert bars["close"].to_list() == pytest.approx([592.33, 587.99, 645.57, 93.70], rel=1e-6)
    assert bars["open"].to_list() == pytest.approx([595.25, 588.25, 649.90, 92.70], rel=1e-6)
    assert bars["volume"].to_list() == [10102300, 8224900, 12497800, 75414997]
    assert bars["dividend"].to_list() == pytest.approx([0.0, 3.29, 0.0, 0.0])
    assert bars["split"].to_list() == [1.0, 1.0, 1.0, 7.0]
    # 592.33 / 28 x (1 - 3.29 / 592.33)
    assert bars["adj_close"][0] == pytest.approx(21.037143, rel=1e-6)


@pytest.mark.parametrize("split", [4.0, 2.0, 0.25])
@pytest.mark.parametrize("is_counted", [True, False])
def test_split_that_yahoo_has_not_counted_yet_is_not_undone(
    split: float, *, is_counted: bool
) -> None:
    days = pd.bdate_range("2011-01-03", periods=8, tz="America/New_York")
    traded = np.array(
        [100.0, 101.0, 99.0, 100.0, *(np.array([100.0, 101.0, 102.0, 103.0]) / split)]
    )
    before = np.arange(8) < 4
    served = np.where(before & is_counted, traded / split, traded)
    frame = pd.DataFrame(dict.fromkeys(("Open", "High", "Low", "Close", "Adj Close"), served), days)
    frame["Volume"] = np.where(before & is_counted, 1000.0 * split, 1000.0)
    frame["Dividends"] = 0.0
    frame["Stock Splits"] = np.where(np.arange(8) == 4, split, 0.0)
    bars = as_traded(frame, date(2011, 1, 3), date(2011, 1, 31))
    np.testing.assert_allclose(bars["close"].to_numpy(), traded)
    np.testing.assert_allclose(bars["volume"].to_numpy(), 1000.0)
    # without a dividend the adjusted closes are those traded, over the split before its day
    expected = np.where(before, traded / split, traded)
    np.testing.assert_allclose(bars["adj_close"].to_numpy(), expected)


@pytest.mark.parametrize("ratio", [1.5, 1.237, 3.0])
def test_volumes_do_not_change_by_the_rounding_of_a_later_split(ratio: float) -> None:
    volumes = np.array([1003.0, 12345.0, 7.0, 99999.0, 5.0])
    days = pd.bdate_range("2011-01-03", periods=5, tz="America/New_York")
    prices = ("Open", "High", "Low", "Close", "Adj Close")
    frame = pd.DataFrame(dict.fromkeys(prices, 100.0 / ratio), days)
    frame["Volume"] = np.append(np.round(volumes[:4] * ratio), volumes[4])
    frame = frame.assign(Dividends=0.0, **{"Stock Splits": [0.0] * 4 + [ratio]})
    bars = as_traded(frame, date(2011, 1, 3), date(2011, 1, 31))
    assert bars["volume"].to_list() == volumes.tolist()


@pytest.mark.parametrize("n_days", [1, 3])
def test_days_after_the_last_close_are_not_known_yet(n_days: int) -> None:
    """Yahoo prints a row for an event before the prices of the day."""
    days = pd.bdate_range("2011-01-03", periods=8, tz="America/New_York")
    closes = np.where(np.arange(8) < 8 - n_days, 100.0, np.nan)
    closes[2] = np.nan  # a hole is no end
    frame = pd.DataFrame(dict.fromkeys(("Open", "High", "Low", "Close", "Adj Close"), closes), days)
    frame = frame.assign(Volume=0.0, Dividends=np.where(np.arange(8) == 7, 1.0, 0.0))
    frame["Stock Splits"] = 0.0
    bars = as_traded(frame, date(2011, 1, 3), date(2011, 1, 31))
    assert bars["date"].to_list() == [day.date() for day in days[: 8 - n_days]]
    assert bars["close"].null_count() == 1


def test_prices_as_traded_agree_with_the_adjusted_ones(source: Yahoo) -> None:
    days = {date(2023, 1, 6): (2, 1)}
    raw = source.load(everything(AAA=plain_chart("AAA", splits=days)))
    # closes as traded 202, 204, 206, 208 before the split on the fifth day, 105 on it
    assert raw.bars["close"].head(5).to_list() == [202.0, 204.0, 206.0, 208.0, 105.0]
    table = validate(raw, CONFIG.data.validation, "XNYS").table
    assert table.filter(pl.col("rule").is_in(["adjustment_gap", "large_return"])).is_empty()


def test_a_bar_belongs_to_the_exchange_s_own_day() -> None:
    # Mumbai opens at 3:45 UTC; its midnight is 18:30 UTC of the day before
    payloads = {"A.NS": plain_chart("A.NS", 3, zone=("Asia/Kolkata", 3.75))}
    served = replay_link(ReplayingSession(payloads), []).fetch("A.NS", START)
    assert served.index[0].tz_convert("UTC").date() == date(2023, 1, 1)
    days = as_traded(served, START, END)["date"].to_list()
    assert days == [date(2023, 1, 2), date(2023, 1, 3), date(2023, 1, 4)]


@pytest.mark.parametrize(
    "failure",
    [429, CONNECTION_LOST, "<html>Will be right back</html>", NO_FIELDS, "{"],
    ids=["rate limit", "network", "html", "no fields", "half"],
)
def test_two_failures_are_waited_out(source: Yahoo, failure: Any) -> None:
    if failure == 429:  # yfinance itself asks a second time, with other cookies, before it raises
        script: Script = {"CCC": [429, 429, 429, 429]}
    else:
        script = {"CCC": [failure, failure]}
    raw = source.load(everything(), script)
    assert set(raw.bars["symbol"]) == set(STOCKS)
    pause = CONFIG.data.yahoo.pause_seconds
    first, second = [slept for slept in source.sleeps if slept != pause]
    # 2 and 4 seconds, times 0.5 to 1.5
    assert 1.0 <= first <= 3.0
    assert 2.0 <= second <= 6.0


def test_waits_double_up_to_the_longest(source: Yahoo) -> None:
    config = patient(attempts=7, first_delay_seconds=10.0, max_delay_seconds=60.0)
    raw = source.load(everything(), {"AAA": [CONNECTION_LOST] * 6}, config)
    assert "AAA" in set(raw.bars["symbol"])
    waits = source.sleeps[:6]
    for wait, exponential in zip(waits, [10.0, 20.0, 40.0, 60.0, 60.0, 60.0], strict=True):
        assert 0.5 * exponential <= wait <= 1.5 * exponential
    assert len({wait / 60.0 for wait in waits[3:]}) == 3  # jitter: no two alike


def test_an_unknown_ticker_is_not_asked_for_again(source: Yahoo, warned: list[str]) -> None:
    raw = source.load(everything(BBB=None), config=patient(max_failed_share=0.2))
    assert set(source.sleeps) == {CONFIG.data.yahoo.pause_seconds}
    assert set(raw.bars["symbol"]) == set(STOCKS) - {"BBB"}
    assert set(raw.sectors["symbol"]) == set(STOCKS) - {"BBB"}
    assert sum("not collected, BBB: unknown to Yahoo" in note for note in raw.notes) == 1
    assert [line for line in warned if line.startswith("failed: BBB: ")]


def test_one_of_five_is_too_many_at_ten_percent(source: Yahoo) -> None:
    with pytest.raises(DataError, match=r"1 of 5 symbols failed, at most 0 may .* BBB: unknown"):
        source.load(everything(BBB=None), config=patient(max_failed_share=0.1))


def test_a_symbol_that_never_answers_is_listed_and_the_rest_goes_on(source: Yahoo) -> None:
    script: Script = {"BBB": [CONNECTION_LOST] * 6}
    raw = source.load(everything(), script, patient(max_failed_share=0.2))
    assert set(raw.bars["symbol"]) == set(STOCKS) - {"BBB"}
    assert any("BBB: ConnectionError: connection lost" in note for note in raw.notes)


def test_all_symbols_failing_is_refused_whatever_the_share(source: Yahoo) -> None:
    gone = dict.fromkeys(TICKERS)
    with pytest.raises(DataError, match="5 of 5 symbols failed"):
        source.load(everything(**gone), config=patient(max_failed_share=1.0))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (plain_chart("BBB", 0), "found none"),
        (NOT_FOUND, "No data found, symbol may be delisted|unknown to Yahoo"),
    ],
    ids=["empty frame", "no such symbol"],
)
def test_a_delisted_symbol_is_named_with_its_reason(
    source: Yahoo, payload: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        source.load(everything(BBB=payload), config=patient(max_failed_share=0.0))


def test_a_symbol_without_a_price_in_the_span_is_named(source: Yahoo) -> None:
    later = json.loads((RECORDED / "AAPL.json").read_text())  # ends in 2020
    with pytest.raises(DataError, match=r"from 2023-01-02 to 2023-01-13, found only 2014-05-07"):
        source.load(everything(BBB=later), config=patient(max_failed_share=0.0))


def test_a_missing_series_is_noted_and_fails_nothing(source: Yahoo) -> None:
    raw = source.load(everything(**{"^VIX": None, "^SP500TR": None}))
    assert "VIX" not in set(raw.macro["series"])
    assert raw.index.is_empty()
    noted = [note for note in raw.notes if note.startswith("series not collected, ")]
    assert [note.split(" (")[0].split(", ")[1] for note in noted] == ["index", "VIX"]


def test_a_lasting_rate_limit_ends_the_run_and_the_next_one_goes_on(source: Yahoo) -> None:
    blocked: Script = {ticker: [429] * 20 for ticker in [*TICKERS[2:], *SERIES]}
    with pytest.raises(DataError, match=r"3 tickers in a row .* 2 of 11 tickers are kept"):
        source.load(everything(), blocked)
    assert set(source.asked) == set(TICKERS)  # the series were not tried in vain
    raw = source.load(everything())
    assert source.asked == [*TICKERS[2:], *SERIES]
    assert set(raw.bars["symbol"]) == set(STOCKS)


def test_after_ctrl_c_only_the_missing_are_fetched(source: Yahoo, warned: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        source.load(everything(), {"CCC": [KeyboardInterrupt()]})
    assert source.asked == ["AAA", "BBB", "CCC"]
    assert any("stopped with 2 of 11 tickers in" in line for line in warned)
    resumed = source.load(everything())
    assert source.asked == ["CCC", "D-D", "EEE", *SERIES]
    again = source.load({})  # Yahoo has nothing any more, and is not asked
    assert source.asked == []
    assert again.bars.equals(resumed.bars)
    assert again.macro.equals(resumed.macro)


KILLED = """
import os, signal, sys
from datetime import date
from pathlib import Path
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.sources.yahoo import download as yahoo
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.sources.yahoo.download import YahooRequest
from tests.data.sources.yahoo.yahoo_replay import ReplayingSession, plain_chart, replay_link

class Killer(ReplayingSession):
    def get(self, url, **asked):
        if "CCC" in url:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get(url, **asked)

symbols, cache_dir = map(Path, sys.argv[1:])
live_link(cache_dir)
session = Killer({name: plain_chart(name) for name in ("AAA", "BBB", "CCC")})
request = YahooRequest(symbols, date(2023, 1, 2), date(2023, 1, 13), date(2024, 1, 1))
yahoo.load(request, load_config(market="us"), cache_dir, replay_link(session, []))
"""


def test_after_a_kill_only_the_missing_are_fetched(source: Yahoo, repository: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(source.symbols), str(source.cache_dir)]
    killed = subprocess.run(  # noqa: S603 -- our own interpreter
        command, cwd=repository, capture_output=True, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    raw = source.load(everything())
    assert source.asked == ["CCC", "D-D", "EEE", *SERIES]
    assert set(raw.bars["symbol"]) == set(STOCKS)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
def test_a_damaged_cache_file_is_fetched_again_and_reported(
    source: Yahoo, damage: Callable[[Path], None]
) -> None:
    whole = source.load(everything())
    damage(HistoryCache(source.cache_dir / f"{START}_{END}").path("BBB"))
    raw = source.load(everything())
    assert source.asked == ["BBB"]
    assert raw.bars.equals(whole.bars)
    assert "damaged file in the cache, fetched again: BBB" in raw.notes


def test_a_cached_table_of_another_form_is_fetched_again(source: Yahoo) -> None:
    source.load(everything())
    cache = HistoryCache(source.cache_dir / f"{START}_{END}")
    cache.keep("BBB", pl.DataFrame({"date": [START], "close": [1.0]}))
    assert cache.read("BBB") is None
    source.load(everything())
    assert source.asked == ["BBB"]


def test_another_span_has_another_cache(source: Yahoo, symbols: Path) -> None:
    source.load(everything())
    session = ReplayingSession(everything())
    request = YahooRequest(symbols, START, date(2023, 1, 12), TODAY)
    raw = yahoo.load(request, CONFIG, source.cache_dir, replay_link(session, []))
    assert session.charts == [*TICKERS, *SERIES]
    assert raw.bars["date"].max() == date(2023, 1, 12)


def request(**changes: Any) -> YahooRequest:
    return YahooRequest(**{"symbols": None, "start": START, "end": END, "today": TODAY} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": END, "end": START}, "start before end, found 2023-01-13 and 2023-01-02"),
        ({"start": END, "end": END}, "start before end"),
        ({"end": TODAY}, "before today, 2024-01-01, whose bar is not final; found 2024-01-01"),
    ],
)
def test_days_that_are_no_past_span_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_plan(request(**changes), CONFIG)


def test_a_market_without_a_list_needs_one() -> None:
    with pytest.raises(DataError, match=r"market sample; expected --market nse or us, or --symb"):
        make_plan(request(), load_config(market="sample"))


def test_an_unknown_market_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="atlantis"):
        load_config(market="atlantis")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,sector\n", "expected a row for each symbol, found none"),
        ("symbol,name\nA,b\n", "found no sector .* among symbol, name"),
        ("symbol,sector\nA,Energy\nA,Energy\n", "expected each symbol once, found A twice"),
        ("symbol,sector\nA,Oil\n", "expected one of Energy, .* found Oil for A"),
        ("symbol,sector\nA,\n", "column sector: expected a value in every row"),
    ],
)
def test_a_symbols_file_that_breaks_its_format_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        make_plan(request(symbols=path), CONFIG)


def test_a_missing_symbols_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"own\.csv does not exist"):
        make_plan(request(symbols=tmp_path / "own.csv"), CONFIG)


def test_a_ticker_is_given_or_made_from_the_symbol(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("symbol,sector,ticker\nMM,Auto,M&M.NS\nTCS,IT,\n")
    plan = make_plan(request(symbols=path), load_config(market="nse"))
    assert plan.stocks["ticker"].to_list() == ["M&M.NS", "TCS.NS"]


def test_days_default_to_what_the_profile_needs() -> None:
    plan = make_plan(request(start=None, end=None), load_config(experiment="yahoo_us"))
    # trains from 2016-01-01, tests to 2023-12-31
    assert (plan.start, plan.end) == (date(2014, 1, 1), date(2023, 12, 31))


@pytest.mark.parametrize(("market", "n_symbols"), [("us", 99), ("nse", 57)])
def test_shipped_lists_serve_every_sector_and_spell_tickers_as_yahoo_does(
    market: str, n_symbols: int
) -> None:
    config = load_config(market=market)
    plan = make_plan(request(), config)
    assert plan.stocks["ticker"].n_unique() == plan.stocks.height == n_symbols
    assert set(plan.stocks["sector"]) == set(config.market_profile.sectors)
    if market == "us":
        assert set(plan.stocks["sector"].value_counts()["count"]) == {9}
        assert not plan.stocks["ticker"].str.contains(".", literal=True).any()
    else:
        assert plan.stocks["ticker"].str.ends_with(".NS").all()


@pytest.mark.parametrize("market", ["us", "nse"])
def test_the_experiment_of_a_market_asks_for_no_series_that_yahoo_lacks(market: str) -> None:
    config = load_config(experiment=f"yahoo_{market}")
    assert config.market == market
    series = pl.read_csv(SYMBOLS_DIR / f"{market}_series.csv")["series"].to_list()
    assert find_macro_problems(config.market_profile.macro_features, frozenset(series)) == []
    assert len(config.market_profile.macro_features) == 18


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `collect-data --source yahoo` over a replayed Yahoo; exit code, stdout, stderr."""

    def run(
        payloads: dict[str, Any], *arguments: object, script: Script | None = None
    ) -> tuple[int, str, str]:
        session = ReplayingSession(payloads, script)
        monkeypatch.setattr(collecting, "live_link", lambda _: replay_link(session, []))
        options = ["--source", "yahoo", "--data-dir", tmp_path / "data" / "raw", *arguments]
        monkeypatch.setattr(sys, "argv", ["main.py", "collect-data", *map(str, options)])
        capfd.readouterr()
        code = cli.main()
        return (code, *capfd.readouterr())

    return run


def test_the_command_writes_data_and_says_what_train_makes_of_them(
    command: Callable[..., tuple[int, str, str]], symbols: Path, tmp_path: Path
) -> None:
    span = ["--start", START, "--end", END]
    code, out, err = command(everything(), "--market", "us", *span, "--symbols", symbols)
    assert "5 symbols from yahoo" in out
    assert code == 1  # days of a month make no market
    assert "would refuse these data: no universe" in err.splitlines()[-1]
    assert (tmp_path / "data" / "yahoo" / f"{START}_{END}" / "%5EVIX.history").is_file()
    assert read_raw(tmp_path / "data" / "raw").source == "yahoo"


def test_too_many_failures_exit_with_1_and_leave_the_old_data(
    command: Callable[..., tuple[int, str, str]], symbols: Path, tmp_path: Path
) -> None:
    options = ["--start", START, "--end", END, "--symbols", symbols]
    assert "5 symbols from yahoo" in command(everything(), *options)[1]
    raw = tmp_path / "data" / "raw"
    before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    options[3] = date(2023, 1, 12)  # another span: nothing of it is in the cache
    code, out, err = command(everything(AAA=None, BBB=None), *options)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("DataError: source yahoo: 2 of 5 symbols failed, at most 0 may")
    assert "AAA: " in last
    assert "BBB: " in last
    assert {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()} == before


def test_ctrl_c_says_that_the_same_command_goes_on(
    command: Callable[..., tuple[int, str, str]], symbols: Path, tmp_path: Path
) -> None:
    options = ["--start", START, "--end", END, "--symbols", symbols]
    code, out, err = command(everything(), *options, script={"CCC": [KeyboardInterrupt()]})
    assert (code, out) == (cli.STOPPED, "")
    assert err.splitlines()[-1] == "stopped at once; the same command fetches the rest"
    assert not (tmp_path / "data" / "raw").exists()
    assert "5 symbols from yahoo" in command(everything(), *options)[1]


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--end", "2023-01-01", "--start", "2023-06-01"], "--start and --end"),
        (["--market", "atlantis"], "atlantis"),
        (["--source", "sample", "--start", "2023-01-01"], "belong to the source yahoo"),
        (["--input", "x.csv"], "belong to the source files"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(
    command: Callable[..., tuple[int, str, str]],
    options: list[str],
    mentioned: str,
    tmp_path: Path,
) -> None:
    code, out, err = command({}, *options)
    assert (code, out) == (1, "")
    assert mentioned in err.splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_a_day_that_is_no_date_is_a_usage_error(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = command({}, "--start", "last year")
    assert code == 2
    assert "last year" in err
