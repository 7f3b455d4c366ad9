"""Files as known sources write them give one market; what cannot be read is named in one line."""

import gzip
import io
import zipfile
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.folder import load
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError

Row = tuple[str, float, float, float, float, int]
ROWS: tuple[Row, ...] = (
    ("2011-01-03", 1040.5, 1060.25, 1031.75, 1050.5, 1_433_600),
    ("2011-01-04", 1050.5, 1070.25, 1041.75, 1064.2, 1_575_000),
    ("2011-01-13", 1064.2, 1081.05, 1050.15, 1070.75, 1_393_300),
)
EXPECTED = [(date.fromisoformat(day), *row) for day, *row in ROWS]
MEASURES = ["date", "open", "high", "low", "close", "volume"]


def text(header: str, form: Callable[..., str], rows: tuple[Row, ...] = ROWS) -> str:
    return "\n".join([*([header] if header else []), *(form(*row) for row in rows)]) + "\n"


def folder_of(tmp_path: Path, name: str, content: str | bytes) -> Path:
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAA,Energy\nBBB,Energy\n")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def read(tmp_path: Path, name: str, content: str | bytes) -> RawData:
    return load(folder_of(tmp_path, name, content), calendar="XNYS")


def us(day: str) -> str:
    return f"{day[5:7]}/{day[8:]}/{day[:4]}"


def dotted(day: str) -> str:
    return f"{day[8:]}.{day[5:7]}.{day[:4]}"


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def epoch(day: str, scale: int) -> int:
    days = (date.fromisoformat(day) - date(1970, 1, 1)).days
    return days * 86_400 * scale


