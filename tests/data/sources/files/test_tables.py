"""One table: headings, column map, types, keys, and one line for whatever does not fit."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.forms.content import SIGNATURES
from hrl_sarp.data.sources.files.forms.headings import heading_key
from hrl_sarp.data.sources.files.forms.values import UnclearError
from hrl_sarp.data.sources.files.tables import convert, read_table, refuse_repeated
from hrl_sarp.errors import DataError

LEVELS = pl.Schema({"date": pl.Date(), "close": pl.Float64()})


def table(folder: Path, text: str) -> Path:
    path = folder / "levels.csv"
    path.write_text(text)
    return path


def test_headings_are_compared_without_case_blanks_and_marks() -> None:
    assert [heading_key(text) for text in (" Close*", '"Adj Close**"', "SYMBOL\r")] == [
        "close",
        "adjclose",
        "symbol",
    ]


def test_column_map_renames_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, "When,Last Price,close\n2020-01-02,5,6\n")
    names = {"date": "when", "close": "Last Price"}
    assert read_table(path, LEVELS, names=names).frame.rows() == [(date(2020, 1, 2), 5.0)]
    with pytest.raises(DataError, match=r"levels\.csv: .* found no date .* among When, Last Price"):
        read_table(path, LEVELS)


def test_column_of_another_heading_counts_where_the_standard_one_is_missing(
    tmp_path: Path,
) -> None:
    sectors = pl.Schema({"sector": pl.String()})
    assert read_table(table(tmp_path, "gics_sector\nA\n"), sectors).frame.rows() == [("A",)]
    assert read_table(table(tmp_path, "gics_sector,sector\nA,B\n"), sectors).frame.rows() == [
        ("B",)
    ]


def test_midnight_of_a_zone_is_its_day_and_a_time_without_a_zone_is_refused() -> None:
    texts = ["2020-01-02", " 2020-01-02 00:00:00-05:00", "2020-01-02T00:00:00Z", "N/A", None]
    days, is_lost = convert(pl.Series([*texts, "soon"]), pl.Date())
    assert days.to_list() == [date(2020, 1, 2)] * 3 + [None] * 3
    assert is_lost.to_list() == [False] * 5 + [True]
    with pytest.raises(UnclearError, match="found 2020-01-02 16:00:00, a time without a zone"):
        convert(pl.Series([*texts, "2020-01-02 16:00:00"]), pl.Date())


def test_missing_numbers_are_null_and_words_are_named_with_row_and_count(tmp_path: Path) -> None:
    path = table(tmp_path, "date,close\n2020-01-02,NaN\n2020-01-03,null\n2020-01-06,5\n")
    assert read_table(path, LEVELS).frame["close"].to_list() == [None, None, 5.0]
    table(tmp_path, "date,close\n2020-01-02,5\n2020-01-03,five\n2020-01-06,six\n")
    message = r"column close: expected numbers, found 'five' in data row 2 \(2 such rows\); correct"
    with pytest.raises(DataError, match=message):
        read_table(path, LEVELS)


def test_key_without_a_value_is_named_under_the_heading_of_the_file(tmp_path: Path) -> None:
    path = table(tmp_path, "day,close\n2020-01-02,5\n,6\n")
    message = r"column day: expected a value in every row, found none in data row 2 \(1 such rows\)"
    with pytest.raises(DataError, match=message):
        read_table(path, LEVELS, names={"date": "day"}, keys=("date",))


def test_repeated_names_are_refused() -> None:
    with pytest.raises(DataError, match="column symbol: expected each symbol once, found B"):
        refuse_repeated(pl.Series("symbol", ["A", "B", "B"]), Path("sectors.csv"))


@pytest.mark.parametrize("sign", [*SIGNATURES, b'[{"date":"2020-01-02"}]', b'{"close":5}'])
def test_content_that_is_no_text_is_named_whatever_its_ending(tmp_path: Path, sign: bytes) -> None:
    path = tmp_path / "levels.csv"
    path.write_bytes(sign + bytes(range(256)) * 8)
    with pytest.raises(
        DataError, match=r"levels\.csv: .* inside; save it as plain \.csv"
    ) as caught:
        read_table(path, LEVELS)
    assert "\n" not in str(caught.value)
