"""Every row of the data folder's QUIRKS.md about US daily data, on the real file.

| row | test_... | what becomes of it |
|---|---|---|
| split with flag | declared_splits_* | adjusted |
| split without flag, mixed history | undeclared_splits_* | named, the night earns 0 |
| real crash of the same size | real_crashes_*, real_falls_* | kept |
| adjusted series wrong | wrong_adjusted_closes_*, an_adjustment_that_* | named, row out |
| spin-off booked as dividend | spin_offs_booked_as_dividends_*, spin_off_dividend_* | earned; out |
| spin-off booked as fractional split | spin_offs_booked_as_splits_* | in the return |
| spliced company | the_level_of_a_spliced_company_* | only returns enter |
| delisting, takeover | delistings_* | named, cash at the last good close |
| rename | renames_* | like a delisting: no file says what follows |
| late listing, fewer sectors | late_listings_*, late_sector_funds_* | not there before |
| zero volume, flat bar | bars_without_a_trade_* | named, no bar |
| halt then stale repeats | a_halt_*, stale_repeats_* | named, no bars; the collapse stays |
| missing single day | missing_single_days_* | named, a halt |
| duplicate date | duplicate_dates_* | named, the first copy stays |
| null row | the_null_row_* | named, no bar |
| text inside csv | text_inside_*, every_line_*, files_without_*, missing_headers_* | named |
| open outside high/low | opens_outside_*, vix_ranges_* | named, row out; VIX: the close is read |
| half day | half_days_* | an ordinary session |
| unscheduled closure | unscheduled_closures_* | no session, no gap |
| holidays differ | bond_holidays_* | the last value published before |
| release lag, revised values | monthly_values_*, revised_series_* | delayed; left out |
| look-ahead in adjusted levels | levels_of_adj_close_* | levels do not enter |
| unit change, stale snapshot | fundamental_snapshots_* | no source reads them: refused |
"""

import datetime
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality.validation import ValidationReport, bad_rows, validate
from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import FeatureError, HrlSarpError
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.market.assemble import assemble_market
from hrl_sarp.market.rates import published_series
from hrl_sarp.market.releases import release_of

CONFIG = load_config(market="us")
US_STOCKS = (
    *("AAPL", "C", "CHTR", "CTVA", "DD", "DXCM", "EBAY", "GOOGL", "KIM", "KSU", "NFLX", "ODFL"),
    *("PNR", "PYPL", "TRMB", "VNO", "WELL", "ZBRA", "MSFT", "JNJ", "PG", "NEE", "CVX"),
)
"""Stocks of the rows below, and one more for each sector that they miss."""
UNDECLARED = {
    "AMZN": ("2022-06-06", 20),
    "GOOG": ("2022-07-18", 20),
    "GOOGL": ("2022-07-18", 20),
    "TSLA": ("2022-08-25", 3),
    "PANW": ("2022-09-13", 3),
    "DXCM": ("2022-06-13", 4),
    "MNST": ("2023-03-27", 2),
    "NVDA": ("2024-06-10", 10),
}
"""Splits of us_messy: day and new shares for an old one."""


@dataclass(frozen=True)
class Checked:
    """Raw data, what validation says of them, and the returns that are left."""

    raw: RawData
    report: ValidationReport
    prices: PricePanel

    def finding(self, rule: str, symbol: str, day: str) -> dict[str, Any]:
        """The one finding of a rule on a day."""
        return self.report.table.filter(
            pl.col("rule") == rule,
            pl.col("symbol") == symbol,
            pl.col("date") == datetime.date.fromisoformat(day),
        ).row(0, named=True)

    def of_rule(self, rule: str) -> pl.DataFrame:
        return self.report.table.filter(pl.col("rule") == rule)

    def days_of(self, rule: str, symbol: str) -> list[str]:
        return [str(day) for day in self.of_rule(rule).filter(symbol=symbol)["date"]]

    def at(self, symbol: str, day: str) -> tuple[int, int]:
        """Row and column of a stock's day."""
        row = int(np.searchsorted(self.prices.dates, np.datetime64(day)))
        assert self.prices.dates[row] == np.datetime64(day)
        return row, self.prices.symbols.index(symbol)

    def total_return(self, symbol: str, day: str) -> float:
        place = self.at(symbol, day)
        return float(self.prices.session_growth[place]) - 1

    def is_bar(self, symbol: str, day: str) -> bool:
        return bool(self.prices.tradable[self.at(symbol, day)])

    def is_out(self, symbol: str, day: str) -> bool:
        return (symbol, datetime.date.fromisoformat(day)) in bad_rows(self.report).rows()

    def last_listed(self, symbol: str) -> str:
        listed = self.prices.listed[:, self.prices.symbols.index(symbol)]
        return str(self.prices.dates[np.flatnonzero(listed)[-1]])