SOURCES: dict[str, tuple[str, str]] = {
    "yfinance, three lines": (
        "AAA.csv",
        text(
            "Price,Adj Close,Close,High,Low,Open,Volume\n"
            "Ticker,AAA,AAA,AAA,AAA,AAA,AAA\nDate,,,,,,",
            lambda d, o, h, low, c, v: f"{d},{c / 2},{c},{h},{low},{o},{v}",
        ),
    ),
    "yfinance, three lines without adj": (
        "AAA.csv",
        text(
            "Price,Close,High,Low,Open,Volume\nTicker,AAA,AAA,AAA,AAA,AAA\nDate,,,,,",
            lambda d, o, h, low, c, v: f"{d},{c},{h},{low},{o},{v}",
        ),
    ),
    "yfinance, two lines": (
        "AAA.csv",
        text(
            "Price,Close,High,Low,Open,Volume\nTicker,AAA,AAA,AAA,AAA,AAA",
            lambda d, o, h, low, c, v: f"{d},{c},{h},{low},{o},{v}",
        ),
    ),
    "yfinance, first line alone": (
        "AAA.csv",
        text(
            "Price,Close,High,Low,Open,Volume",
            lambda d, o, h, low, c, v: f"{d},{c},{h},{low},{o},{v}",
        ),
    ),
    "yfinance by ticker": (
        "both.csv",
        text(
            "Ticker,AAA,AAA,AAA,AAA,AAA\nPrice,Open,High,Low,Close,Volume\nDate,,,,,",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v}",
        ),
    ),
    "yfinance flattened": (
        "prices.csv",
        text(
            "Date,Close_AAA,High_AAA,Low_AAA,Open_AAA,Volume_AAA",
            lambda d, o, h, low, c, v: f"{d},{c},{h},{low},{o},{v}",
        ),
    ),
    "quantmod": (
        "AAA.csv",
        text(
            '"","AAA.Open","AAA.High","AAA.Low","AAA.Close","AAA.Volume","AAA.Adjusted"',
            lambda d, o, h, low, c, v: f'"{d}",{o},{h},{low},{c},{v},{c / 2}',
        ),
    ),
    "Alpha Vantage": (
        "AAA.csv",
        text(
            "timestamp,1. open,2. high,3. low,4. close,5. adjusted close,6. volume,"
            "7. dividend amount,8. split coefficient",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{c / 2},{v},0.0,1.0",
            ROWS[::-1],
        ),
    ),
    "Stooq bulk": (
        "AAA.TXT",
        text(
            "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>",
            lambda d, o, h, low, c, v: (
                f"AAA.US,D,{d.replace('-', '')},000000,{o},{h},{low},{c},{v},0"
            ),
        ),
    ),
    "Investing": (
        "AAA.csv",
        text(
            '\ufeff"Date","Price","Open","High","Low","Vol.","Change %"',
            lambda d, o, h, low, c, v: (
                f'"{us(d)}","{c:,}","{o:,}","{h:,}","{low:,}","{v / 1e3:,.2f}K","-0.10%"'
            ),
            ROWS[::-1],
        ),
    ),
    "Investing, German": (
        "AAA.csv",
        text(
            '"Datum","Zuletzt","Eröffnung","Hoch","Tief","Vol.","+/- %"',
            lambda d, o, h, low, c, v: (
                f'"{dotted(d)}","{german(c)}","{german(o)}","{german(h)}","{german(low)}",'
                f'"{german(v / 1e3)}K","-0,10%"'
            ),
        ),
    ),
    "Ariva": (
        "AAA.csv",
        text(
            "Datum;Erster;Hoch;Tief;Schlusskurs;Stuecke;Volumen",
            lambda d, o, h, low, c, v: (
                f"{dotted(d)};{german(o)};{german(h)};{german(low)};{german(c)};"
                f"{german(v).removesuffix(',00')};9"
            ),
        ),
    ),
    "Nasdaq": (
        "AAA.csv",
        text(
            "Date,Close/Last,Volume,Open,High,Low",
            lambda d, o, h, low, c, v: f"{us(d)},${c},{v},${o},${h},${low}",
            ROWS[::-1],
        ),
    ),
    "MetaTrader 5": (
        "AAA.csv",
        text(
            "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>",
            lambda d, o, h, low, c, v: f"{d.replace('-', '.')}\t{o}\t{h}\t{low}\t{c}\t7\t{v}\t2",
        ),
    ),
    "MetaTrader 4 without header": (
        "AAA.csv",
        text(
            "",
            lambda d, o, h, low, c, v: f"{d.replace('-', '.')},00:00,{o},{h},{low},{c},{v}",
        ),
    ),
    "Binance without header": (
        "AAA.csv",
        text(
            "",
            lambda d, o, h, low, c, v: (
                f"{epoch(d, 1000)},{o},{h},{low},{c},{v},{epoch(d, 1000) + 86_399_999},1,5,1,1,0"
            ),
        ),
    ),
    "Binance in microseconds": (
        "AAA.csv",
        text(
            "open_time,open,high,low,close,volume,close_time,quote_volume,count",
            lambda d, o, h, low, c, v: f"{epoch(d, 10**6)},{o},{h},{low},{c},{v},1,1,1",
        ),
    ),
    "ccxt": (
        "AAA.csv",
        text(
            "timestamp,open,high,low,close,volume",
            lambda d, o, h, low, c, v: f"{epoch(d, 1000)},{o},{h},{low},{c},{v}",
        ),
    ),
    "Databento": (
        "prices.csv",
        text(
            "ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol",
            lambda d, o, h, low, c, v: f"{epoch(d, 10**9)},35,1,7,{o},{h},{low},{c},{v},AAA",
        ),
    ),
    "Kronos": (
        "AAA.csv",
        text(
            "timestamps,open,high,low,close,volume,amount",
            lambda d, o, h, low, c, v: f"{d} 00:00:00,{o},{h},{low},{c},{v},9",
        ),
    ),
    "FinRL": (
        "dow.csv",
        text(
            "date,tic,open,high,low,close,volume,day",
            lambda d, o, h, low, c, v: f"{d},AAA,{o},{h},{low},{c},{v},3",
        ),
    ),
    "Kaggle": (
        "all_stocks.csv",
        text(
            "date,open,high,low,close,volume,Name",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v},AAA",
        ),
    ),
    "NSE": (
        "prices.csv",
        text(
            "Date,Symbol,Series,Prev Close,Open,High,Low,Last,Close,VWAP,Volume,Turnover",
            lambda d, o, h, low, c, v: f"{d},AAA,EQ,1,{o},{h},{low},7,{c},1,{v},9",
        ),
    ),
    "Quandl": (
        "AAA.csv",
        text(
            "Date,Open,High,Low,Close,Volume,Ex-Dividend,Split Ratio,Adj. Open,Adj. Close",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v},0.0,1.0,1,{c / 2}",
        ),
    ),
    "Polygon": (
        "AAA.csv",
        text(
            "t,o,h,l,c,v,vw,n",
            lambda d, o, h, low, c, v: (  # midnight in New York
                f"{epoch(d, 1000) + 5 * 3_600_000},{o},{h},{low},{c},{v},1,1"
            ),
        ),
    ),
    "last price of the day": (
        "AAA.csv",
        text(
            "Day,Open,High,Low,Last,Volume,Turnover",
            lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v},{v * c}",
        ),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_same_bars_whatever_the_source(tmp_path: Path, source: str) -> None:
    raw = read(tmp_path, *SOURCES[source])
    assert raw.bars.filter(symbol="AAA").select(MEASURES).rows() == EXPECTED
    half = raw.bars["adj_close"].drop_nulls().to_list()
    assert half in ([], [row[4] / 2 for row in ROWS])


