"""One symbol's download: what is a row is read, what is none is named with its line."""

import gzip
from datetime import date
from pathlib import Path

import pytest

from hrl_sarp.data.sources.files.downloads import is_download, read_download
from hrl_sarp.data.sources.files.forms.content import stem_of
from hrl_sarp.data.sources.files.tables import Read

HEADER = "Date,Open,High,Low,Close,Adj Close,Volume"
FIRST = "2020-01-02,10,11,9,10.5,10.25,100"
SECOND = "2020-01-03,10.5,11,10,10.8,10.55,200"


def read(tmp_path: Path, *lines: str, name: str = "AAA.csv") -> Read:
    path = tmp_path / name
    path.write_text("\n".join(lines))
    return read_download(path)


def named(download: Read) -> list[tuple[object, ...]]:
    return download.findings.select("rule", "date", "value", "count", "detail").rows()


def test_clean_download_has_rows_and_no_finding(tmp_path: Path) -> None:
    download = read(tmp_path, HEADER, FIRST, SECOND)
    assert download.frame.row(0, named=True) == {
        "date": date(2020, 1, 2),
        "open": 10.0,
        "high": 11.0,
        "low": 9.0,
        "close": 10.5,
        "volume": 100.0,
        "adj_close": 10.25,
        "dividend": None,
        "split": None,
        "place": 2,
        "symbol": "AAA",
    }
    assert download.frame.height == 2
    assert download.findings.is_empty()


def test_junk_is_one_finding_per_run_dated_at_the_row_above(tmp_path: Path) -> None:
    page = ["<html>", "", "  <body>", "</html>"]
    download = read(tmp_path, HEADER, FIRST, *page, SECOND, "Too Many Requests")
    assert download.frame["place"].to_list() == [2, 7]
    assert named(download) == [
        ("junk_lines", date(2020, 1, 2), 3.0, 3, "AAA.csv line 3: <html>"),
        ("junk_lines", date(2020, 1, 3), 8.0, 1, "AAA.csv line 8: Too Many Requests"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Jan 3, 2020\t0.25 Dividend",
        "Jan 3, 2020\t4:1 Stock Split",
        "Friday, Jan 3, 2020\tOpen\tHigh\tLow\tClose",
        "2020-01-03\tClose_AAA\tOpen_AAA",
        "3-Jan-2020, Open, Close",
    ],
)
def test_line_that_begins_with_a_day_begins_no_header(tmp_path: Path, line: str) -> None:
    header = "Date\tOpen\tHigh\tLow\tClose"
    rows = [f"Jan {day}, 2020\t10\t11\t9\t10.5" for day in (2, 6, 7)]
    download = read(tmp_path, header, rows[0], line, *rows[1:])
    assert download.frame["date"].to_list() == [date(2020, 1, day) for day in (2, 6, 7)]
    assert set(download.frame["symbol"]) == {"AAA"}
    (finding,) = named(download)
    assert line.split("\t")[0][:6] in str(finding[-1])


def test_long_junk_is_shortened(tmp_path: Path) -> None:
    (finding,) = named(read(tmp_path, HEADER, FIRST, "x" * 500))
    assert finding[-1] == f"AAA.csv line 3: {'x' * 60}..."


def test_rows_above_the_first_header_have_yahoo_s_columns(tmp_path: Path) -> None:
    download = read(tmp_path, "{", '"error": 1}', FIRST, HEADER, SECOND)
    assert download.frame["adj_close"].to_list() == [10.25, 10.55]
    assert [finding[0] for finding in named(download)] == ["junk_lines", "no_header"]
    assert named(download)[1][2] == 3.0


def test_every_header_orders_the_rows_below_it(tmp_path: Path) -> None:
    other = "Volume,Date,Close,Low,High,Open"
    download = read(tmp_path, HEADER, FIRST, other, "200,2020-01-03,10.8,10,11,10.5")
    assert download.frame.select("open", "high", "low", "close", "volume", "adj_close").rows() == [
        (10.0, 11.0, 9.0, 10.5, 100.0, 10.25),
        (10.5, 11.0, 10.0, 10.8, 200.0, None),
    ]
    assert download.findings.is_empty()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2020-01-06,10,11", "3 fields, expected 7"),
        ("2020-01-06,10,11,9,10.5,10.25,100,7", "8 fields, expected 7"),
        ("2020-01-06,10,11,9,oops,10.25,100", "close is no number"),
        ("2020-01-06,10,inf,9,10,10.25,100", "high is no number"),
    ],
)
def test_row_that_does_not_fit_is_named_and_left_out(
    tmp_path: Path, line: str, problem: str
) -> None:
    download = read(tmp_path, HEADER, FIRST, line, SECOND)
    assert download.frame["date"].to_list() == [date(2020, 1, 2), date(2020, 1, 3)]
    (finding,) = named(download)
    assert finding[:3] == ("bad_row", date(2020, 1, 6), 3.0)
    assert finding[-1] == f"AAA.csv line 3: {line} ({problem})"


