"""A stated split counts only if the price shows it, on its day and in its direction."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.store import RawData
from tests.data.quality.noisy_raw import (
    LEVELS,
    SESSIONS,
    checked,
    noisy_raw,
    returns_of,
    rules_on,
    scaled,
    without,
)

ROW = 40
LARGEST = 0.08
RATIOS = [4.0, 2.0, 1.5, 1.25, 1.1, 20.0, 0.25, 0.02]
PRICES = LEVELS[:4]


def stated(raw: RawData, row: int, ratio: float) -> RawData:
    """State a split of AAA."""
    here = (pl.col("symbol") == "AAA") & (pl.col("date") == pl.lit(SESSIONS[row].item()))
    split = pl.when(here).then(ratio).otherwise(pl.col("split"))
    return replace(raw, bars=raw.bars.with_columns(split=split))


def happened(ratio: float, row: int = ROW, *, adjusted: bool = False) -> RawData:
    """AAA splits: prices fall by the ratio, volume rises by it; with or without adj_close."""
    cells = dict.fromkeys(PRICES, 1 / ratio)
    raw = scaled(noisy_raw(), slice(row, None), **cells, volume=ratio)
    return raw if adjusted else without(raw, "adj_close")


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("adjusted", [True, False])
def test_split_that_shows_is_applied_without_a_finding(ratio: float, *, adjusted: bool) -> None:
    report, panel = checked(stated(happened(ratio, adjusted=adjusted), ROW, ratio))
    assert report.table.is_empty()
    np.testing.assert_allclose(returns_of(panel), returns_of(checked(noisy_raw())[1]), atol=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("adjusted", [True, False])
def test_split_of_prices_that_are_adjusted_already_is_not_applied(
    ratio: float, *, adjusted: bool
) -> None:
    raw = noisy_raw() if adjusted else without(noisy_raw(), "adj_close")
    report, panel = checked(stated(raw, ROW, ratio))
    assert rules_on(report, ROW) == {"split_unseen"}
    np.testing.assert_allclose(returns_of(panel), returns_of(checked(noisy_raw())[1]), atol=1e-9)


@pytest.mark.parametrize("ratio", [4.0, 2.0, 1.5, 20.0, 0.25])
@pytest.mark.parametrize(("late", "heavy"), [(-3, 1.0), (-1, 5.0), (1, 1.0), (2, 5.0), (5, 5.0)])
def test_split_stated_on_another_day_is_named_and_earns_nothing(
    ratio: float, late: int, heavy: float
) -> None:
    raw = scaled(happened(ratio), slice(ROW, ROW + 1), volume=heavy)
    report, panel = checked(stated(raw, ROW + late, ratio))
    assert "split_unseen" in rules_on(report, ROW + late)
    assert "split_displaced" in rules_on(report, ROW)
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize("ratio", [4.0, 2.0, 20.0, 0.5, 0.1])
@pytest.mark.parametrize("power", [-1.0, 2.0])
def test_inverse_ratio_and_a_split_counted_twice_earn_nothing(ratio: float, power: float) -> None:
    # the price fell by ratio ** power: 1 / ratio is stated upside down, its square is counted twice
    report, panel = checked(stated(happened(ratio**power), ROW, ratio))
    assert "split_contradicted" in rules_on(report, ROW)
    assert np.abs(returns_of(panel)).max() < LARGEST


def test_every_split_of_a_history_that_is_adjusted_is_named() -> None:
    raw = without(noisy_raw(), "adj_close")
    for row, ratio in ((10, 2.0), (30, 3.0), (50, 0.2)):
        raw = stated(raw, row, ratio)
    report, panel = checked(raw)
    found = report.table.filter(pl.col("rule") == "split_unseen")
    assert found.select("value").to_series().to_list() == [2.0, 3.0, 0.2]
    assert np.abs(returns_of(panel)).max() < LARGEST


def test_crash_on_the_day_of_a_split_stays() -> None:
    raw = scaled(happened(4.0), slice(ROW, None), **dict.fromkeys(PRICES, 0.7), volume=6.0)
    report, panel = checked(stated(raw, ROW, 4.0))
    assert not rules_on(report, ROW)
    assert returns_of(panel)[ROW] < -0.25


@pytest.mark.parametrize("column", ["adj_close", "volume", "open"])
def test_symbol_without_a_column_of_the_others_stays_and_is_named(column: str) -> None:
    raw = scaled(noisy_raw(), slice(0, None), **{column: None})
    if column == "adj_close":
        raw = scaled(raw, slice(ROW, None), **dict.fromkeys(PRICES, 0.25), volume=4.0)
        raw = stated(raw, ROW, 4.0)
    report, panel = checked(raw)
    (finding,) = report.table.iter_rows(named=True)
    assert (finding["rule"], finding["symbol"]) == ("column_missing", "AAA")
    assert finding["detail"] == f"no {column}, which other symbols have"
    assert panel.tradable[:, 0].all()
    clean = returns_of(checked(noisy_raw())[1])
    np.testing.assert_allclose(returns_of(panel)[1:], clean[1:], atol=1e-9)


def paying(
    *, adjusted: bool, digits: int, n_adjusted: int = 2, stored: type = np.float64
) -> RawData:
    """AAA and BBB pay 0.5 in ROW and twice before; their prices are adjusted for it or traded."""
    raw = without(noisy_raw(), "adj_close")
    days = [SESSIONS[row].item() for row in (10, 25, ROW)]
    bars = raw.bars.with_columns(
        pl.col(PRICES).round(2),
        pl.when(pl.col("date").is_in(days)).then(0.5).otherwise(0.0).alias("dividend"),
    )
    if adjusted:
        names = ("AAA", "BBB")[:n_adjusted]
        factor = pl.lit(1.0)
        for day in days:
            factor *= pl.when(pl.col("date") < pl.lit(day)).then(1 - 0.5 / 41.37).otherwise(1.0)
        own = pl.when(pl.col("symbol").is_in(names)).then(factor).otherwise(1.0)
        bars = bars.with_columns((pl.col(name) * own).round(digits) for name in PRICES)
    held = bars["close"].to_numpy().astype(stored).astype(np.float64)
    return replace(raw, bars=bars.with_columns(close=held))


@pytest.mark.parametrize("digits", [4, 6, 12])
@pytest.mark.parametrize("stored", [np.float32, np.float64])
def test_dividends_beside_prices_that_contain_them_fail(digits: int, stored: type) -> None:
    table = checked(paying(adjusted=True, digits=digits, stored=stored))[0].table
    found = table.filter(rule="dividend_in_price")
    assert found.select("symbol", "date", "severity").rows() == [
        (symbol, SESSIONS[ROW].item(), "fail") for symbol in ("AAA", "BBB")
    ]


@pytest.mark.parametrize(
    "raw",
    [
        paying(adjusted=False, digits=12),
        paying(adjusted=False, digits=12, stored=np.float32),
        paying(adjusted=True, digits=2),
        paying(adjusted=True, digits=12, n_adjusted=1),
        without(noisy_raw(), "adj_close"),
    ],
    ids=["traded", "traded, of 32 bits", "rounded", "one of two", "of many digits, no dividend"],
)
def test_dividends_beside_traded_prices_pass(raw: RawData) -> None:
    assert checked(raw)[0].table.filter(rule="dividend_in_price").is_empty()


def test_split_before_a_dividend_does_not_hide_that_prices_are_traded_ones() -> None:
    raw = paying(adjusted=False, digits=12)
    is_early = pl.col("date") < pl.lit(SESSIONS[30].item())
    quarter = [
        pl.when(is_early).then(pl.col(name) / 4).otherwise(name).alias(name) for name in PRICES
    ]
    split = pl.when(pl.col("date") == pl.lit(SESSIONS[30].item())).then(4.0).otherwise(1.0)
    adjusted_for_it = replace(raw, bars=raw.bars.with_columns(*quarter, split=split))
    assert checked(adjusted_for_it)[0].table.filter(rule="dividend_in_price").is_empty()