PLAIN = text(
    "date,open,high,low,close,volume",
    lambda d, o, h, low, c, v: f"{d},{o},{h},{low},{c},{v}",
)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, PLAIN)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("AAA.CSV", PLAIN.encode()),
        ("AAA.txt", PLAIN.replace(",", "\t").encode()),
        ("AAA.tsv", PLAIN.replace(",", "\t").encode()),
        ("AAA.csv", PLAIN.replace(",", ";").encode()),
        ("AAA.csv", b"sep=;\n" + PLAIN.replace(",", ";").encode()),
        ("AAA.csv", PLAIN.replace(",", "|").encode()),
        ("AAA.Csv.GZ", gzip.compress(PLAIN.encode())),
        ("AAA.csv.zip", zipped("AAA.csv")),
        ("AAA.zip", zipped("AAA.csv")),
        ("AAA.csv", PLAIN.encode("utf-8-sig")),
        ("AAA.csv", PLAIN.encode("utf-16")),
        ("AAA.csv", PLAIN.encode("utf-16-le")),
        ("AAA.csv", PLAIN.encode("utf-32")),
        ("AAA.csv", PLAIN.encode() + b"\x1a"),
        ("AAA.csv", PLAIN.encode() + b"\0" * 4096),
        ("AAA.csv", PLAIN.replace("\n", "\r\n").encode()),
        ("AAA.csv", PLAIN.replace("\n", "\r").encode()),
        ("AAA.csv", PLAIN.replace("volume\n", "volume\n\n").encode()),
        ("AAA.csv", "\n".join(f"{line}," for line in PLAIN.splitlines()).encode()),
    ],
)
def test_same_bars_in_every_ending_encoding_and_separator(
    tmp_path: Path, name: str, content: bytes
) -> None:
    raw = read(tmp_path, name, content)
    assert raw.bars.select("symbol", *MEASURES).rows() == [("AAA", *row) for row in EXPECTED]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (PLAIN.replace("date,open,high,low,close,volume", "When,A,B,C,D,E"), "unknown headings in"),
        (
            PLAIN.replace("date,open,high,low,close", "When,A,B,C,D"),
            "the header in line 1 has no date, close",
        ),
        (PLAIN.replace("close", "Settle"), "the header in line 1 has no close"),
        (PLAIN.replace("close,volume", "Last,Price"), "Last and Price may both be the close"),
        (PLAIN.replace("2011-01-", "406"), "'40603', a day as workbooks count them"),
        (PLAIN.replace("2011-01-", "first "), "no day in its column date"),
        (PLAIN.split("\n", 1)[1], "6 fields, expected 7: no header says what they are"),
        (PLAIN.replace("2011-01-03", "2011-01-03 23:00:00"), "a time without a zone"),
        (PLAIN.replace("2011-01-13", "2011-01-05").replace("2011-01-0", "05/0"), "line 2: 05/03"),
    ],
)
def test_file_that_cannot_be_read_says_why(tmp_path: Path, content: str, cause: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "AAA.csv", content)
    assert "AAA.csv" in str(caught.value)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["AAA", "600519.SS", "^GSPC"])
