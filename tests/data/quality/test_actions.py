"""Stated splits and dividends count only if prices show them, on their day, once, in their unit."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.store import BARS_SCHEMA, RawData
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
@pytest.mark.parametrize(
    "lacking", [(), ("adj_close",), ("open", "adj_close"), ("open", "high", "low", "volume")]
)
def test_split_of_prices_that_are_adjusted_already_is_not_applied(
    ratio: float, lacking: tuple[str, ...]
) -> None:
    raw = without(noisy_raw(), *lacking)
    report, panel = checked(stated(raw, ROW, ratio))
    assert rules_on(report, ROW) == {"split_unseen"}
    np.testing.assert_allclose(returns_of(panel), returns_of(checked(raw)[1]), atol=1e-9)


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
@pytest.mark.parametrize("lacking", [(), ("open", "high", "low", "volume")])
def test_inverse_ratio_and_a_split_counted_twice_earn_nothing(
    ratio: float, power: float, lacking: tuple[str, ...]
) -> None:
    # the price fell by ratio ** power: 1 / ratio is stated upside down, its square is counted twice
    report, panel = checked(stated(without(happened(ratio**power), *lacking), ROW, ratio))
    assert "split_contradicted" in rules_on(report, ROW)
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize("added", [2.0, 3.0, 6.0, 0.5, 0.25, 9.0])
@pytest.mark.parametrize("night", [-0.015, 0.0, 0.015])
def test_shares_that_are_added_in_place_of_the_ratio_earn_nothing(
    added: float, night: float
) -> None:
    # a bonus of 2:1 makes three shares of one: prices fall to a third, and 2 is stated
    cells = dict.fromkeys(PRICES, np.exp(night) / (1 + added))
    raw = scaled(noisy_raw(), slice(ROW, None), **cells, volume=1 + added)
    report, panel = checked(stated(without(raw, "adj_close"), ROW, added))
    assert "split_as_bonus" in rules_on(report, ROW)
    assert np.abs(returns_of(panel)).max() < LARGEST
    right, _ = checked(stated(without(raw, "adj_close"), ROW, 1 + added))
    assert "split_as_bonus" not in rules_on(right, ROW)


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


@pytest.mark.parametrize("later", [1, 2, 3])
@pytest.mark.parametrize("form", ["no adj_close", "adj_close that counts it", "adj_close without"])
def test_dividend_that_stands_again_is_counted_once(later: int, form: str) -> None:
    raw = without(noisy_raw(), "adj_close")
    again = ROW + later

    def pays(*rows: int) -> RawData:
        days = [SESSIONS[row].item() for row in rows]
        here = (pl.col("symbol") == "AAA") & pl.col("date").is_in(days)
        dividend = pl.when(here).then(0.6).otherwise(0.0)
        return replace(raw, bars=raw.bars.with_columns(dividend=dividend))

    truth = returns_of(checked(pays(ROW))[1])
    given = pays(ROW, again)
    if form != "no adj_close":
        counted = given if form == "adj_close that counts it" else pays(ROW)
        close, dividend = (pl.col(name) for name in ("close", "dividend"))
        gross = ((close + dividend) / close.shift(1)).fill_null(1.0).over("symbol")
        adjusted = counted.bars.select((80 * gross.cum_prod()).over("symbol")).to_series()
        given = replace(given, bars=given.bars.with_columns(adj_close=adjusted))
    report, panel = checked(given)
    assert rules_on(report, again) == {"dividend_again"}
    assert report.table.height == 1
    np.testing.assert_allclose(returns_of(panel), truth, atol=1e-12)


N_YEARS, QUARTER = 3, 63


def many(seed: int = 0, own: float = 0.01) -> RawData:
    """Stocks that share a market and pay 1 % each quarter, by which their prices fall."""
    rng = np.random.default_rng(seed)
    days = first_sessions("XNYS", date(2011, 1, 3), 252 * N_YEARS)
    market = rng.normal(0, 0.008, len(days))
    frames = []
    for stock in range(8):
        row = np.arange(len(days))
        is_paid = (row % QUARTER == 7 * stock) & (row > 0)
        move = np.exp(market + rng.normal(0, own, len(days)))
        close = 50 * np.cumprod(move * np.where(is_paid, 0.99, 1.0))
        past = np.concatenate([[50.0], close[:-1]])
        frames.append(
            pl.DataFrame({"date": days, "close": close, "dividend": np.where(is_paid, past, 0.0)})
            .with_columns(symbol=pl.lit(f"S{stock}"), dividend=pl.col("dividend") / 100, split=1.0)
            .with_columns(
                pl.lit(None, pl.Float64).alias(name)
                for name in BARS_SCHEMA
                if name in {"open", "high", "low", "volume", "adj_close"}
            )
            .select(pl.col(name).cast(kind) for name, kind in BARS_SCHEMA.items())
        )
    bars = pl.concat(frames)
    sectors = bars.select("symbol", sector=pl.lit("Energy")).unique().sort("symbol")
    return replace(noisy_raw(), bars=bars, sectors=sectors)


def adjusted_for_dividends() -> pl.Expr:
    left = 1 - pl.col("dividend") / pl.col("close").shift(1)
    later = left.shift(-1).fill_null(1.0).reverse().cum_prod().reverse()
    return (pl.col("close") * later.over("symbol")).round(2)


SPOILT: dict[str, tuple[dict[str, pl.Expr], str]] = {
    "adjusted and rounded": ({"close": adjusted_for_dividends()}, "adjusted for them already"),
    "a day early": (
        {"dividend": pl.col("dividend").shift(-1).fill_null(0.0).over("symbol")},
        "a session later",
    ),
    "a day late": (
        {"dividend": pl.col("dividend").shift(1).fill_null(0.0).over("symbol")},
        "a session earlier",
    ),
    "three weeks late": (
        {"dividend": pl.col("dividend").shift(15).fill_null(0.0).over("symbol")},
        "other days",
    ),
    "in pounds beside pence": ({"dividend": pl.col("dividend") / 100}, "another unit"),
    "in pence beside pounds": ({"dividend": pl.col("dividend") * 100}, "another unit"),
    "a yearly rate each quarter": ({"dividend": pl.col("dividend") * 4}, "another unit"),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("seed", range(2))
def test_dividends_that_prices_do_not_show_as_a_whole_fail(kind: str, seed: int) -> None:
    cells, words = SPOILT[kind]
    raw = many(seed=seed)
    table = checked(replace(raw, bars=raw.bars.with_columns(**cells)))[0].table
    (finding,) = table.filter(rule="dividend_not_shown").iter_rows(named=True)
    assert finding["severity"] == "fail"
    assert words in finding["detail"]


@pytest.mark.parametrize("seed", range(3))
def test_dividends_that_prices_show_pass(seed: int) -> None:
    table = checked(many(seed=seed))[0].table
    assert table.filter(pl.col("rule").str.starts_with("dividend")).is_empty()


def with_opens(raw: RawData, seed: int, *, repeats: bool = False) -> RawData:
    """Prices fall by dividends at the open, and move in a larger part during the session."""
    past = pl.col("close").shift(1).over("symbol").fill_null(50.0)
    drawn = np.random.default_rng(seed).normal(0, 0.002, raw.bars.height)
    opening = past if repeats else (past - pl.col("dividend")) * pl.Series(drawn).exp()
    return replace(raw, bars=raw.bars.with_columns(open=opening))


@pytest.mark.parametrize("days", [20, -10, 30])
@pytest.mark.parametrize("seed", range(2))
def test_nights_show_that_few_dividends_have_other_days(days: int, seed: int) -> None:
    # the sessions are so wild that closes alone decide nothing
    raw = with_opens(many(seed=seed, own=0.05), seed)
    moved = pl.col("dividend").shift(days).fill_null(0.0).over("symbol")
    table = checked(replace(raw, bars=raw.bars.with_columns(dividend=moved)))[0].table
    assert table.filter(rule="dividend_not_shown").height == 1
    for sound in (raw, with_opens(many(seed=seed, own=0.05), seed, repeats=True)):
        assert checked(sound)[0].table.filter(rule="dividend_not_shown").is_empty()


@pytest.mark.parametrize("ratio", [2.0, 7.0, 1 / 3])
@pytest.mark.parametrize("prices_show", [True, False])
@pytest.mark.parametrize("n_splits", [2, 5])
def test_dividends_that_are_adjusted_unlike_prices_are_named(
    ratio: float, *, prices_show: bool, n_splits: int
) -> None:
    raw = many(own=0.004)
    day = raw.bars["date"].unique().sort()[400]
    symbols = [f"S{i}" for i in range(n_splits)]
    splits = pl.col("symbol").is_in(symbols)
    is_late = splits & (pl.col("date") >= day)
    levels = pl.when(is_late & prices_show).then(pl.col("close") / ratio).otherwise("close")
    split = pl.when(splits & (pl.col("date") == day)).then(ratio).otherwise(1.0)
    for dividends_show, is_named in ((prices_show, False), (not prices_show, True)):
        paid = pl.col("dividend")
        dividend = pl.when(is_late & dividends_show).then(paid / ratio).otherwise(paid)
        bars = raw.bars.with_columns(close=levels, split=split, dividend=dividend)
        table = checked(replace(raw, bars=bars))[0].table.filter(rule="dividend_unlike_split")
        assert table["count"].to_list() == ([n_splits] if is_named else [])


def test_one_symbol_whose_prices_are_adjusted_already_is_named() -> None:
    raw = many(own=0.004)
    own = pl.when(pl.col("symbol") == "S3").then(adjusted_for_dividends()).otherwise("close")
    table = checked(replace(raw, bars=raw.bars.with_columns(close=own)))[0].table
    found = table.filter(pl.col("rule").str.starts_with("dividend"))
    assert found.select("rule", "symbol", "severity").rows() == [
        ("dividend_doubtful", "S3", "warn")
    ]


def test_dividends_beside_adjusted_closes_are_not_held_against_prices() -> None:
    raw = many()
    bars = raw.bars.with_columns(adj_close=adjusted_for_dividends(), close=adjusted_for_dividends())
    table = checked(replace(raw, bars=bars))[0].table
    assert table.filter(rule="dividend_not_shown").is_empty()
