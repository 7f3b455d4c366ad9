"""Exports of vendors that name or mark columns in their own way, and what their refusals say."""

from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.errors import DataError
from tests.data.sources.files.test_known_sources import (
    EXPECTED,
    MEASURES,
    PLAIN,
    ROWS,
    dotted,
    read,
    text,
)

EXPORTS: dict[str, tuple[str, str]] = {
    "Yahoo's page, whose headings explain themselves": (
        "AAA.tsv",
        text(
            "Date\tOpen\tHigh\tLow\tClose Close price adjusted for splits.\tAdj Close Adjusted "
            "close price adjusted for splits and dividend and/or capital gain distributions."
            "\tVolume",
            lambda d, o, h, low, c, v: f"{d}\t{o}\t{h}\t{low}\t{c}\t{c / 2}\t{v:,}",
        ),
    ),
    "NSE's page, with the last price beside the close": (
        "prices.csv",
        text(
            '"Symbol","Series","Date ","Prev Close","Open Price","High Price","Low Price",'
            '"Last Price","Close Price","Total Traded Quantity"',
            lambda d, o, h, low, c, v: (
                f'"AAA","EQ","{d}","1","{o:,}","{h:,}","{low:,}","{c + 1:,}","{c:,}","{v:,}"'
            ),
        ),
    ),
    "NSE's and BSE's files of a day since 2024": (
        "prices.csv",
        text(
            "TradDt,Sgmt,TckrSymb,SctySrs,OpnPric,HghPric,LwPric,ClsPric,LastPric,TtlTradgVol",
            lambda d, o, h, low, c, v: f"{d},CM,AAA,EQ,{o},{h},{low},{c},{c + 1},{v}",
        ),
    ),
    "Boursorama": (
        "AAA.txt",
        text(
            "date\touv\thaut\tbas\tclot\tvol\tdevise\t",
            lambda d, o, h, low, c, v: f"{dotted(d)} 00:00\t{o}\t{h}\t{low}\t{c}\t{v}\tEUR\t",
        ),
    ),
    "Bloomberg, tickers above the fields": (
        "prices.csv",
        "Start Date,2011-01-03\n\n,AAA,AAA,AAA,AAA,AAA\n"
        + text(
            "Dates,PX_OPEN,PX_HIGH,PX_LOW,PX_LAST,PX_VOLUME",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v}",
        ),
    ),
    "symbols that a workbook must not read as numbers": (
        "prices.csv",
        text(
            "date,symbol,open,high,low,close,volume",
            lambda d, o, h, low, c, v: f'{d},="AAA",{o},{h},{low},{c},{v}',
        ),
    ),
}


@pytest.mark.parametrize("source", EXPORTS)
def test_export_gives_the_bars_that_it_shows(tmp_path: Path, source: str) -> None:
    raw = read(tmp_path, *EXPORTS[source])
    assert raw.bars.filter(symbol="AAA").select(MEASURES).rows() == EXPECTED
    assert raw.bars["adj_close"].drop_nulls().to_list() in ([], [row[4] / 2 for row in ROWS])


def test_factors_of_compustat_are_splits(tmp_path: Path) -> None:
    content = (
        "datadate,tic,ajexdi,prccd\n2011-01-03,AAA,4,40\n2011-01-04,AAA,1,10\n2011-01-05,AAA,1,11\n"
    )
    assert read(tmp_path, "prices.csv", content).bars["split"].to_list() == [1.0, 4.0, 1.0]


@pytest.mark.parametrize("word", ["#N/A N/A", "<NA>", "NaT", "n.a.", "\u2014", "\\N"])
def test_words_of_programs_for_nothing_are_missing_numbers(tmp_path: Path, word: str) -> None:
    raw = read(tmp_path, "prices.csv", f"date,symbol,close,volume\n2011-01-03,AAA,5,{word}\n")
    assert raw.bars["volume"].to_list() == [None]


def prices(header: str, line: str) -> str:
    return f"{header}\n2011-01-03,{line}\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("prices.csv", "symbol,2011-01-03,2011-01-04\nAAA,5,6\n", "exchange rows and columns"),
        ("dividends.csv", prices("date,symbol,dividend", "AAA,1"), "splits and dividends actions"),
        ("companies.csv", "Symbol,Name,City\nAAA,A,Rome\n", "take a file that holds no prices out"),
        ("prices.csv", prices("date,symbol,x", "AAA,1"), "among date, symbol, x; rename or add"),
        (
            "AAA.csv",
            PLAIN.replace("2011-01-13", "2011-01-13 16:00:00"),
            "AAA.csv: line 4, column date: expected one bar a day",
        ),
    ],
)
def test_refusal_names_place_and_cure(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refusal_of_a_wide_table_lists_some_headings_and_counts_the_rest(tmp_path: Path) -> None:
    content = prices("When,symbol," + ",".join(f"x{i}" for i in range(300)), "AAA" + ",1" * 300)
    with pytest.raises(DataError, match=r"x9 and 290 more; rename or add, or take") as caught:
        read(tmp_path, "prices.csv", content)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "line",
    [
        "date,float,float,float,float,int",
        "date,float,float,float,float,float",
        ",USD,USD,USD,USD,shares",
        "date,AAA,AAA,AAA,AAA,BBB",
    ],
)
def test_types_and_units_below_a_header_are_no_tickers(tmp_path: Path, line: str) -> None:
    content = PLAIN.replace("volume\n", f"volume\n{line}\n")
    with pytest.raises(DataError, match=r"AAA\.csv line 3: .* in line 2"):
        read(tmp_path, "AAA.csv", content)
    with pytest.raises(DataError, match=r"found no symbol"):
        read(tmp_path, "prices.csv", content)


def test_tickers_below_a_header_need_no_volume(tmp_path: Path) -> None:
    content = "Price,Close,Adj Close\nTicker,AAA,BBB\nDate,,\n2011-01-03,5,6\n"
    bars = read(tmp_path, "both.csv", content).bars
    assert bars.select("symbol", pl.coalesce("close", "adj_close")).rows() == [
        ("AAA", 5.0),
        ("BBB", 6.0),
    ]