def test_header_of_three_lines_serves_the_index_and_a_table_of_prices(
    tmp_path: Path, name: str
) -> None:
    header = f"Price,Close,Open\nTicker,{name},{name}\nDate,,"
    content = "\n".join([header, *(f"{row[0]},{row[4]},{row[1]}" for row in ROWS)])
    folder_of(tmp_path, "prices.csv", content)
    (tmp_path / "index.csv").write_text(content)
    raw = load(tmp_path)
    assert raw.bars["symbol"].unique().to_list() == [name]
    assert raw.index["close"].to_list() == raw.bars["close"].to_list() == [row[4] for row in ROWS]


def test_tickers_side_by_side_are_read_each(tmp_path: Path) -> None:
    header = "Price,Close,Close,Open,Open\nTicker,AAA,BBB,AAA,BBB\nDate,,,,"
    lines = [f"{row[0]},{row[4]},{row[4] * 2},{row[1]},{row[1] * 2}" for row in ROWS]
    raw = read(tmp_path, "both.csv", "\n".join([header, *lines]))
    for symbol, factor in (("AAA", 1), ("BBB", 2)):
        own = raw.bars.filter(symbol=symbol)
        assert own["close"].to_list() == [row[4] * factor for row in ROWS]
        assert own["open"].to_list() == [row[1] * factor for row in ROWS]
        assert own["high"].null_count() == len(ROWS)


@pytest.mark.parametrize("name", ["prices.csv", "closes.csv", "prices.parquet"])
def test_table_of_closes_has_a_symbol_a_column(tmp_path: Path, name: str) -> None:
    path = folder_of(tmp_path, "x", "") / name
    frame = pl.DataFrame({"Date": [r[0] for r in ROWS], "AAA": [r[4] for r in ROWS], "LOW": 7.5})
    frame.write_parquet(path) if name.endswith("parquet") else frame.write_csv(path)
    raw = load(tmp_path)
    assert raw.bars.filter(symbol="AAA")["close"].to_list() == [row[4] for row in ROWS]
    assert raw.bars["symbol"].unique().sort().to_list() == ["AAA", "LOW"]
    assert any("no open, high, low, volume: unknown on all days" in note for note in raw.notes)


def test_parquet_of_one_symbol_is_called_as_its_file(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "x", "") / "AAA.parquet"
    pl.DataFrame(ROWS, schema=MEASURES, orient="row").write_parquet(path)
    raw = load(tmp_path)
    assert raw.bars.select("symbol", *MEASURES).rows() == [("AAA", *row) for row in EXPECTED]


def test_name_of_a_company_is_no_symbol_where_the_file_is_called_as_one(tmp_path: Path) -> None:
    lines = [f"{line},{'Name' if line.startswith('date') else 'Firm A'}" for line in PLAIN.split()]
    raw = read(tmp_path, "AAA.csv", "\n".join(lines))
    assert raw.bars["symbol"].unique().to_list() == ["AAA"]
    assert "AAA.csv: symbol AAA as in the file's name, Firm A in the file" in raw.notes


