"""Duplicate rows are settled and named; declared splits and dividends reach the bars."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.folder import load
from hrl_sarp.data.sources.files.prices import apply_actions, settle_duplicates
from hrl_sarp.errors import DataError
from tests.data.raw_factories import clean_raw, day

Row = tuple[str, int, float | None, float | None]


def bars(*rows: Row) -> pl.DataFrame:
    """Number rows of (symbol, day of January 2020, close, volume) from 1."""
    schema = {"symbol": pl.String, "day": pl.Int64, "close": pl.Float64, "volume": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("place", offset=1)
    return frame.with_columns(date=pl.date(2020, 1, pl.col("day")))


def kept_places(frame: pl.DataFrame) -> list[int]:
    return frame["place"].to_list()


def test_rows_without_duplicates_are_returned_as_they_are() -> None:
    frame = bars(("A", 2, 1.0, 5.0), ("B", 2, 1.0, 5.0))
    kept, _, findings, _ = settle_duplicates(frame, "prices.csv data row")
    assert kept.equals(frame)
    assert findings.is_empty()


def test_of_copies_with_one_close_the_first_stays_and_the_other_is_named_with_its_volume() -> None:
    frame = bars(("A", 2, 1.0, 5.0), ("A", 3, 2.0, 6.0), ("A", 3, 2.0, 7.0))
    kept, _, findings, _ = settle_duplicates(frame, "A.csv line")
    assert kept_places(kept) == [1, 2]
    assert findings.rows() == [
        ("A", date(2020, 1, 3), 7.0, "duplicate_row", 1, "A.csv line 3: volume 7; kept 2: volume 6")
    ]


def test_copies_with_unlike_closes_all_leave() -> None:
    frame = bars(("A", 3, 2.0, 6.0), ("A", 3, 2.5, 6.0), ("A", 6, 3.0, 1.0))
    kept, _, findings, _ = settle_duplicates(frame, "A.csv line")
    assert kept_places(kept) == [3]
    assert findings.select("rule", "value").rows() == [
        ("conflicting_rows", 2.0),
        ("conflicting_rows", 2.5),
    ]


def test_copy_without_a_close_gives_way_to_the_one_that_has_it() -> None:
    frame = bars(("A", 3, None, None), ("A", 3, 2.0, 6.0))
    kept, _, findings, _ = settle_duplicates(frame, "A.csv line")
    assert kept_places(kept) == [2]
    assert findings["detail"].to_list() == ["A.csv line 1: volume unknown; kept 2: volume 6"]


def test_duplicate_null_rows_stay_once() -> None:
    kept, _, findings, _ = settle_duplicates(
        bars(("A", 3, None, None), ("A", 3, None, None)), "A.csv line"
    )
    assert kept_places(kept) == [1]
    assert findings["rule"].to_list() == ["duplicate_row"]


def test_same_day_of_two_symbols_is_no_duplicate() -> None:
    kept, _, _, _ = settle_duplicates(
        bars(("A", 3, 2.0, 1.0), ("B", 3, 4.0, 1.0)), "prices.csv data row"
    )
    assert kept.height == 2


def prices_with_closes_outside(folder: Path, counts: dict[str, int]) -> Path:
    """Write ten days of each symbol, of which so many close below the low."""
    lines = ["date,symbol,open,high,low,close"]
    for symbol, n_outside in counts.items():
        closes = [5.0 if number < n_outside else 10.0 for number in range(10)]
        lines += [f"{day(i)},{symbol},10,11,9,{close}" for i, close in enumerate(closes)]
    (folder / "prices.csv").write_text("\n".join(lines))
    sectors = "\n".join(f"{symbol},Energy" for symbol in counts)
    (folder / "sectors.csv").write_text(f"symbol,sector\n{sectors}\n")
    return folder


@pytest.mark.parametrize(("n_of_aaa", "named"), [(0, []), (4, []), (6, ["AAA"])])
def test_symbol_whose_closes_mostly_lie_outside_low_to_high_is_named(
    tmp_path: Path, n_of_aaa: int, named: list[str]
) -> None:
    notes = load(prices_with_closes_outside(tmp_path, {"AAA": n_of_aaa, "BBB": 0})).notes
    found = [
        note.split(":")[0]
        for note in notes
        if "closes between low and high, most rows are without" in note
    ]
    assert found == named


def test_data_whose_closes_mostly_lie_outside_are_refused_with_the_cause(tmp_path: Path) -> None:
    message = r"column close: .* 15 of 20 rows without, the first AAA .* closes are adjusted"
    with pytest.raises(DataError, match=message):
        load(prices_with_closes_outside(tmp_path, {"AAA": 9, "BBB": 6}))


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ("10,9,11,10", "column low: expected lows below highs, .* exchange the headings"),
        ("500,11,9,10", "column open: expected opens between low and high"),
    ],
)
def test_prices_under_exchanged_headings_are_refused(tmp_path: Path, row: str, cause: str) -> None:
    lines = [f"{day(i)},AAA,{row}" for i in range(10)]
    header = "date,symbol,open,high,low,close"
    (tmp_path / "prices.csv").write_text("\n".join([header, *lines]))
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAA,Energy\n")
    with pytest.raises(DataError, match=cause):
        load(tmp_path)


@pytest.mark.parametrize(
    ("n_strange", "is_refused"), [(0, False), (2, False), (3, True), (9, True)]
)
def test_closes_that_are_no_prices_are_refused(
    tmp_path: Path,
    n_strange: int,
    is_refused: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    closes = [-0.01 if i < n_strange else 0.02 for i in range(10)]
    lines = [f"{day(i)},AAA,{close}" for i, close in enumerate(closes)]
    (tmp_path / "prices.csv").write_text("\n".join(["date,symbol,close", *lines]))
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAA,Energy\n")
    if n_strange <= 2:  # a fifth of ten
        assert load(tmp_path).bars.height == 10
        return
    with pytest.raises(DataError, match=rf"expected closes above 0, found {n_strange} of 10 rows"):
        load(tmp_path)


@pytest.mark.parametrize("columns", [("open",), ("high", "low"), ("open", "high", "low", "close")])
@pytest.mark.parametrize("name", ["prices.csv", "AAA.csv"])
def test_price_of_zero_is_unknown(tmp_path: Path, name: str, columns: tuple[str, ...]) -> None:
    header = ["date", *(["symbol"] if name == "prices.csv" else []), "open", "high", "low", "close"]
    lines = [",".join(header)]
    for i in range(10):
        cells = {"open": 10, "high": 11, "low": 9, "close": 10}
        if i == 4:
            cells |= dict.fromkeys(columns, 0)
        symbol = ["AAA"] if name == "prices.csv" else []
        lines.append(",".join(map(str, [day(i), *symbol, *cells.values()])))
    (tmp_path / name).write_text("\n".join(lines))
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAA,Energy\n")
    raw = load(tmp_path)
    unknown = [column for column in header[-4:] if raw.bars[column].null_count()]
    assert unknown == list(columns)
    assert any(f"0 is read as an unknown price in {', '.join(columns)}" in n for n in raw.notes)


@pytest.mark.parametrize("other", ["more.csv", "2020.parquet"])
def test_day_of_a_symbol_in_two_files_is_refused_with_both(tmp_path: Path, other: str) -> None:
    bars = clean_raw(("AAA",)).bars.select("date", "open", "high", "low", "close")
    bars.write_csv(tmp_path / "AAA.csv")
    again = bars.tail(3).with_columns(symbol=pl.lit("AAA"))
    if other.endswith("parquet"):
        again.write_parquet(tmp_path / other)
    else:
        again.write_csv(tmp_path / other)
    (tmp_path / "sectors.csv").write_text("symbol,sector\nAAA,Energy\n")
    first, second = sorted(["AAA.csv", other])
    message = rf"found AAA {day(17)} in {first} and {second} \(3 such days\); remove one"
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def actions(folder: Path, *lines: str, header: str = "date,symbol,split,dividend") -> Path:
    (folder / "actions.csv").write_text("\n".join([header, *lines]))
    return folder


def test_splits_and_dividends_are_written_on_their_days_only(tmp_path: Path) -> None:
    bars = clean_raw().bars
    folder = actions(tmp_path, f"{day(5)},AAA,2,", f"{day(7)},AAA,,0.5", f"{day(7)},ZZZ,3,")
    read = apply_actions(bars, folder)
    found = read.frame
    assert read.notes == (
        "2 splits and dividends from actions.csv",
        "actions.csv: symbols without a partner in the prices: 'ZZZ'",
    )
    changed = found.filter((pl.col("split") != 1) | (pl.col("dividend") != 0))
    assert changed.select("date", "symbol", "split", "dividend").rows() == [
        (day(5), "AAA", 2.0, 0.0),
        (day(7), "AAA", 1.0, 0.5),
    ]
    others = [name for name in bars.columns if name not in ("split", "dividend")]
    assert found.select(others).equals(bars.select(others))


def test_nothing_happens_without_the_table(tmp_path: Path) -> None:
    bars = clean_raw().bars
    read = apply_actions(bars, tmp_path)
    assert read.frame is bars
    assert read.notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            f"{date(2019, 1, 5)},AAA,2,",
            "expected a bar of the stock for each symbol and day",
        ),
        (f"{day(5)},AAA,-2,", "a split above 0"),
        (f"{day(5)},AAA,,-1", "no negative dividend"),
        (f"{day(5)},AAA,2,\n{day(5)},AAA,3,", "expected one row for each symbol and day"),
        (f"{day(5)},AAA,two,", "column split: expected numbers"),
        (f"{day(5)},aaa,2,", "found 'aaa', where the prices have 'AAA'; spell both alike"),
    ],
)
def test_row_that_does_not_fit_is_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        apply_actions(clean_raw().bars, actions(tmp_path, line))
    assert "\n" not in str(caught.value)


def test_table_without_split_and_dividend_is_refused(tmp_path: Path) -> None:
    folder = actions(tmp_path, f"{day(5)},AAA", header="date,symbol")
    with pytest.raises(DataError, match="expected a column split or dividend"):
        apply_actions(clean_raw().bars, folder)
