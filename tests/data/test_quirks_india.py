"""Every quirk of the Indian daily files: named by a rule, left out in words, or declared.

The market assembled from them is in tests/market/test_india_daily.py.
"""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality import series
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.sources.files import folder as files
from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, RawData
from hrl_sarp.errors import DataError

# Named in the README of the files; the rest of the 90 are as plain.
SPLITS = [
    ("INFY", "2000-01-27"),
    ("TITAN", "2011-06-23"),
    ("TATAMOTORS", "2011-09-12"),
    ("SBIN", "2014-11-20"),
    ("INFY", "2014-12-02"),
    ("INFY", "2015-06-15"),
    ("BAJFINANCE", "2016-09-08"),
    ("JSWSTEEL", "2017-01-04"),
    ("RELIANCE", "2017-09-07"),
    ("TCS", "2018-05-31"),
    ("INFY", "2018-09-04"),
    ("HDFCBANK", "2019-09-19"),
    ("HCLTECH", "2019-12-05"),
]
# Bonus issues: 1 new share for 2 (ITC, LT), 1 for 3 (WIPRO 2019, GAIL), 2 for 3 (WIPRO 2010).
BONUS_ISSUES = [
    ("WIPRO", "2010-06-15"),
    ("ITC", "2016-07-01"),
    ("LT", "2017-07-13"),
    ("GAIL", "2017-03-09"),
    ("WIPRO", "2019-03-06"),
]
# Election and crisis days, an auditor's warning, a promoter's pledge, a recapitalisation.
REAL_MOVES = [
    ("INFY", "2003-04-10"),
    ("GAIL", "2004-05-17"),
    ("VEDL", "2008-01-21"),
    ("BAJAJFINSV", "2008-10-10"),
    ("INFY", "2013-04-12"),
    ("SBIN", "2017-10-25"),
    ("BPCL", "2018-10-05"),
    ("ZEEL", "2019-01-25"),
]
HOLES = ("GAIL", "INDUSINDBK", "KOTAKBANK", "SHREECEM")
RENAMED = {
    "ADANIPORTS": ["MUNDRAPORT"],
    "AXISBANK": ["UTIBANK"],
    "BAJFINANCE": ["BAJAUTOFIN"],
    "BHARTIARTL": ["BHARTI"],
    "HEROMOTOCO": ["HEROHONDA"],
    "HINDALCO": ["HINDALC0"],
    "HINDUNILVR": ["HINDLEVER"],
    "INFY": ["INFOSYSTCH"],
    "JSWSTEEL": ["JSWSTL"],
    "KOTAKBANK": ["KOTAKMAH"],
    "TATAMOTORS": ["TELCO"],
    "TATASTEEL": ["TISCO"],
    "UPL": ["UNIPHOS"],
    "VEDL": ["SESAGOA", "SSLT"],
    "ZEEL": ["ZEETELE"],
}
WEEKENDS = [
    "2012-01-07",
    "2012-03-03",
    "2012-09-08",
    "2013-05-11",
    "2014-03-22",
    "2015-02-28",
    "2013-11-03",
    "2016-10-30",
    "2019-10-27",
]
FLOWS = ["DOMESTIC_FLOW", "FOREIGN_FLOW"]


@pytest.fixture(scope="module")
def folder(data_folder: Path) -> Path:
    if not (data_folder / "india_daily").is_dir():
        pytest.skip("the data folder has no india_daily")
    return data_folder / "india_daily"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config(market="nse")


@pytest.fixture(scope="module")
def raw(folder: Path, config: RunConfig) -> RawData:
    return load(folder, config)


@pytest.fixture(scope="module")
def report(raw: RawData, config: RunConfig) -> ValidationReport:
    return check(raw, config)


@pytest.fixture(scope="module")
def naive() -> RunConfig:
    """The profile without its declarations about dates."""
    series = [
        {
            "table": "fii_dii_flows",
            "values": {"FOREIGN_FLOW": "fii_net", "DOMESTIC_FLOW": "dii_net"},
            "only": None,
            "day_month_swapped_until": None,
        }
    ]
    changes: dict[str, Any] = {"added": [], "removed": []}
    return load_config(
        market="nse",
        overrides={"data": {"named_tables": {"series": series}, "calendar_changes": changes}},
    )


@pytest.fixture(scope="module")
def naive_report(folder: Path, naive: RunConfig) -> ValidationReport:
    return check(load(folder, naive), naive)