def test_row_with_too_many_cells_is_named_by_its_line(tmp_path: Path) -> None:
    table = "date,symbol,close\n2011-01-03,AAA,1\n2011-01-04,AAA,2,9\n"
    with pytest.raises(DataError, match=r"prices\.csv: .*4 cells in line 3, expected 3"):
        read(tmp_path, "prices.csv", table)


def test_mixture_under_an_unknown_heading_is_refused(tmp_path: Path) -> None:
    lines = PLAIN.splitlines()
    mixed = [
        f"{line},{name}" for line, name in zip(lines, ("Firm", "AAA", "BBB", "AAA"), strict=True)
    ]
    with pytest.raises(DataError, match=r"dow\.csv: column Firm: .*AAA, BBB .*call it symbol"):
        read(tmp_path, "dow.csv", "\n".join(mixed))


def test_returns_of_crsp_are_the_adjusted_closes(tmp_path: Path) -> None:
    lines = ["AAA,20110103,-10.0,100,C", "AAA,20110104,5.5,-99,0.10", "AAA,20110105,6.0,90,0.20"]
    raw = read(tmp_path, "prices.csv", "\n".join(["TICKER,date,PRC,VOL,RET", *lines]))
    assert raw.bars["close"].to_list() == [10.0, 5.5, 6.0]
    assert raw.bars["volume"].to_list() == [100.0, None, 90.0]
    level = raw.bars["adj_close"]
    assert (level / level.shift(1)).to_list()[1:] == pytest.approx([1.1, 1.2])
    assert level[-1] == pytest.approx(6.0)
    assert any("1 negative prices are means of bid and ask" in note for note in raw.notes)


def test_factors_of_crsp_are_splits(tmp_path: Path) -> None:
    lines = ["AAA,20110103,40,4", "AAA,20110104,10,1", "AAA,20110105,11,1"]
    raw = read(tmp_path, "prices.csv", "\n".join(["TICKER,date,PRC,CFACPR", *lines]))
    assert raw.bars["split"].to_list() == [1.0, 4.0, 1.0]


@pytest.mark.parametrize("name", ["NA", "NULL", "nan", "NaN", "N/A", "None", "null", "TRUE", "-"])
def test_words_for_missing_numbers_are_symbols_sectors_and_series(
    tmp_path: Path, name: str
) -> None:
    rows = [f"{day},{name},{','.join(map(str, rest))}" for day, *rest in ROWS]
    header = "date,symbol,open,high,low,close,volume"
    folder_of(tmp_path, "prices.csv", "\n".join([header, *rows]))
    (tmp_path / "sectors.csv").write_text(f"symbol,sector\n{name},{name}\n")
    (tmp_path / "macro.csv").write_text(f"date,series,value\n2011-01-03,{name},1\n")
    raw = load(tmp_path)
    assert raw.bars["symbol"].unique().to_list() == [name]
    assert raw.sectors.rows() == [(name, name)]
    assert raw.macro["series"].to_list() == [name]


@pytest.mark.parametrize("table", ["prices", "index", "macro"])
@pytest.mark.parametrize(
    ("zone", "hour", "day"),
    [("America/New_York", 0, 3), ("Europe/Berlin", 0, 3), ("UTC", 5, 3), ("UTC", 21, 3)],
)
def test_instants_become_the_same_day_in_every_table(
    tmp_path: Path, table: str, zone: str, hour: int, day: int
) -> None:
    folder_of(tmp_path, "prices.csv", "date,symbol,close\n2011-01-03,AAA,1\n")
    start = datetime(2011, 1, 3, hour)  # noqa: DTZ001 -- the zone follows
    times = pl.Series([start, start + timedelta(days=1)]).dt.replace_time_zone(zone)
    columns = {"symbol": "AAA", "close": 1.0, "series": "VIX", "value": 1.0}
    wanted = {"prices": ["symbol", "close"], "index": ["close"], "macro": ["series", "value"]}
    frame = pl.DataFrame({"date": times, **{name: columns[name] for name in wanted[table]}})
    frame.write_parquet(tmp_path / f"{table}.parquet")
    raw = load(tmp_path, calendar="XNYS")
    read_days = {"prices": raw.bars, "index": raw.index, "macro": raw.macro}[table]["date"]
    assert read_days.to_list() == [date(2011, 1, day), date(2011, 1, day + 1)]