def test_day_that_does_not_exist_is_no_row(tmp_path: Path) -> None:
    line = "2020-01-36,10,11,9,10.5,10.25,100"
    download = read(tmp_path, HEADER, FIRST, line)
    assert download.frame["date"].to_list() == [date(2020, 1, 2)]
    assert named(download) == [
        ("bad_row", None, 3.0, 1, f"AAA.csv line 3: {line} (date is no day)")
    ]


def test_dividends_and_splits_of_a_download_are_read(tmp_path: Path) -> None:
    download = read(tmp_path, HEADER + ",Dividend,Split", FIRST + ",0.5,2")
    assert download.frame.select("dividend", "split").rows() == [(0.5, 2.0)]


def test_missing_numbers_stay_missing_for_validation(tmp_path: Path) -> None:
    download = read(tmp_path, HEADER, "2020-01-02,null,,NaN,null,null,null")
    assert download.frame.select("open", "high", "low", "close", "volume").row(0) == (None,) * 5
    assert download.findings.is_empty()


def test_quotes_spaces_byte_order_mark_and_time_zones_are_no_obstacle(tmp_path: Path) -> None:
    row = '"2020-01-02 00:00:00-05:00", 10, 11, 9, 10.5, 10.25, 100\r'
    download = read(tmp_path, "\ufeff" + HEADER + "\r", row)
    assert download.frame.select("date", "close").rows() == [(date(2020, 1, 2), 10.5)]
    assert download.findings.is_empty()


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        (["404 Not Found"], "AAA.csv line 1: 404 Not Found"),
        ([HEADER], "AAA.csv no line is a row"),
        ([""], "AAA.csv no line is a row"),
        (
            ["Date,Open,High,Low,Volume", "2020-01-02,10,11,9,100"],
            "AAA.csv line 2: 2020-01-02,10,11,9,100 (the header in line 1 has no close)",
        ),
    ],
)
def test_file_without_a_usable_row_is_one_finding(
    tmp_path: Path, lines: list[str], detail: str
) -> None:
    download = read(tmp_path, *lines)
    assert download.frame.is_empty()
    (finding,) = named(download)
    assert (finding[0], finding[-1]) == ("no_usable_row", detail)


def test_packed_download_equals_the_plain_one(tmp_path: Path) -> None:
    plain = read(tmp_path, HEADER, FIRST, "junk", SECOND, name="BRK.B.csv")
    path = tmp_path / "BRK.B.csv.gz"
    path.write_bytes(gzip.compress((tmp_path / "BRK.B.csv").read_bytes()))
    assert stem_of(path) == "BRK.B"
    assert read_download(path).frame.equals(plain.frame)


@pytest.mark.parametrize("kept_bytes", [5, 30])
def test_torn_archive_is_left_out_and_says_so(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "AAA.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, FIRST]).encode())[:kept_bytes])
    (finding,) = named(read_download(path))
    assert finding[0] == "no_usable_row"
    assert str(finding[-1]).startswith("AAA.csv.gz: no whole gzip file: ")


def test_bytes_that_are_no_text_are_junk(tmp_path: Path) -> None:
    path = tmp_path / "AAA.csv"
    path.write_bytes(f"{HEADER}\n{FIRST}\n".encode() + b"\xff\xfe\x00,\x81\n")
    assert [finding[0] for finding in named(read_download(path))] == ["junk_lines"]


def test_table_with_a_column_symbol_is_no_download(tmp_path: Path) -> None:
    path = tmp_path / "AAA.csv"
    path.write_text("date,symbol,close\n2020-01-02,AAA,1\n")
    assert not is_download(path)
    path.write_text(HEADER)
    assert is_download(path)
    assert not is_download(tmp_path / "AAA.parquet")


def test_braces_in_a_file_name_are_no_obstacle(tmp_path: Path) -> None:
    (finding,) = named(read(tmp_path, HEADER, FIRST, "junk", name="A{B}.csv"))
    assert finding[-1] == "A{B}.csv line 3: junk"