def load(folder: Path, config: RunConfig) -> RawData:
    names = config.data.named_tables
    assert names is not None
    return files.load(folder, None, names)


def check(raw: RawData, config: RunConfig) -> ValidationReport:
    data = config.data
    return validate(raw, data.validation, config.market_profile.calendar, data.calendar_changes)


def named(report: ValidationReport, rule: str) -> set[tuple[str, str]]:
    rows = report.table.filter(pl.col("rule") == rule).select("symbol", "date").iter_rows()
    return {(symbol, str(day)) for symbol, day in rows}


def index_of(folder: Path, table: str, name: str) -> pl.DataFrame:
    rows = pl.read_parquet(folder / f"{table}.parquet").filter(pl.col("index") == name)
    return rows.select(INDEX_SCHEMA.names()).unique("date").sort("date")


def index_findings(index: pl.DataFrame, config: RunConfig) -> dict[str, list[str]]:
    """Return the days of each rule that an index breaks."""
    span: Sequence[datetime.date] = index["date"].to_list()
    sessions = sessions_between("XBOM", span[0], span[-1], config.data.calendar_changes)
    table = series.index_defects(index, config.data.validation, sessions)
    days: dict[str, list[str]] = {}
    for rule, day in table.select("rule", "date").iter_rows():
        days.setdefault(rule, []).append(str(day))
    return days


def test_nothing_fails(report: ValidationReport) -> None:
    assert not report.has_failed
    assert report.n_bars == 218_924
    assert report.n_symbols == 49


def test_splits_and_bonus_issues_without_a_flag_are_named(report: ValidationReport) -> None:
    found = named(report, "undeclared_split")
    assert set(SPLITS + BONUS_ISSUES) <= found
    assert len(found) == 90


def test_real_moves_are_not_called_splits(report: ValidationReport) -> None:
    assert not set(REAL_MOVES) & named(report, "undeclared_split")


def test_no_large_fall_after_2010_is_anything_but_a_split(
    raw: RawData, report: ValidationReport
) -> None:
    change = pl.col("close") / pl.col("close").shift(1).over("symbol") - 1
    falls = raw.bars.with_columns(change=change).filter(
        (pl.col("change") < -0.4) & (pl.col("date").dt.year() > 2010)
    )
    days = {(symbol, str(day)) for symbol, day in falls.select("symbol", "date").iter_rows()}
    assert len(days) > 20
    assert days <= named(report, "undeclared_split")


def test_value_of_a_split_is_the_night_that_is_kept_out(report: ValidationReport) -> None:
    row = report.table.filter(
        (pl.col("rule") == "undeclared_split")
        & (pl.col("symbol") == "RELIANCE")
        & (pl.col("date").dt.year() == 2017)
    ).row(0, named=True)
    assert row["value"] == pytest.approx(823.0 / 1645.4 - 1)  # the open over the close before
    assert not row["is_excluded"]  # the bar itself is sound


def test_a_declared_split_is_no_finding(folder: Path, config: RunConfig, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "actions.csv").write_text("date,symbol,split\n2017-09-07,RELIANCE,2\n")
    declared = load(tmp_path, config)
    assert ("RELIANCE", "2017-09-07") not in named(check(declared, config), "undeclared_split")
    assert "1 splits and dividends from actions.csv" in declared.notes


def test_a_company_keeps_one_name_through_its_renamings(folder: Path, raw: RawData) -> None:
    table = pl.read_parquet(folder / "nifty50_prices.parquet", columns=["symbol", "file_symbol"])
    old = table.filter(~pl.col("file_symbol").is_in(["MM"])).unique()
    names = {
        today: sorted(rows["symbol"].to_list())
        for (today,), rows in old.filter(pl.col("symbol") != pl.col("file_symbol")).group_by(
            "file_symbol"
        )
    }
    assert names == RENAMED
    symbols = set(raw.bars["symbol"])
    assert len(symbols) == 49
    assert not symbols & {name for former in RENAMED.values() for name in former}


def test_no_session_and_no_price_is_lost_at_a_renaming(folder: Path) -> None:
    table = pl.read_parquet(folder / "nifty50_prices.parquet").sort("file_symbol", "date")
    before = {name: pl.col(name).shift(1).over("file_symbol") for name in ("symbol", "close")}
    changed = table.with_columns(**{f"last_{name}": value for name, value in before.items()})
    changed = changed.filter(pl.col("symbol") != pl.col("last_symbol"))
    assert changed.height == 16  # SESAGOA became SSLT, then VEDL
    assert (changed["close"] / changed["last_close"] - 1).abs().max() < 0.12


