"""Tables and columns of other names, as a market profile declares them."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hrl_sarp.config.market_schema import NamedTables
from hrl_sarp.data.sources.files import folder as files
from hrl_sarp.data.store import BARS_SCHEMA, RawData
from hrl_sarp.errors import DataError, MissingArtifactError

FILES = {
    "quotes.csv": "day,ticker,o,h,l,c,shares,note\n"
    "2020-01-02,AAA,10,11,9,10.5,100,x\n"
    "2020-01-03,AAA,10.5,11,10,10.8,200,x\n"
    "2020-01-02,B&B,20,21,19,20.5,300,x\n",
    "companies.csv": "symbol,industry\nAAA,OIL\nBB,POWER\n",
    "levels.csv": "date,name,value\n2020-01-02,ALL,100\n2020-01-03,ALL,101\n2020-01-02,SOME,7\n",
    # 5 March, 13 February and 1 January as found; the first is 3 May
    "flows.csv": "date,buy,sell\n2020-03-05,1,2\n2020-02-13,3,4\n2020-01-01,5,6\n",
}
NAMES: dict[str, Any] = {
    "survivorship": "two that stayed",
    "prices": {
        "table": "quotes",
        "columns": {
            "date": "day",
            "symbol": "ticker",
            "open": "o",
            "high": "h",
            "low": "l",
            "close": "c",
            "volume": "shares",
        },
    },
    "sectors": {
        "table": "companies",
        "symbol": "symbol",
        "sector": "industry",
        "renamed_symbols": {"BB": "B&B"},
        "sectors": {"OIL": "Energy", "POWER": "Utilities"},
    },
    "index": {"table": "levels", "close": "value", "only": {"column": "name", "equals": "ALL"}},
    "series": [
        {
            "table": "flows",
            "values": {"BUYING": "buy", "SELLING": "sell"},
            "only": None,
            "day_month_swapped_until": date(2020, 12, 31),
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with four tables of other names."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def load(folder: Path, macro: Path | None = None, **changes: Any) -> RawData:
    return files.load(folder, macro, NamedTables.model_validate({**NAMES, **changes}))


def test_declared_names_become_the_standard_ones(folder: Path) -> None:
    raw = load(folder)
    assert raw.bars.schema == BARS_SCHEMA
    assert raw.bars.row(1, named=True) == {
        "date": date(2020, 1, 3),
        "symbol": "AAA",
        "open": 10.5,
        "high": 11.0,
        "low": 10.0,
        "close": 10.8,
        "volume": 200.0,
        "adj_close": None,
        "dividend": 0.0,
        "split": 1.0,
    }
    assert raw.sectors.rows() == [("AAA", "Energy"), ("B&B", "Utilities")]
    assert raw.index["close"].to_list() == [100.0, 101.0]
    assert raw.survivorship == "two that stayed"
    assert "levels.csv: 1 rows left out, not ALL" in raw.notes


def test_exchanged_days_and_months_are_put_right_and_counted(folder: Path) -> None:
    raw = load(folder)
    buying = raw.macro.filter(pl.col("series") == "BUYING")
    # the 13th can only be a day, and the 1st of January is the same both ways
    assert dict(buying.select("date", "value").iter_rows()) == {
        date(2020, 1, 1): 5.0,
        date(2020, 2, 13): 3.0,
        date(2020, 5, 3): 1.0,
    }
    assert any("exchanged back in 1 of 3 dates up to 2020-12-31" in note for note in raw.notes)
    assert raw.import_findings is not None
    assert raw.import_findings.select("symbol", "date", "rule", "count").rows() == [
        (series, date(2020, 3, 5), "day_month_exchanged", 1) for series in ("BUYING", "SELLING")
    ]


def test_dates_are_untouched_after_the_declared_day_and_without_one(folder: Path) -> None:
    for until in (date(2020, 2, 29), None):
        series = [{**NAMES["series"][0], "day_month_swapped_until": until}]
        days = load(folder, series=series).macro["date"].unique().sort().to_list()
        assert days == [date(2020, 1, 1), date(2020, 2, 13), date(2020, 3, 5)]


def test_further_series_are_joined_and_named_tables_win(folder: Path, tmp_path: Path) -> None:
    further = tmp_path / "further.csv"
    further.write_text("date,series,value\n2020-01-02,BUYING,9\n2020-01-02,OIL,60\n")
    raw = load(folder, further)
    assert set(raw.macro["series"]) == {"BUYING", "SELLING", "OIL"}
    assert 9.0 not in raw.macro["value"].to_list()
    assert "series BUYING of further.csv left out: named table" in raw.notes


def test_table_of_prices_may_be_the_input(folder: Path) -> None:
    names = NamedTables.model_validate(NAMES)
    assert files.load(folder / "quotes.csv", None, names).bars.equals(load(folder).bars)


def test_names_do_not_count_where_their_table_of_prices_is_missing(folder: Path) -> None:
    (folder / "quotes.csv").rename(folder / "prices.csv")
    with pytest.raises(MissingArtifactError, match=r"expected sectors\.csv"):
        load(folder)


def test_table_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "levels.csv").unlink()
    with pytest.raises(MissingArtifactError, match=r"expected levels.csv or levels.parquet"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("quotes.csv", "ticker", "tick", "expected the columns .* found no ticker"),
        ("companies.csv", "POWER", "WIND", "expected one of OIL, POWER, found WIND"),
        ("levels.csv", "ALL", "NONE", "expected rows of 'ALL', found NONE, SOME"),
    ],
)
def test_what_does_not_fit_is_one_line(
    folder: Path, file: str, old: str, new: str, message: str
) -> None:
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_two_dates_that_become_one_are_refused(folder: Path) -> None:
    path = folder / "flows.csv"
    path.write_text(path.read_text() + "2020-03-05,7,8\n")
    with pytest.raises(DataError, match="found a duplicate: 2020-05-03 after 2020-05-03"):
        load(folder)
