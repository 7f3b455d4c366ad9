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


@pytest.mark.parametrize(
    ("unit", "shares"),
    [("'000", 1e3), ("K", 1e3), ("in Lakhs", 1e5), ("mln", 1e6), ("Mio.", 1e6), ("crore", 1e7)],
)
@pytest.mark.parametrize("name", ["AAA.csv", "prices.csv"])
def test_volumes_are_given_in_shares(tmp_path: Path, name: str, unit: str, shares: float) -> None:
    header = f"date,symbol,close,Volume ({unit})"
    raw = read(tmp_path, name, prices(header, "AAA,5,1.5"))
    assert raw.bars["volume"].to_list() == [1.5 * shares]


@pytest.mark.parametrize("unit", ["lots", "contracts", "USD", "Value", "手"])
@pytest.mark.parametrize("name", ["AAA.csv", "prices.csv"])
def test_volumes_that_are_no_shares_are_refused(tmp_path: Path, name: str, unit: str) -> None:
    symbol, own = ("", "") if name == "AAA.csv" else (",symbol", "AAA,")
    content = prices(f"date{symbol},close,volume [{unit}]", f"{own}5,7")
    with pytest.raises(DataError, match=f"{name}: .*expected volumes in shares"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("mark", [".1", "_duplicated_0"])
@pytest.mark.parametrize("heading", ["Close", "Volume", "Adj Close", "High"])
def test_second_symbol_under_numbered_headings_is_refused(
    tmp_path: Path, heading: str, mark: str
) -> None:
    header = f"Date,Close,High,Volume,Adj Close,{heading}{mark}"
    words = f"{heading} and {heading}{mark} may both be"
    with pytest.raises(DataError, match=words):
        read(tmp_path, "AAA.csv", prices(header, "5,6,100,5,7"))


@pytest.mark.parametrize("day", ["{d}-Mai-2013", "{d} ene 2013", "{d}-Okt-2013"])
@pytest.mark.parametrize("n_bad", [12, 20])
def test_download_that_loses_a_part_of_its_rows_is_refused(
    tmp_path: Path, day: str, n_bad: int
) -> None:
    known = [f"{d:02d}-Jun-2013,5" for d in range(1, 29)]
    lost = [f"{day.format(d=d)},5" for d in range(1, n_bad + 1)]
    content = "\n".join(["Date,Close", *known, *lost]) + "\n"
    words = f"found {n_bad} of {28 + n_bad} rows that cannot be read, the first in line 30"
    with pytest.raises(DataError, match=words):
        read(tmp_path, "AAA.csv", content)


@pytest.mark.parametrize("beside", ["AAA.csv", "prices.csv"])
@pytest.mark.parametrize("header", ["Date,Dividends", "date,symbol,Stock Splits"])
def test_dividends_that_would_not_be_read_are_refused(
    tmp_path: Path, beside: str, header: str
) -> None:
    row = "2011-01-03,0.5" if header.count(",") == 1 else "2011-01-03,AAA,2"
    (tmp_path / "corporate events.csv").write_text(f"{header}\n{row}\n")
    content = PLAIN if beside == "AAA.csv" else prices("date,symbol,close", "AAA,5")
    with pytest.raises(DataError, match=r"corporate events\.csv: "):
        read(tmp_path, beside, content)


@pytest.mark.parametrize("huge", ["1e30", "3.4028235e38", "1e12"])
@pytest.mark.parametrize("name", ["AAA.csv", "prices.csv"])
def test_largest_number_of_a_program_is_no_price(tmp_path: Path, name: str, huge: str) -> None:
    rows = f"date,symbol,close\n2011-01-03,AAA,5\n2011-01-04,AAA,{huge}\n2011-01-05,AAA,6\n"
    assert read(tmp_path, name, rows).bars["close"].to_list() == [5.0, None, 6.0]


def test_bonds_under_the_symbol_of_a_share_are_left_out(tmp_path: Path) -> None:
    content = "SYMBOL,TIMESTAMP,SERIES,CLOSE\n"
    content += "".join(f"AAA,03-JAN-2011,{row}\n" for row in ("EQ,5", "N1,1000", "GS,90"))
    content += "BBB,03-JAN-2011,BE,7\nBBB,04-JAN-2011,EQ,8\n"
    raw = read(tmp_path, "prices.csv", content)
    assert raw.bars["close"].to_list() == [5.0, 7.0, 8.0]
    assert "prices.csv: 2 rows left out, no shares but the series GS, N1" in raw.notes


@pytest.mark.parametrize("name", ["AAA.csv", "prices.csv"])
@pytest.mark.parametrize(
    "header", ["snapped_at,symbol,price,total_volume", "timestamp;symbol;close;volume;timeOpen"]
)
def test_volumes_of_sources_that_state_money_are_given_in_units(
    tmp_path: Path, name: str, header: str
) -> None:
    mark = ";" if ";" in header else ","
    row = mark.join(["2011-01-03", "AAA", "5", "150", "2011-01-03"][: header.count(mark) + 1])
    raw = read(tmp_path, name, f"{header}\n{row}\n")
    assert raw.bars["volume"].to_list() == [30.0]
