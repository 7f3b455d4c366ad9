"""What several files, rows or columns say about one symbol is joined, or refused with its cause."""

import re
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.sources.files.folder import load
from hrl_sarp.errors import DataError

DAYS = [date(2019, 1, 28) + timedelta(days=i) for i in range(10)]
HEADER = "date,close"


def sectors(folder: Path, *symbols: str) -> Path:
    lines = "".join(f"{symbol},Energy\n" for symbol in symbols)
    (folder / "sectors.csv").write_text(f"symbol,sector\n{lines}")
    return folder


def part(folder: Path, name: str, days: list[date], header: str = HEADER) -> None:
    lines = [f"{day},{10 + day.day}" for day in days]
    (folder / f"{name}.csv").write_text("\n".join([header, *lines]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AAA_2019-01", "AAA_2019-02"),
        ("AAA-1d-2019-01", "AAA-1d-2019-02"),
        ("AAA 2018", "AAA 2019"),
        ("AAA.20190128", "AAA.20190201"),
        ("AAA_20190128_20190131", "AAA_20190201_20190206"),
        ("AAA_201901280000_201901310000", "AAA_201902010000_201902060000"),
    ],
)
@pytest.mark.parametrize("has_sectors", [True, False])
def test_files_of_periods_are_parts_of_one_symbol(
    tmp_path: Path, one: str, other: str, *, has_sectors: bool
) -> None:
    name = "AAA-1d" if "1d" in one else "AAA"
    if has_sectors:
        sectors(tmp_path, name)
    part(tmp_path, one, DAYS[:4])
    part(tmp_path, other, DAYS[4:])
    raw = load(tmp_path, needs_sectors=False)
    assert raw.bars.select("symbol", "date").rows() == [(name, day) for day in DAYS]
    assert {symbol for reading in raw.readings for symbol in reading.symbols} == {name}
    assert f"{one}.csv: 2 files are parts of one symbol, {name}" in raw.notes


def test_findings_of_a_part_have_the_name_of_the_symbol(tmp_path: Path) -> None:
    part(tmp_path, "AAA_2019-01", DAYS[:4], header=f"junk\n{HEADER}")
    part(tmp_path, "AAA_2019-02", DAYS[4:])
    raw = load(tmp_path, needs_sectors=False)
    assert raw.import_findings is not None
    assert raw.import_findings["symbol"].to_list() == ["AAA"]


@pytest.mark.parametrize("name", ["AAA_2019-01-28_2019-02-06", "AAA_2019"])
def test_period_behind_a_symbol_of_the_sectors_is_not_part_of_it(tmp_path: Path, name: str) -> None:
    part(sectors(tmp_path, "AAA"), name, DAYS)
    raw = load(tmp_path)
    assert raw.bars["symbol"].unique().to_list() == ["AAA"]
    assert f"{name}.csv: holds one symbol, AAA" in raw.notes