@pytest.mark.parametrize("table", ["prices", "index", "macro"])
def test_times_without_a_zone_are_refused_in_every_table(tmp_path: Path, table: str) -> None:
    folder_of(tmp_path, "prices.csv", "date,symbol,close\n2011-01-03,AAA,1\n")
    rows = {"prices": "symbol,close\n,AAA,1", "index": "close\n,1", "macro": "series,value\n,A,1"}
    content = f"date,{rows[table]}".replace("\n,", "\n2011-01-03 23:00:00,")
    (tmp_path / f"{table}.csv").write_text(content)
    with pytest.raises(DataError, match=rf"{table}\.csv: column date: .* without a zone"):
        load(tmp_path, calendar="XNYS")


def test_every_file_that_is_not_read_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "prices.csv", "date,symbol,close\n2011-01-03,AAA,1\n")
    for name in ("AAA.xlsx", "notes.md", "BBB.csv", "Prices.CSV"):
        (tmp_path / name).write_text("x")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "CCC.csv").write_text(PLAIN)
    (note,) = [note for note in load(tmp_path).notes if note.startswith("not read")]
    assert note == "not read: AAA.xlsx, BBB.csv, Prices.CSV, more/ (1 files), notes.md"


@pytest.mark.parametrize("name", ["Index.CSV", "INDEX.csv", "index.txt", "index.csv.gz"])
def test_tables_are_found_in_every_case_and_ending(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, "Prices.CSV", "date,symbol,close\n2011-01-03,AAA,1\n")
    content = b"date,close\n2011-01-03,42.5\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert load(tmp_path).index["close"].to_list() == [42.5]


def test_symbols_without_a_partner_are_named_for_every_table(tmp_path: Path) -> None:
    folder_of(tmp_path, "prices.csv", "date,symbol,close\n2011-01-03,BRK.B,1\n")
    (tmp_path / "sectors.csv").write_text("symbol,sector\nBRK-B,Energy\n")
    (tmp_path / "membership.csv").write_text("symbol,start,end\nbrk.b,2010-01-01,\n")
    (tmp_path / "actions.csv").write_text("date,symbol,split\n2011-01-03,BRKC,2\n")
    notes = load(tmp_path).notes
    for twin in (
        "symbols of the prices without a partner in the sectors: 'BRK.B' (is it 'BRK-B'?)",
        "symbols of the sectors without a partner in the prices: 'BRK-B' (is it 'BRK.B'?)",
        "symbols of the membership without a partner in the prices: 'brk.b' (is it 'BRK.B'?)",
        "actions.csv: symbols without a partner in the prices: 'BRKC'",
    ):
        assert twin in notes


def test_numbers_as_symbols_say_that_zeros_are_lost(tmp_path: Path) -> None:
    folder_of(tmp_path, "x", "")
    frame = pl.DataFrame({"date": ROWS[0][0], "symbol": [1, 600519], "close": 1.0})
    frame.write_parquet(tmp_path / "prices.parquet")
    notes = load(tmp_path).notes
    assert any("leading zeros are lost: 1 may be 000001" in note for note in notes)


def test_readings_say_what_was_read_as_what(tmp_path: Path) -> None:
    raw = read(tmp_path, *SOURCES["Nasdaq"])
    reading = next(reading for reading in raw.readings if reading.file == "AAA.csv")
    assert ("Close/Last", "close") in reading.columns
    assert (reading.n_rows, reading.first, reading.last) == (3, "2011-01-03", "2011-01-13")
    assert reading.symbols == ("AAA",)
    assert reading.layout == "commas, 1 header line"