def test_a_stock_that_the_sectors_spell_otherwise_has_its_sector(raw: RawData) -> None:
    sector = dict(raw.sectors.iter_rows())
    assert sector["MM"] == "Auto"
    assert raw.bars.join(raw.sectors, on="symbol", how="anti").is_empty()


def test_the_hole_of_468_days_is_named(folder: Path, report: ValidationReport) -> None:
    holes = report.table.filter(pl.col("rule") == "long_hole")
    assert holes.select("symbol", "date", "count").rows() == [
        (symbol, datetime.date(2001, 7, 2), 468) for symbol in HOLES
    ]
    # prices moved their base in the hole: the exchange's own close before is another
    table = pl.read_parquet(folder / "nifty50_prices.parquet").filter(
        pl.col("file_symbol") == "KOTAKBANK"
    )
    last = table.filter(pl.col("date") == datetime.date(2000, 3, 21))["close"][0]
    known = table.filter(pl.col("date") == datetime.date(2001, 7, 2))["prev_close"][0]
    assert known / last < 0.4


def test_declared_special_sessions_are_sessions(report: ValidationReport) -> None:
    assert not named(report, "off_session")
    assert not {day for _, day in named(report, "calendar_gap")} & set(WEEKENDS)


def test_undeclared_special_sessions_are_named(naive_report: ValidationReport) -> None:
    days = {day for symbol, day in named(naive_report, "off_session") if symbol == "RELIANCE"}
    assert len(days) == 29
    assert set(WEEKENDS) <= days
    assert "2018-11-07" in days  # a festive evening in the week
    # the holiday of November 2013 was moved from the 14th to the 15th
    moved = named(naive_report, "calendar_gap")
    assert ("RELIANCE", "2013-11-15") in moved
    assert "2013-11-14" in days


def test_late_listings_have_no_earlier_bar(raw: RawData) -> None:
    first = dict(raw.bars.group_by("symbol").agg(pl.min("date")).iter_rows())
    assert str(first["COALINDIA"]) == "2010-11-04"
    assert str(first["NESTLEIND"]) == "2010-01-08"
    assert str(first["BAJAJ-AUTO"]) == str(first["BAJAJFINSV"]) == "2008-05-26"
    assert str(first["TCS"]) == "2004-08-25"
    assert "INFRATEL" not in first
    assert "INFRATEL" in set(raw.sectors["symbol"])


def test_turnover_in_other_units_and_null_counts_are_not_read(folder: Path, raw: RawData) -> None:
    assert raw.bars.columns == BARS_SCHEMA.names()
    row = pl.read_parquet(folder / "nifty50_prices.parquet").filter(
        (pl.col("file_symbol") == "RELIANCE") & (pl.col("date") == datetime.date(2000, 1, 3))
    )
    # turnover counts 1/100,000 rupees; what the market uses is close x volume
    assert row["turnover"][0] / 1e5 / row["volume"][0] == pytest.approx(row["vwap"][0], rel=1e-4)
    assert row["trades"][0] is None
    assert row["deliverable_volume"][0] is None


def test_the_benchmark_has_a_level_on_every_session(report: ValidationReport) -> None:
    assert not report.table["rule"].str.starts_with("index_").any()


def test_base_change_of_an_index_is_named(folder: Path, config: RunConfig) -> None:
    found = index_findings(index_of(folder, "indices_ohlc", "NIFTY IT"), config)
    assert found["index_jump"] == ["2004-05-28"]


def test_index_with_two_rows_of_one_day_is_refused(folder: Path) -> None:
    only = {"column": "index", "equals": "NIFTY IT"}
    config = load_config(
        market="nse", overrides={"data": {"named_tables": {"index": {"only": only}}}}
    )
    with pytest.raises(DataError, match="a duplicate: 2003-12-23"):
        load(folder, config)


def test_base_value_before_the_first_session_is_named(folder: Path, config: RunConfig) -> None:
    found = index_findings(index_of(folder, "indices_ohlc", "NIFTY BANK"), config)
    assert found == {"index_off_session": ["2000-01-01"]}


