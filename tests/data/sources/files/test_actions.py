"""The user's splits and dividends reach the bars, and what does not fit is one line."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.actions import apply_actions
from hrl_sarp.errors import DataError
from tests.data.raw_factories import clean_raw, day


def actions(folder: Path, *lines: str, header: str = "date,symbol,split,dividend") -> Path:
    (folder / "actions.csv").write_text("\n".join([header, *lines]))
    return folder


def test_splits_and_dividends_are_written_on_their_days_only(tmp_path: Path) -> None:
    bars = clean_raw().bars
    folder = actions(tmp_path, f"{day(5)},AAA,2,", f"{day(7)},AAA,,0.5", f"{day(7)},ZZZ,3,")
    found, notes = apply_actions(bars, folder)
    assert notes == ("2 splits and dividends from actions.csv",)  # ZZZ has no bars
    changed = found.filter((pl.col("split") != 1) | (pl.col("dividend") != 0))
    assert changed.select("date", "symbol", "split", "dividend").rows() == [
        (day(5), "AAA", 2.0, 0.0),
        (day(7), "AAA", 1.0, 0.5),
    ]
    others = [name for name in bars.columns if name not in ("split", "dividend")]
    assert found.select(others).equals(bars.select(others))


def test_nothing_happens_without_the_table(tmp_path: Path) -> None:
    bars = clean_raw().bars
    found, notes = apply_actions(bars, tmp_path)
    assert found is bars
    assert notes == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{date(2019, 1, 5)},AAA,2,", "expected days on which the stock has a bar, found AAA"),
        (f"{day(5)},AAA,0,", "a split above 0"),
        (f"{day(5)},AAA,,-1", "no negative dividend"),
        (f"{day(5)},AAA,2,\n{day(5)},AAA,3,", "expected a row for each symbol and day"),
        (f"{day(5)},AAA,two,", "column split: expected numbers"),
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
