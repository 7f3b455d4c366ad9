"""Rows that stand twice: copies leave, contradictions leave together, and each is named."""

from datetime import date

import polars as pl

from hrl_sarp.data.sources.files.duplicates import settle_doubled

Row = tuple[str, int, float | None, float | None]


def bars(*rows: Row) -> pl.DataFrame:
    """Number rows of (symbol, day of January 2020, close, volume) from 1."""
    schema = {"symbol": pl.String, "day": pl.Int64, "close": pl.Float64, "volume": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("place", offset=1)
    return frame.with_columns(date=pl.date(2020, 1, pl.col("day")))


def kept_places(frame: pl.DataFrame) -> list[int]:
    return frame["place"].to_list()


def test_rows_that_stand_once_are_returned_as_they_are() -> None:
    frame = bars(("A", 2, 1.0, 5.0), ("B", 2, 1.0, 5.0))
    kept, findings = settle_doubled(frame, "prices.csv data row")
    assert kept.equals(frame)
    assert findings.is_empty()


def test_of_copies_with_one_close_the_first_stays_and_the_other_is_named_with_its_volume() -> None:
    frame = bars(("A", 2, 1.0, 5.0), ("A", 3, 2.0, 6.0), ("A", 3, 2.0, 7.0))
    kept, findings = settle_doubled(frame, "A.csv line")
    assert kept_places(kept) == [1, 2]
    assert findings.rows() == [
        ("A", date(2020, 1, 3), 7.0, "duplicate_row", 1, "A.csv line 3: volume 7; kept 2: volume 6")
    ]


def test_copies_with_unlike_closes_all_leave() -> None:
    frame = bars(("A", 3, 2.0, 6.0), ("A", 3, 2.5, 6.0), ("A", 6, 3.0, 1.0))
    kept, findings = settle_doubled(frame, "A.csv line")
    assert kept_places(kept) == [3]
    assert findings.select("rule", "value").rows() == [
        ("conflicting_rows", 2.0),
        ("conflicting_rows", 2.5),
    ]


def test_copy_without_a_close_gives_way_to_the_one_that_has_it() -> None:
    frame = bars(("A", 3, None, None), ("A", 3, 2.0, 6.0))
    kept, findings = settle_doubled(frame, "A.csv line")
    assert kept_places(kept) == [2]
    assert findings["detail"].to_list() == ["A.csv line 1: volume unknown; kept 2: volume 6"]


def test_null_rows_that_stand_twice_stay_once() -> None:
    kept, findings = settle_doubled(bars(("A", 3, None, None), ("A", 3, None, None)), "A.csv line")
    assert kept_places(kept) == [1]
    assert findings["rule"].to_list() == ["duplicate_row"]


def test_same_day_of_two_symbols_is_no_duplicate() -> None:
    kept, _ = settle_doubled(bars(("A", 3, 2.0, 1.0), ("B", 3, 4.0, 1.0)), "prices.csv data row")
    assert kept.height == 2