def test_zero_and_missing_prices_of_an_index_keep_its_rows_out(
    folder: Path, raw: RawData, config: RunConfig
) -> None:
    table = pl.read_parquet(folder / "indices_ohlc.parquet").unique(["index", "date"])
    bars = table.select(
        *[name for name in BARS_SCHEMA if name in table.columns],
        symbol="index",
        adj_close=pl.lit(None, dtype=pl.Float64),
        dividend=pl.lit(0.0),
        split=pl.lit(1.0),
    ).select(BARS_SCHEMA.names())
    sectors = bars.select("symbol", sector=pl.lit("IT")).unique()
    report = check(
        RawData(
            bars=bars.sort("symbol", "date"),
            sectors=sectors,
            macro=raw.macro,
            index=raw.index,
            source="files",
            adjustment="",
            survivorship="",
        ),
        config,
    )
    zeros = named(report, "non_positive_price")
    assert len(zeros) == 911  # to 2003-08-22
    assert {symbol for symbol, _ in zeros} == {"NIFTY IT"}
    assert max(day for _, day in zeros) == "2003-08-22"
    # open 60.65 on a day whose low is above 3,000
    assert ("NIFTY IT", "2005-07-01") in named(report, "ohlc_inconsistent")
    missing = named(report, "missing_value")
    # its opens begin on 2005-06-09; the closes before are read without them
    assert ("NIFTY BANK", "2005-06-08") not in missing
    assert ("NIFTY BANK", "2017-10-17") in missing
    assert ("NIFTY FMCG", "2011-01-28") in missing
    assert ("NIFTY PHARMA", "2011-01-28") in missing
    excluded = report.table.filter(pl.col("is_excluded"))["rule"].unique()
    assert {"non_positive_price", "ohlc_inconsistent", "missing_value"} <= set(excluded)


def test_wrong_levels_and_gaps_of_a_sector_index_are_named(folder: Path, config: RunConfig) -> None:
    technology = index_findings(index_of(folder, "sector_index_close", "NIFTY IT"), config)
    assert technology["index_wrong_level"] == ["2016-03-04", "2016-05-16", "2016-05-18"]
    assert technology["index_jump"] == ["2016-03-04", "2016-12-12"]
    banks = index_findings(index_of(folder, "sector_index_close", "NIFTY BANK"), config)
    assert "2016-02-26" in banks["index_gap"]  # to 2016-04-04, +19.4 %
    assert "index_jump" not in banks


def test_real_jump_of_a_sector_index_stays(folder: Path, config: RunConfig) -> None:
    state_banks = index_findings(index_of(folder, "sector_index_close", "NIFTY PSU BANK"), config)
    assert "index_jump" not in state_banks  # +29.6 % on 2017-10-25


def test_exchanged_days_and_months_are_named_where_not_declared(
    naive_report: ValidationReport,
) -> None:
    weekends = naive_report.table.filter(pl.col("rule") == "macro_weekend")
    assert weekends["symbol"].to_list() == FLOWS
    assert weekends["count"].to_list() == [321, 321]


def test_declared_exchange_of_day_and_month_is_undone_and_counted(
    folder: Path, raw: RawData, report: ValidationReport
) -> None:
    assert not named(report, "macro_weekend")
    exchanged = report.table.filter(pl.col("rule") == "day_month_exchanged")
    assert exchanged.select("symbol", "count").rows() == [(series, 1112) for series in FLOWS]
    assert any("exchanged back in 1112 of 3108 dates" in note for note in raw.notes)
    flows = raw.macro.filter(pl.col("series") == "FOREIGN_FLOW")
    sessions = set(raw.bars["date"])
    assert flows.height == 3108
    assert set(flows["date"]) <= sessions
    # "06-01-2007" is the first of June
    june = flows.filter(pl.col("date") == datetime.date(2007, 6, 1))
    assert june["value"].to_list() == [373.38]
    found = pl.read_parquet(folder / "fii_dii_flows.parquet")
    assert found["date_text"][0] == "06-01-2007"
    assert float(np.sort(flows["value"])[0]) == found["fii_net"].min()  # no value is touched


def test_short_volatility_series_is_named_and_not_used(
    report: ValidationReport, config: RunConfig
) -> None:
    spans = report.table.filter(pl.col("rule") == "macro_span")
    days = {symbol: str(day) for symbol, day in spans.select("symbol", "date").iter_rows()}
    assert days["INDIAVIX"] == "2019-01-01"
    assert "implied_volatility" not in config.market_profile.macro_features


def test_tables_and_rows_that_are_left_out_are_noted(raw: RawData) -> None:
    assert "indices_ohlc.parquet: 19648 rows left out, not NIFTY 50" in raw.notes
    assert "india_vix_nifty.parquet: 241 rows left out, not INDIAVIX" in raw.notes