def check(raw: RawData) -> Checked:
    report = validate(raw, CONFIG.data.validation, "XNYS")
    sectors = raw.sectors["sector"].unique().sort().to_list()
    return Checked(raw, report, build_panel(raw, report.table, sectors))


def folder_of(data_folder: Path, name: str) -> Path:
    if not (data_folder / name).is_dir():
        pytest.skip(f"the data folder has no {name}")
    return data_folder / name


@pytest.fixture(scope="module")
def us(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """The rows of some stocks of us_daily, with us_macro."""
    source, inputs = folder_of(data_folder, "us_daily"), tmp_path_factory.mktemp("us_daily")
    named = pl.scan_parquet(source / "prices.parquet").filter(pl.col("symbol").is_in(US_STOCKS))
    named.sink_parquet(inputs / "prices.parquet")
    (inputs / "sectors.csv").write_bytes((source / "sectors.csv").read_bytes())
    return check(folder.load(inputs, folder_of(data_folder, "us_macro")))


@pytest.fixture(scope="module")
def market(us: Checked) -> Market:
    return assemble_market(us.raw, CONFIG)


@pytest.fixture(scope="module")
def messy(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """All rows of us_messy, in one sector: only the rows matter here."""
    source, inputs = folder_of(data_folder, "us_messy"), tmp_path_factory.mktemp("us_messy")
    (inputs / "prices.parquet").write_bytes((source / "prices.parquet").read_bytes())
    symbols = pl.read_parquet(source / "prices.parquet")["symbol"].unique().sort()
    pl.DataFrame({"symbol": symbols, "sector": "Any"}).write_csv(inputs / "sectors.csv")
    return check(folder.load(inputs))


@pytest.fixture(scope="module")
def downloads(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """The twelve broken downloads of us_messy, byte for byte."""
    source, inputs = folder_of(data_folder, "us_messy") / "raw", tmp_path_factory.mktemp("raw")
    names = [path.name.removesuffix(".csv.gz") for path in source.glob("*.csv.gz")]
    for path in source.glob("*.csv.gz"):
        (inputs / path.name).write_bytes(path.read_bytes())
    pl.DataFrame({"symbol": names, "sector": "Any"}).write_csv(inputs / "sectors.csv")
    return check(folder.load(inputs))


def test_declared_splits_are_no_crash(us: Checked) -> None:
    # 93.70 x 7.000007 / 645.57 and 44.16 x 0.1 / 4.52
    assert us.total_return("AAPL", "2014-06-09") == pytest.approx(0.0160, abs=1e-4)
    assert us.total_return("C", "2011-05-09") == pytest.approx(-0.0230, abs=1e-4)
    assert us.of_rule("undeclared_split").is_empty()


@pytest.mark.parametrize("symbol", UNDECLARED)
def test_undeclared_splits_are_named_and_only_the_day_itself_is_earned(
    messy: Checked, symbol: str
) -> None:
    day, ratio = UNDECLARED[symbol]
    value = messy.finding("undeclared_split", symbol, day)["value"]
    assert 1 + value == pytest.approx(1 / ratio, rel=0.05)
    place = messy.at(symbol, day)
    assert messy.prices.tradable[place]
    assert messy.prices.overnight_return[place] == 0
    assert abs(messy.prices.intraday_return[place]) < 0.05


def test_no_other_move_counts_as_an_undeclared_split(messy: Checked) -> None:
    found = messy.of_rule("undeclared_split").select("symbol", pl.col("date").cast(pl.String))
    assert set(found.rows()) == {(symbol, day) for symbol, (day, _) in UNDECLARED.items()}


@pytest.mark.parametrize(
    ("symbol", "day", "simple_return"),
    [
        ("SIVB", "2023-03-09", 106.040001 / 267.829987 - 1),
        ("SIVB", "2023-03-28", 0.40 / 106.040001 - 1),
        ("DXCM", "2024-07-26", 64.0 / 107.849998 - 1),
        ("FRC", "2023-03-13", 31.209999 / 81.760002 - 1),
        ("FRC", "2023-05-03", 0.3336 / 3.51 - 1),  # near 1 for 10, but it went on falling
        ("FRC", "2023-04-25", 8.1 / 16.0 - 1),  # near 1 for 2, but it fell during the day
    ],
)
def test_real_crashes_survive(messy: Checked, symbol: str, day: str, simple_return: float) -> None:
    assert messy.is_bar(symbol, day)
    assert messy.total_return(symbol, day) == pytest.approx(simple_return)


def test_real_falls_of_us_daily_survive(us: Checked) -> None:
    assert us.total_return("NFLX", "2011-10-25") == pytest.approx(-0.349, abs=1e-3)


@pytest.mark.parametrize(
    ("symbol", "day", "gap"),
    [("TRMB", "2007-02-23", 1.0), ("ZBRA", "2003-08-21", 0.4906), ("ZBRA", "2004-08-25", 0.5097)],
)
def test_wrong_adjusted_closes_are_named_and_kept_out(
    us: Checked, symbol: str, day: str, gap: float
) -> None:
    assert us.finding("adjustment_gap", symbol, day)["value"] == pytest.approx(gap, abs=1e-4)
    assert us.is_out(symbol, day)
    row, column = us.at(symbol, day)
    assert not us.prices.tradable[row, column]
    total = us.prices.session_growth - 1
    assert np.abs(total[row : row + 4, column]).max() < 0.08


def test_an_adjustment_that_is_taken_back_leaves_the_true_move(us: Checked) -> None:
    assert us.is_out("TRMB", "2007-02-26")  # adjustment_reversal
    close = dict(
        us.raw.bars.filter(pl.col("symbol") == "TRMB", pl.col("date").dt.year() == 2007)
        .select(pl.col("date").cast(pl.String), "close")
        .iter_rows()
    )
    # the 2:1 split took place on 2007-02-23, with no flag: the price has halved since the 22nd
    true = 2 * close["2007-02-27"] / close["2007-02-22"] - 1
    assert us.total_return("TRMB", "2007-02-27") == pytest.approx(true, abs=1e-4)


@pytest.mark.parametrize(
    ("symbol", "day", "simple_return"),
    [
        ("EBAY", "2015-07-20", (28.57 + 38.39) / 66.29 - 1),
        ("GOOGL", "2014-04-03", (571.50 + 567.9717) / 1135.10 - 1),
    ],
)
def test_spin_offs_booked_as_dividends_are_part_of_the_return(
    us: Checked, symbol: str, day: str, simple_return: float
) -> None:
    assert us.total_return(symbol, day) == pytest.approx(simple_return, abs=1e-4)


def test_spin_off_dividend_above_the_price_is_named_and_kept_out(us: Checked) -> None:
    # 181.00 of Stilwell shares on a close of 93.75 before: a return of +100 % that nobody earned
    assert us.finding("dividend_over_price", "KSU", "2000-07-13")["value"] == 181.0
    assert us.is_out("KSU", "2000-07-13")
    place = us.at("KSU", "2000-07-14")
    assert us.prices.overnight_return[place] == 0


@pytest.mark.parametrize(
    ("symbol", "day", "ratio"), [("VNO", "2017-07-18", 1.237), ("PNR", "2018-05-01", 1.489)]
)
def test_spin_offs_booked_as_splits_are_part_of_the_return(
    us: Checked, symbol: str, day: str, ratio: float
) -> None:
    row = us.raw.bars.filter(symbol=symbol, date=datetime.date.fromisoformat(day))
    assert row["split"].item() == pytest.approx(ratio, abs=1e-3)
    assert abs(us.total_return(symbol, day)) < 0.02
    assert us.is_bar(symbol, day)


def test_the_level_of_a_spliced_company_does_not_enter(us: Checked) -> None:
    # adj_close 105.64 over a close of 36.49: 1.487 x 36.49 / 54.42 in the return
    assert us.total_return("DD", "2019-04-02") == pytest.approx(-0.0029, abs=1e-4)
    place = us.at("DD", "2019-04-02")
    assert us.prices.dollar_volume[place] == pytest.approx(36.49 * 22_565_272)


@pytest.mark.parametrize(
    ("symbol", "day", "close"),
    [
        ("TWTR", "2022-10-27", 53.700001),
        ("FRC", "2023-06-30", 0.55),
        # flat bars without volume follow the last trade: ATVI up to 20 October, DRE to January
        ("ATVI", "2023-10-12", 94.419998),
        ("DRE", "2022-09-30", 48.200001),
    ],
)
def test_delistings_are_named_at_the_last_good_close(
    messy: Checked, symbol: str, day: str, close: float
) -> None:
    assert messy.finding("ends_early", symbol, day)["value"] == pytest.approx(close)
    assert messy.last_listed(symbol) == day


@pytest.mark.parametrize(
    ("symbol", "day", "close"),
    [("FB", "2022-08-10", 178.339996), ("ANTM", "2022-08-29", 488.51001)],
)
def test_renames_end_like_delistings(messy: Checked, symbol: str, day: str, close: float) -> None:
    assert messy.finding("ends_early", symbol, day)["value"] == pytest.approx(close)
    assert messy.last_listed(symbol) == day
    assert not {"META", "ELV"} & set(messy.prices.symbols)


@pytest.mark.parametrize(("symbol", "day"), [("CTVA", "2019-05-24"), ("PYPL", "2015-07-20")])
def test_late_listings_start_with_their_first_bar(us: Checked, symbol: str, day: str) -> None:
    row, column = us.at(symbol, day)
    assert not us.prices.listed[:row, column].any()
    assert us.prices.listed[row:, column].all()
    assert us.prices.overnight_return[row, column] == 0


def test_late_listings_are_bought_from_the_year_after_they_have_a_history(market: Market) -> None:
    # 2015 has 115 sessions of PYPL, 2016 the 240 that a choice needs; CTVA never has them
    eligible = market.eligible[:, market.symbols.index("PYPL")]
    assert market.dates[np.argmax(eligible)] == np.datetime64("2017-01-03")
    assert "CTVA" not in market.symbols


@pytest.mark.parametrize(("fund", "day"), [("XLRE", "2015-10-08"), ("XLC", "2018-06-21")])
def test_late_sector_funds_join_the_benchmark_without_a_jump(
    us: Checked, market: Market, fund: str, day: str
) -> None:
    funds = us.raw.macro.filter(pl.col("series").str.starts_with("ETF_")).pivot(
        "series", index="date", values="value"
    )
    closes = funds.sort("date").filter(pl.col("date") <= datetime.date.fromisoformat(day)).tail(2)
    assert closes[f"ETF_{fund}"].is_null().to_list() == [True, False]
    first, last = (np.array(row, dtype=float) for row in closes.drop("date").rows())
    moves = last / first - 1  # NaN for the funds that were not there the day before
    row = int(np.searchsorted(market.dates, np.datetime64(day)))
    assert market.benchmark_return[row] == pytest.approx(np.nanmean(moves), abs=1e-9)


def test_bars_without_a_trade_are_no_bars(us: Checked, messy: Checked) -> None:
    assert us.finding("no_trade", "DXCM", "2016-07-21")["value"] == 84.63
    assert us.is_out("DXCM", "2016-07-21")
    charter = us.days_of("no_trade", "CHTR")
    assert (len(charter), charter[0], charter[-1]) == (17, "2010-01-06", "2010-09-08")
    # 81 rows of ODFL have no volume; in one of them the price moved, so the bar stays
    assert len(us.days_of("no_trade", "ODFL")) == 80
    assert us.days_of("zero_volume", "ODFL") == ["2000-08-15"]
    assert len(messy.days_of("no_trade", "DRE")) == 45
    assert not us.is_bar("CHTR", "2010-04-08")
    assert us.prices.listed[us.at("CHTR", "2010-04-08")]


def test_a_halt_is_no_bar_and_the_collapse_after_it_is_earned(messy: Checked) -> None:
    halted = messy.days_of("no_trade", "SIVB")
    assert (len(halted), halted[0], halted[-1]) == (10, "2023-03-10", "2023-03-27")
    assert not any(messy.is_bar("SIVB", day) for day in halted)
    # nobody could sell at the frozen 106.04: the night into 2023-03-28 runs from there to 0.53
    place = messy.at("SIVB", "2023-03-28")
    assert messy.prices.overnight_return[place] == pytest.approx(0.53 / 106.040001 - 1)


def test_stale_repeats_are_named_and_do_not_raise_the_dead(messy: Checked) -> None:
    repeats = messy.days_of("stale_repeat", "SIVB")
    copies = messy.days_of("duplicate_row", "SIVB")
    later = [day for day in copies if day > "2024"]
    # the row stands 18 times: the first of them, 13 repeats and 4 copies of the same date
    assert (len(repeats), len(later)) == (13, 4)
    assert messy.finding("ohlc_inconsistent", "SIVB", "2024-03-15")["value"] == pytest.approx(
        176.550003 / 106.040001 - 1
    )
    # 222-fold: one row of open 0, high 106.04, volume 0 stands between the end and the repeats
    assert "no open" in messy.finding("missing_value", "SIVB", "2024-03-11")["detail"]
    assert messy.finding("ends_early", "SIVB", "2023-05-11")["value"] == 0.475
    assert messy.last_listed("SIVB") == "2023-05-11"


@pytest.mark.parametrize(
    ("symbol", "day", "before"),
    [("WELL", "2006-04-19", "2006-04-18"), ("KIM", "2006-05-25", "2006-05-24")],
)
def test_missing_single_days_are_halts(us: Checked, symbol: str, day: str, before: str) -> None:
    last = us.raw.bars.filter(symbol=symbol, date=datetime.date.fromisoformat(before))
    found = us.finding("calendar_gap", symbol, day)
    assert (found["value"], found["count"]) == (last["close"].item(), 1)
    place = us.at(symbol, day)
    assert us.prices.listed[place]
    assert not us.prices.tradable[place]
    assert us.prices.overnight_return[place] == 0


def test_duplicate_dates_are_named_and_the_first_copy_stays(messy: Checked) -> None:
    assert messy.of_rule("duplicate_row").height == 1279
    found = messy.finding("duplicate_row", "TWTR", "2022-10-27")
    assert found["value"] == 140_362_225
    assert found["detail"].endswith("volume 140362225; kept 58847: volume 140501800")
    kept = messy.raw.bars.filter(symbol="TWTR", date=datetime.date(2022, 10, 27))
    assert kept["volume"].to_list() == [140_501_800]


def test_the_null_row_is_named_in_39_symbols_and_is_no_bar(messy: Checked) -> None:
    null_rows = messy.of_rule("missing_value").filter(date=datetime.date(2022, 1, 27))
    assert null_rows["symbol"].n_unique() == null_rows.height == 39
    # one more row lacks a price: an open of 0 long after the end of SIVB
    assert messy.of_rule("missing_value").height == 40
    assert messy.is_out("AAPL", "2022-01-27")
    assert not messy.is_bar("AAPL", "2022-01-27")


@pytest.mark.parametrize(
    ("symbol", "line", "n_lines", "text"),
    [
        # lines 2 to 9 of XOM are JSON, too: its first row is line 338
        ("XOM", 1, 337, "XOM.csv.gz line 1: {"),
        ("CCL", 5705, 137, 'CCL.csv.gz line 5705: <html lang="en-us">'),
    ],
)
def test_text_inside_a_csv_is_named_by_file_and_line(
    downloads: Checked, symbol: str, line: int, n_lines: int, text: str
) -> None:
    first = downloads.of_rule("junk_lines").filter(symbol=symbol).sort("value").row(0, named=True)
    assert (first["value"], first["count"], first["detail"]) == (line, n_lines, text)


def test_every_line_of_a_broken_download_is_a_row_or_named(
    downloads: Checked, data_folder: Path
) -> None:
    raw = downloads.raw
    for symbol in ("XOM", "CCL", "TWTR", "SIVB"):
        text = pl.read_csv(
            data_folder / "us_messy" / "raw" / f"{symbol}.csv.gz",
            has_header=False,
            separator="\x01",
            quote_char=None,
            new_columns=["line"],
        )["line"]
        headers = int(text.str.starts_with("Date,").sum())
        rows = raw.bars.filter(symbol=symbol).height
        named = raw.import_findings
        assert named is not None
        left_out = named.filter(
            pl.col("symbol") == symbol, pl.col("rule").is_in(["junk_lines", "duplicate_row"])
        )
        assert headers + rows + left_out["count"].sum() == text.str.strip_chars().ne("").sum()


def test_files_without_a_row_are_named_and_left_out(downloads: Checked) -> None:
    found = downloads.of_rule("no_usable_row").select("symbol", "detail").rows()
    assert found == [
        ("BF.B", "BF.B.csv.gz line 1: 404 Not Found: Timestamp data missing."),
        ("BRK.B", "BRK.B.csv.gz line 1: 404 Not Found: No data found, symbol may be delisted"),
    ]
    assert not {"BF.B", "BRK.B"} & set(downloads.raw.bars["symbol"])
    assert any("without any usable row: BF.B (" in note for note in downloads.raw.notes)


def test_missing_headers_are_named_and_the_rows_are_those_of_the_table(
    downloads: Checked, messy: Checked
) -> None:
    headless = {"SGEN", "SIVB", "TWTR", "VIAC", "WRK", "XOM"}
    assert set(downloads.of_rule("no_header")["symbol"]) == headless
    # us_messy's table was made from the same files by another reader
    for symbol in headless:
        mine = downloads.raw.bars.filter(pl.col("symbol") == symbol)
        assert mine.equals(messy.raw.bars.filter(pl.col("symbol") == symbol))


def test_opens_outside_the_range_are_named_and_kept_out(messy: Checked) -> None:
    # 17.924999 over a high of 17.879999; 137.789993 below a low of 137.860107
    expected = {
        ("CCL", "2022-03-14"): 17.924999 / 17.879999 - 1,
        ("AAPL", "2022-05-23"): 1 - 137.789993 / 137.860107,
    }
    for (symbol, day), excess in expected.items():
        value = messy.finding("ohlc_inconsistent", symbol, day)["value"]
        assert value == pytest.approx(excess)
        assert messy.is_out(symbol, day)


def test_vix_ranges_are_named_and_the_close_is_read(us: Checked) -> None:
    # README of us_macro: 47 rows
    assert us.of_rule("macro_range").filter(symbol="VIX").height == 47
    found = us.finding("macro_range", "VIX", "1992-02-11")
    assert found["value"] == 19.24
    assert "high 18.57" in found["detail"]
    read = us.raw.macro.filter(date=datetime.date(1992, 2, 11))
    values = dict(read.select("series", "value").iter_rows())
    assert values["VIX"] == values["VIXCLS"]


def test_half_days_are_ordinary_sessions(us: Checked, market: Market) -> None:
    # Friday after Thanksgiving: trading ends at 13:00
    row = int(np.searchsorted(us.prices.dates, np.datetime64("2019-11-29")))
    traded = us.prices.dollar_volume[row - 20 : row + 1]
    assert np.median(traded[-1] / np.median(traded[:-1], axis=0)) < 0.7
    assert us.prices.tradable[row].all()
    assert us.report.table.filter(pl.col("date") == datetime.date(2019, 11, 29)).is_empty()
    assert market.is_week_end[market.dates == np.datetime64("2019-11-29")].all()


def test_unscheduled_closures_are_no_sessions_and_no_gaps(us: Checked, market: Market) -> None:
    closed = ["2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14"]
    closed += ["2012-10-29", "2012-10-30", "2018-12-05"]
    days = np.array(closed, dtype="datetime64[D]")
    assert not np.isin(days, market.dates).any()
    sessions = sessions_between("XNYS", datetime.date(2001, 1, 2), datetime.date(2019, 12, 31))
    assert not np.isin(days, sessions).any()
    gaps = us.of_rule("calendar_gap")["date"].to_list()
    assert not set(days.tolist()) & set(gaps)


def test_bond_holidays_are_bridged_by_the_last_published_value(us: Checked) -> None:
    published = dict(
        us.raw.macro.filter(series="DGS10").select(pl.col("date").cast(pl.String), "value").rows()
    )
    assert not {"2019-10-14", "2019-11-11"} & set(published)
    sessions = us.prices.dates
    aligned = published_series(us.raw.macro, sessions, ["DGS10"])["DGS10"]
    known = dict(zip(sessions.astype(str), aligned, strict=True))
    # stocks trade on the 14th; values are known one session later
    assert known["2019-10-14"] == published["2019-10-11"]
    assert known["2019-10-15"] == published["2019-10-11"]
    assert known["2019-10-16"] == published["2019-10-15"]


def test_monthly_values_wait_for_their_publication(us: Checked) -> None:
    # FEDFUNDS is not revised; the consumer prices that stood here are, and are left out below
    values = dict(
        us.raw.macro.filter(series="FEDFUNDS")
        .select(pl.col("date").cast(pl.String), "value")
        .rows()
    )
    sessions = us.prices.dates
    aligned = published_series(us.raw.macro, sessions, ["FEDFUNDS"])["FEDFUNDS"]
    known = dict(zip(sessions.astype(str), aligned, strict=True))
    # dated 2019-09-01, the mean to the 30th, used from 60 days after its date on
    assert known["2019-10-30"] == values["2019-08-01"]
    assert known["2019-10-31"] == values["2019-09-01"]


def test_revised_series_are_left_out_and_refused(us: Checked) -> None:
    (note,) = [text for text in us.raw.notes if "revised" in text]
    for series in ("GDP", "ANFCI", "STLFSI4", "USREC", "WM2NS", "CPIAUCSL", "INDPRO", "UNRATE"):
        assert series in note
        assert us.raw.macro.filter(series=series).is_empty()
        with pytest.raises(FeatureError, match="rewritten after their first print"):
            release_of(series)


def test_levels_of_adj_close_do_not_enter(us: Checked) -> None:
    # a 2:1 split after the end of the data would halve adj_close of all rows: not one bit of the
    # tables that features and returns are made from may know it
    later = check(replace(us.raw, bars=us.raw.bars.with_columns(pl.col("adj_close") / 2)))
    assert later.report.table.equals(us.report.table)
    for table in fields(PricePanel):
        mine, theirs = getattr(us.prices, table.name), getattr(later.prices, table.name)
        np.testing.assert_array_equal(mine, theirs)


def test_fundamental_snapshots_are_refused_in_one_line(data_folder: Path) -> None:
    source = folder_of(data_folder, "us_fundamentals")
    with pytest.raises(HrlSarpError, match=r"us_fundamentals: expected sectors") as caught:
        folder.load(source)
    assert "\n" not in str(caught.value)
