"""Series that are dated before their values were known, and an index of returns, are refused."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.quality import alignment, series
from hrl_sarp.data.quality.rules import STRUCTURAL
from hrl_sarp.data.store import INDEX_SCHEMA, MACRO_SCHEMA, RawData
from hrl_sarp.market.releases import RELEASES
from tests.data.quality.noisy_raw import noisy_raw

DAYS = first_sessions("XNYS", date(2011, 1, 3), 1100)
MARKET = np.random.default_rng(4).normal(0, 0.01, len(DAYS))
LEVEL = 100 * np.exp(np.cumsum(MARKET))
VOLATILITY = 20 * np.exp(-4 * np.cumsum(MARKET - MARKET.mean()))


def raw(**tables: pl.DataFrame) -> RawData:
    """Four years of one stock that moves as the market, and a little by itself."""
    own = np.random.default_rng(5).normal(0, 0.002, len(DAYS))
    close = 50 * np.exp(np.cumsum(MARKET + own))
    cells = {"date": DAYS, "symbol": ["AAA"] * len(DAYS), "close": close}
    others = [
        pl.lit(None, kind).alias(name)
        for name, kind in noisy_raw().bars.schema.items()
        if name not in cells
    ]
    bars = pl.DataFrame(cells, schema_overrides={"date": pl.Date}).with_columns(others)
    return replace(noisy_raw(), bars=bars.select(noisy_raw().bars.columns), **tables)


def macro(name: str, days: object, values: object) -> pl.DataFrame:
    table = pl.DataFrame({"date": days, "value": values}).with_columns(series=pl.lit(name))
    return table.select(pl.col(column).cast(kind) for column, kind in MACRO_SCHEMA.items())


@pytest.mark.parametrize("sessions", [2, 5, 10, -3, -7])
@pytest.mark.parametrize("table", ["macro", "index"])
def test_series_that_is_dated_some_sessions_off_is_refused(table: str, sessions: int) -> None:
    values = VOLATILITY if table == "macro" else LEVEL
    # early: the value of a later session stands on this one
    early = values[sessions:] if sessions > 0 else values[:sessions]
    days = DAYS[:-sessions] if sessions > 0 else DAYS[-sessions:]
    if table == "macro":
        found = alignment.series_against_bars(raw(macro=macro("VIX", days, early)))
    else:
        index = pl.DataFrame({"date": days, "close": early}, INDEX_SCHEMA)
        found = alignment.index_against_bars(raw(index=index), DAYS).filter(rule="index_shifted")
    (detail,) = found["detail"].to_list()
    word = "early" if sessions > 0 else "late"
    assert f"is dated {abs(sessions)} sessions {word}" in detail
    assert set(found["rule"]) <= STRUCTURAL


@pytest.mark.parametrize("every", ["1w", "2w", "1mo"])
def test_last_value_of_a_period_on_its_first_day_is_refused(every: str) -> None:
    of_days = macro("SURVEY", DAYS, VOLATILITY)
    periods = of_days.group_by_dynamic("date", every=every).agg(pl.last("series", "value"))
    found = alignment.series_against_bars(raw(macro=periods.select(of_days.columns)))
    assert "is dated a period early" in found["detail"][0]
    known = of_days.group_by_dynamic("date", every=every).agg(
        pl.col("date").last().alias("last"), pl.last("series", "value")
    )
    sound = known.select(date="last", series="series", value="value")
    assert alignment.series_against_bars(raw(macro=sound)).is_empty()


@pytest.mark.parametrize("name", sorted(series.DAILY))
@pytest.mark.parametrize("measure", ["last", "mean"])
def test_daily_series_on_first_days_of_months_is_refused(name: str, measure: str) -> None:
    of_days = macro(name, DAYS[:300], VOLATILITY[:300])
    value = getattr(pl.col("value"), measure)()
    months = of_days.group_by_dynamic("date", every="1mo").agg(pl.last("series"), value)
    found = series.macro_defects(raw(macro=months.select(of_days.columns)), DAYS)
    (row,) = found.filter(rule="macro_period_start").iter_rows(named=True)
    assert row["symbol"] == name
    assert "had only begun" in row["detail"]
    at_end = months.select(pl.col("date").dt.month_end(), "series", "value")
    for sound in (of_days, at_end):
        found = series.macro_defects(raw(macro=sound), DAYS)
        assert found.filter(rule="macro_period_start").is_empty()
    assert "macro_period_start" in STRUCTURAL


def test_means_of_months_may_be_dated_on_first_days() -> None:
    days = pl.date_range(date(2011, 1, 1), date(2014, 12, 1), "1mo", eager=True)
    found = series.macro_defects(raw(macro=macro("FEDFUNDS", days, np.ones(len(days)))), DAYS)
    assert found.filter(rule="macro_period_start").is_empty()


def test_every_published_series_without_a_wait_of_months_is_a_daily_one() -> None:
    assert {name for name, release in RELEASES.items() if not release.days} == series.DAILY


@pytest.mark.parametrize("form", ["gross", "percent above 100"])
@pytest.mark.parametrize("n", [45, 200, 1100])
def test_returns_in_place_of_levels_are_no_index(form: str, n: int) -> None:
    values = np.exp(MARKET[:n]) if form == "gross" else 100 + 100 * MARKET[:n]
    index = pl.DataFrame({"date": DAYS[:n], "close": values}, INDEX_SCHEMA)
    found = alignment.index_against_bars(raw(index=index), DAYS).filter(rule="index_returns")
    assert "as those of returns do" in found["detail"][0]
    assert "index_returns" in STRUCTURAL
    sound = pl.DataFrame({"date": DAYS[:n], "close": LEVEL[:n]}, INDEX_SCHEMA)
    found = alignment.index_against_bars(raw(index=sound), DAYS)
    assert found.filter(pl.col("rule").is_in(["index_returns", "index_shifted"])).is_empty()


@pytest.mark.parametrize("name", ["FEDFUNDS", "IRX", "DGS2"])
@pytest.mark.parametrize("rate", [0.4, 2.0, 5.0])
def test_basis_points_of_low_rates_are_named(name: str, rate: float) -> None:
    values = np.linspace(0.05, rate, 60)
    assert series.scale_defects(macro(name, DAYS[:60], values + 0.3)).is_empty()
    found = series.scale_defects(macro(name, DAYS[:60], 100 * values))
    assert "divide it by 100" in found["detail"][0]