@pytest.mark.parametrize(
    "names", [("ES_2019", "ES_2020"), ("AAA2018", "AAA2019"), ("2018", "2019")]
)
def test_files_that_overlap_or_have_no_period_stay_symbols_of_their_own(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    overlap = 2 if names[0] == "ES_2019" else 0
    part(tmp_path, names[0], DAYS[: 4 + overlap])
    part(tmp_path, names[1], DAYS[4:])
    assert load(tmp_path, needs_sectors=False).bars["symbol"].unique().sort().to_list() == [*names]


def test_parts_that_overlap_are_refused_with_both_files(tmp_path: Path) -> None:
    sectors(tmp_path, "AAA")
    part(tmp_path, "AAA_2018", DAYS[:6])
    part(tmp_path, "AAA_2019", DAYS[5:])
    with pytest.raises(DataError, match=r"AAA 2019-02-02 in AAA_2018\.csv and AAA_2019\.csv \(1 "):
        load(tmp_path)


def kinds_of(folder: Path, kinds: list[str], factor: float, heading: str = "SERIES") -> Path:
    lines = [
        f"{day},{symbol},{kind},{(10 + day.day) * (1 if kind == kinds[0] else factor)}"
        for day in DAYS
        for symbol, words in (("AAA", kinds), ("BBB", kinds[:1]))
        for kind in words
    ]
    (folder / "prices.csv").write_text("\n".join([f"date,symbol,{heading},close", *lines]))
    return sectors(folder, "AAA", "BBB")


@pytest.mark.parametrize(
    ("heading", "kinds"), [("SERIES", ["EQ", "BE"]), ("Exchange", ["XPAR", "XAMS", "XBRU"])]
)
def test_rows_of_a_day_that_a_column_tells_apart_are_refused_by_its_name(
    tmp_path: Path, heading: str, kinds: list[str]
) -> None:
    apart = rf"told apart as {', '.join(sorted(kinds))} in data row 1"
    with pytest.raises(DataError, match=rf"column {heading}: .* AAA on 2019-01-28, {apart}"):
        load(kinds_of(tmp_path, kinds, 3.0, heading))


def test_rows_of_a_day_with_one_close_are_copies_whatever_tells_them_apart(tmp_path: Path) -> None:
    raw = load(kinds_of(tmp_path, ["EQ", "BE"], 1.0))
    assert raw.bars.height == 2 * len(DAYS)
    assert raw.import_findings is not None
    assert set(raw.import_findings["rule"]) == {"duplicate_row"}


def test_numbers_tell_no_rows_apart(tmp_path: Path) -> None:
    raw = load(kinds_of(tmp_path, ["1", "2"], 3.0))
    assert raw.import_findings is not None
    assert set(raw.import_findings["rule"]) == {"conflicting_rows"}


@pytest.mark.parametrize("index", ["Unnamed: 0", "level_0", "__index_level_0__", ""])
def test_numbers_of_rows_in_a_wide_table_are_no_stock(tmp_path: Path, index: str) -> None:
    table = "\n".join(f"{i},{day},{10 + i},{20 + i}" for i, day in enumerate(DAYS))
    (tmp_path / "prices.csv").write_text(f"{index},date,AAA,BBB\n{table}")
    raw = load(tmp_path, needs_sectors=False)
    assert raw.bars["symbol"].unique().sort().to_list() == ["AAA", "BBB"]


@pytest.mark.parametrize("name", ["prices.csv", "prices.parquet"])
@pytest.mark.parametrize("form", ["wide", "long"])
@pytest.mark.parametrize(("word", "digits"), [("sum", 6), ("mean", 6), ("sum", 2), ("mean", 2)])
def test_symbol_that_is_made_of_the_others_is_no_stock(
    tmp_path: Path, name: str, form: str, word: str, digits: int
) -> None:
    closes = np.exp(np.random.default_rng(0).normal(6, 0.1, (len(DAYS), 3))).round(2)
    made = closes.sum(axis=1) / (1 if word == "sum" else 3)
    columns = dict(zip(("AAA", "BBB", "CCC"), closes.T, strict=True))
    wide = pl.DataFrame({"date": DAYS, **columns, "Total": made.round(digits)})
    for frame, is_refused in ((wide, True), (wide.drop("Total"), False)):
        table = frame
        if form == "long":
            table = frame.unpivot(index="date", variable_name="symbol", value_name="close")
        path = tmp_path / name
        table.write_csv(path) if name.endswith("csv") else table.write_parquet(path)
        if is_refused:
            with pytest.raises(DataError, match=f"Total, the {word} of the other symbols on each"):
                load(tmp_path, needs_sectors=False)
        else:
            assert load(tmp_path, needs_sectors=False).bars["symbol"].n_unique() == 3


def test_copy_of_a_column_of_a_wide_table_is_refused(tmp_path: Path) -> None:
    rows = "\n".join(f"{day},1,2,3" for day in DAYS)
    (tmp_path / "prices.csv").write_text(f"date,AAA,BBB,AAA.1\n{rows}")
    with pytest.raises(DataError, match=r"AAA and AAA\.1, as programs call a column"):
        load(tmp_path, needs_sectors=False)
    (tmp_path / "prices.csv").write_text(f"date,AAA,BBB,BRK.1\n{rows}")
    assert load(tmp_path, needs_sectors=False).bars["symbol"].n_unique() == 3


@pytest.mark.parametrize("name", ["^GSPC", "DGS10", "VIX"])
def test_index_or_rate_among_the_prices_needs_a_table_of_sectors(tmp_path: Path, name: str) -> None:
    for symbol in ("AAA", name):
        part(tmp_path, symbol, DAYS)
    with pytest.raises(DataError, match=rf"found {re.escape(name)} and no table of sectors; move"):
        load(tmp_path, needs_sectors=False)
    assert load(sectors(tmp_path, "AAA", name)).bars["symbol"].n_unique() == 2


@pytest.mark.parametrize("heading", ["currency", "Ccy", "Währung"])
def test_symbol_in_two_currencies_is_refused_with_its_day(tmp_path: Path, heading: str) -> None:
    def table(words: list[str], other: str = "GBP") -> None:
        rows = [
            f"{day},{symbol},{word},{10 + day.day}"
            for symbol, own in (("AAA", words), ("BBB", [other] * len(DAYS)))
            for day, word in zip(DAYS, own, strict=True)
        ]
        (tmp_path / "prices.csv").write_text("\n".join([f"date,symbol,{heading},close", *rows]))

    sectors(tmp_path, "AAA", "BBB")
    table(["GBP", "", *["GBP"] * 8])
    assert load(tmp_path).bars.height == 2 * len(DAYS)
    table([*["GBP"] * 4, *["USD"] * 6])
    words = rf"column {heading}: .* AAA in GBP, and in USD on {DAYS[4]} in data row 5"
    with pytest.raises(DataError, match=words):
        load(tmp_path)
    table(["GBP"] * 10, other="USD")
    words = rf"{heading}: .* for all symbols, found prices in GBP, and BBB in USD on {DAYS[0]}"
    with pytest.raises(DataError, match=words):
        load(tmp_path)


@pytest.mark.parametrize("zone", ["", "+00:00"])
@pytest.mark.parametrize("name", ["AAA.csv", "prices.csv"])
def test_several_bars_a_day_are_refused_as_what_they_are(
    tmp_path: Path, name: str, zone: str
) -> None:
    head, symbol = ("date,symbol,close", "AAA,") if name == "prices.csv" else (HEADER, "")
    rows = [f"{day} {hour}:30:00{zone},{symbol}{hour}" for day in DAYS for hour in (15, 16, 17)]
    (sectors(tmp_path, "AAA") / name).write_text("\n".join([head, *rows]))
    with pytest.raises(
        DataError, match=r"column date: .* 3 times of a usual day, the first 2019-01"
    ):
        load(tmp_path, calendar="XNYS")


@pytest.mark.parametrize(("step", "word"), [(1, "before"), (-1, "after")])
@pytest.mark.parametrize("column", ["open", "close"])
def test_column_that_is_dated_a_row_off_is_refused(
    tmp_path: Path, column: str, step: int, word: str
) -> None:
    rng = np.random.default_rng(0)
    days = [date(2019, 1, 1) + timedelta(days=i) for i in range(100)]
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, len(days))))
    frame = pl.DataFrame({"date": days, "symbol": "AAA", "open": close * 0.999, "close": close})
    frame = frame.with_columns(high=pl.col("close") * 1.004, low=pl.col("open") * 0.996)
    sectors(tmp_path, "AAA")
    frame.write_csv(tmp_path / "prices.csv")
    assert load(tmp_path).bars.height == len(days)
    moved = frame.with_columns(pl.col(column).shift(step)).drop_nulls()
    moved.write_csv(tmp_path / "prices.csv")
    message = rf"column {column}: .* 0 if they are those of the session {word}; move the column"
    with pytest.raises(DataError, match=message):
        load(tmp_path)
