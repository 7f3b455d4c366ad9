"""Levels that nobody traded at earn nothing and are named; crashes of the same size stay."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.quality import levels, rules
from hrl_sarp.data.store import RawData
from tests.data.quality.noisy_raw import (
    CONFIG,
    LEVELS,
    SESSIONS,
    checked,
    noisy_raw,
    returns_of,
    rules_on,
    scaled,
    without,
)
from tests.data.quality.test_actions import many

ROW = 40
LARGEST = 0.08
"""No return of the clean data is larger, nor two of them in a row."""
END = len(SESSIONS)
FORMS: tuple[tuple[str, ...], ...] = (
    (),
    ("adj_close",),
    ("volume",),
    ("open", "high", "low", "volume", "adj_close"),
)
"""Columns that a file may lack."""


def spoilt(
    rows: slice, factor: float, columns: tuple[str, ...], lacking: tuple[str, ...]
) -> RawData:
    raw = scaled(noisy_raw(), rows, **dict.fromkeys(columns, factor))
    return without(raw, *lacking)


def test_clean_data_have_no_finding() -> None:
    for lacking in FORMS:
        report, panel = checked(without(noisy_raw(), *lacking))
        assert report.table.is_empty()
        assert np.abs(returns_of(panel)).max() < LARGEST / 2


@pytest.mark.parametrize("factor", [10.0, 50.0, 100.0, 1000.0, 0.1, 0.02, 0.01, 0.001])
@pytest.mark.parametrize(
    ("lacking", "row"), [(FORMS[0], ROW), (FORMS[1], 1), (FORMS[2], END - 3), (FORMS[3], ROW)]
)
def test_change_of_unit_for_good_earns_nothing(
    factor: float, lacking: tuple[str, ...], row: int
) -> None:
    report, panel = checked(spoilt(slice(row, None), factor, LEVELS, lacking))
    assert rules_on(report, row) & {"unit_change", "undeclared_split"}
    assert returns_of(panel)[row] == pytest.approx(panel.intraday_return[row, 0])
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize("old_shares", [8, 9, 12, 18, 25, 33, 60, 120, 250])
def test_merging_shares_in_any_ratio_earns_nothing(old_shares: int) -> None:
    raw = scaled(noisy_raw(), slice(ROW, None), **dict.fromkeys(LEVELS, float(old_shares)))
    report, panel = checked(scaled(raw, slice(ROW, None), volume=1 / old_shares))
    assert rules_on(report, ROW) & {"unit_change", "undeclared_split"}
    assert np.abs(returns_of(panel)).max() < LARGEST


def test_rise_with_trading_is_earned() -> None:
    raw = scaled(noisy_raw(), slice(ROW, None), **dict.fromkeys(LEVELS, 9.0))
    report, panel = checked(scaled(raw, slice(ROW, ROW + 1), volume=5.0))  # 45 times the money
    assert "unit_change" not in rules_on(report, ROW)
    assert returns_of(panel)[ROW] == pytest.approx(8.0, rel=0.1)


@pytest.mark.parametrize("money", [1.0, 1.3])
def test_change_of_unit_whose_source_rescales_the_volume_earns_nothing(money: float) -> None:
    every = dict.fromkeys(LEVELS, 0.01)
    report, panel = checked(scaled(noisy_raw(), slice(ROW, None), **every, volume=100.0 * money))
    assert rules_on(report, ROW) == {"unit_change", "large_return"}
    assert np.abs(returns_of(panel)).max() < LARGEST


WRONG = [
    LEVELS,
    ("high", "close", "adj_close"),
    ("low", "close", "adj_close"),
    ("open", "high"),
    ("open", "low"),
    ("high",),
    ("low",),
    ("close", "adj_close"),
    ("open",),
]


@pytest.mark.parametrize(
    ("columns", "factor"), list(itertools.product(WRONG, [100.0, 0.01, 2.6, 0.4, 3.0]))
)
def test_level_that_is_taken_back_earns_nothing_and_no_range_sees_it(
    columns: tuple[str, ...], factor: float
) -> None:
    one_day = ((1, ()), (1, ("volume", "adj_close")))
    for n_days, lacking in (*one_day, (2, ()), (4, ())) if columns == LEVELS else one_day:
        report, panel = checked(spoilt(slice(ROW, ROW + n_days), factor, columns, lacking))
        assert rules_on(report, ROW), (columns, factor, lacking)
        assert np.abs(returns_of(panel)).max() < LARGEST, (columns, factor, n_days, lacking)
        assert np.abs(panel.intraday_return[:, 0]).max() < LARGEST
        assert np.nanmax(panel.high_to_close[:, 0]) < LARGEST
        assert np.nanmin(panel.low_to_close[:, 0]) > -LARGEST


@pytest.mark.parametrize("n_days", [1, 2, 5])
@pytest.mark.parametrize("factor", [100.0, 2.6, 0.5])
def test_closes_alone_that_are_taken_back_earn_nothing(factor: float, n_days: int) -> None:
    lacking = ("open", "high", "low", "volume", "adj_close")
    report, panel = checked(spoilt(slice(ROW, ROW + n_days), factor, LEVELS, lacking))
    assert "taken_back" in rules_on(report, ROW)
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize("fall", [0.45, 0.3, 0.05, 0.005])
@pytest.mark.parametrize("is_back", [False, True])
def test_crash_with_heavy_trading_stays(fall: float, is_back: bool) -> None:  # noqa: FBT001 -- a case
    # 25 times the shares change hands for a fall by 55 %, more for deeper ones
    rows = slice(ROW, ROW + 1 if is_back else None)
    raw = scaled(noisy_raw(), rows, **dict.fromkeys(LEVELS, fall))
    raw = scaled(raw, slice(ROW, ROW + 2), volume=25.0 * 0.45 / fall)
    report, panel = checked(raw)
    if is_back and fall < 1 / 8:
        return  # nothing that is traded comes back from there
    clean = returns_of(checked(noisy_raw())[1])[ROW]
    assert returns_of(panel)[ROW] == pytest.approx((1 + clean) * fall - 1)
    assert "taken_back" not in rules_on(report, ROW)


def test_fall_over_several_sessions_and_back_stays() -> None:
    raw = noisy_raw()
    for row, factor in (
        (ROW, 0.75),
        (ROW + 1, 0.6),
        (ROW + 2, 0.5),
        (ROW + 3, 0.65),
        (ROW + 4, 0.8),
    ):
        raw = scaled(raw, slice(row, row + 1), **dict.fromkeys(LEVELS, factor))
    report, panel = checked(raw)
    assert np.abs(returns_of(panel))[ROW : ROW + 6].min() > 0.1
    assert not any("taken_back" in rules_on(report, ROW + k) for k in range(6))


@pytest.mark.parametrize("seed", range(3))
def test_prices_around_zero_earn_nothing(seed: int) -> None:
    """A month of prices below and above zero: no return of it means anything."""
    rng = np.random.default_rng(seed)
    raw, first = noisy_raw(), 15
    around = rng.normal(0, 1, 20)
    around[0] = 3.0  # it comes down by more than nine tenths in a night
    around[1] = -0.5
    for k, level in enumerate(around):
        row = slice(first + k, first + k + 1)
        # the close before is about 40, so a factor makes the level
        raw = scaled(raw, row, **dict.fromkeys(LEVELS, level / 40))
    report, panel = checked(raw)
    assert np.abs(returns_of(panel)).max() < LARGEST
    named = set().union(*(rules_on(report, first + k) for k in range(1, 20)))
    assert {"non_positive_price", "around_zero"} <= named
    assert "leaves_zero" in set(report.table["rule"])
    assert "dividend_over_price" not in named


def test_single_day_below_zero_is_out_under_its_own_name() -> None:
    raw = scaled(noisy_raw(), slice(ROW, ROW + 1), **dict.fromkeys(LEVELS, -0.9))
    report, panel = checked(raw)
    assert rules_on(report, ROW) >= {"non_positive_price"}
    assert "around_zero" in rules_on(report, ROW + 1)
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize(("jump", "left"), [(1.5, 1.12), (1.65, 1.14), (0.6, 0.88)])
def test_jump_of_which_a_part_stays_was_paid(jump: float, left: float) -> None:
    raw = scaled(noisy_raw(), slice(ROW, ROW + 1), **dict.fromkeys(LEVELS, jump))
    report, panel = checked(scaled(raw, slice(ROW + 1, None), **dict.fromkeys(LEVELS, left)))
    assert "taken_back" not in rules_on(report, ROW)
    assert returns_of(panel)[ROW] == pytest.approx(jump - 1, abs=0.1)


def with_dividend(share: float, falls: float) -> RawData:
    """Pay a share of the price on one day, on which the price falls by a part of it."""
    raw = without(noisy_raw(), "adj_close")
    raw = scaled(raw, slice(ROW, None), **dict.fromkeys(LEVELS[:4], 1 - share * falls))
    paid = pl.when((pl.col("symbol") == "AAA") & (pl.col("date") == pl.lit(SESSIONS[ROW].item())))
    cash = pl.col("close") / (1 - share * falls) * share
    bars = raw.bars.with_columns(dividend=paid.then(cash).otherwise(0.0))
    return replace(raw, bars=bars)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.6, -0.01, -0.3])
def test_dividend_that_the_price_does_not_show_is_not_earned(share: float) -> None:
    report, panel = checked(with_dividend(share, 0.0))
    assert "dividend_unseen" in rules_on(report, ROW)
    assert returns_of(panel)[ROW] == pytest.approx(panel.intraday_return[ROW, 0])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3, 0.6])
def test_dividend_by_which_the_price_falls_is_earned(share: float) -> None:
    plain = returns_of(checked(noisy_raw())[1])[ROW]
    report, panel = checked(with_dividend(share, 1.0))
    assert "dividend_unseen" not in rules_on(report, ROW)
    assert returns_of(panel)[ROW] == pytest.approx(plain, abs=0.05)


@pytest.mark.parametrize("every", [1, 2, 4, 5, 21])
def test_rate_of_dividends_on_many_rows_is_refused(every: int) -> None:
    row = pl.int_range(pl.len()).over("symbol")
    raw = without(noisy_raw(), "adj_close")
    bars = raw.bars.with_columns(dividend=pl.when(row % every == 0).then(0.1).otherwise(0.0))
    report, _ = checked(replace(raw, bars=bars))
    found = report.table.filter(rule="dividend_repeated")["symbol"].to_list()
    assert found == (["AAA", "BBB"] if every <= 4 else [])
    assert report.has_failed == (every <= 4)


CLOSE = pl.col("close")
OF_ANOTHER = {
    "one number": pl.lit(1.0),
    "a factor": (CLOSE.median() < CLOSE).cast(pl.Float64) / 2 + 0.5,
    "the day before's": CLOSE.shift(1).over("symbol").fill_null(40.0),
    "the other stock's": CLOSE.reverse(),
    "newest first": CLOSE.reverse().over("symbol"),
    "the volume": pl.col("volume"),
}
ADJUSTED = {
    "in another unit": CLOSE * 0.01,
    "of dividends": CLOSE * (1.01 ** (pl.int_range(pl.len()).over("symbol") // 20)),
    "rounded": (CLOSE / 8).round(2),
}


@pytest.mark.parametrize("name", [*OF_ANOTHER, *ADJUSTED])
def test_adjusted_closes_that_follow_other_prices_are_refused(name: str) -> None:
    raw = noisy_raw()
    bars = raw.bars.with_columns(adj_close=(OF_ANOTHER | ADJUSTED)[name])
    report, _ = checked(replace(raw, bars=bars))
    found = report.table.filter(rule="adjusted_unlike")["symbol"].to_list()
    assert found == (["AAA", "BBB"] if name in OF_ANOTHER else [])
    assert report.has_failed == (name in OF_ANOTHER)


@pytest.mark.parametrize("n_days", [1, 2, 5])
@pytest.mark.parametrize("ratio", [0.02, 0.5, 0.8, 1.3, 4.0, 90.0])
@pytest.mark.parametrize("lacking", FORMS)
def test_rows_that_two_symbols_have_exchanged_earn_nothing(
    n_days: int, ratio: float, lacking: tuple[str, ...]
) -> None:
    raw = noisy_raw()
    own = scaled(raw, slice(0, END), **dict.fromkeys(LEVELS, ratio))
    lasting = pl.col("date").is_between(SESSIONS[ROW], SESSIONS[ROW + n_days - 1])
    other = pl.when(lasting).then(pl.col("symbol").replace({"AAA": "BBB", "BBB": "AAA"}))
    swapped = own.bars.with_columns(symbol=other.otherwise("symbol")).sort("symbol", "date")
    report, panel = checked(without(replace(own, bars=swapped), *lacking))
    found = report.table.filter(pl.col("rule") == "rows_exchanged")
    if found.is_empty():  # the prices of both happen to be near each other, or a rule was first
        assert {"taken_back", "unit_change", "undeclared_split"} & rules_on(report, ROW)
    else:
        assert found.height == 2 * n_days
        assert found["detail"][0] == "AAA and BBB have each other's prices"
    assert np.abs(returns_of(panel)).max() < LARGEST


def test_moves_of_the_same_days_are_no_exchange() -> None:
    raw = noisy_raw()
    for row, factor in ((ROW, 1.3), (ROW + 1, 1 / 1.3)):
        raw = scaled(raw, slice(row, None), **dict.fromkeys(LEVELS, factor))
    report, _ = checked(scaled(raw, slice(ROW, ROW + 1), volume=6.0))
    assert "rows_exchanged" not in set(report.table["rule"])


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3, 0.7, 1.6, 4.4])
@pytest.mark.parametrize("days_before", [0, 2])
def test_lasting_jump_without_trading_is_named(factor: float, days_before: int) -> None:
    row = ROW + days_before
    report, panel = checked(spoilt(slice(row, None), factor, LEVELS, ()))
    named = rules_on(report, row)
    assert named & {"quiet_jump", "unit_change", "undeclared_split"}
    if "quiet_jump" in named:  # it may be true, so it is earned
        assert returns_of(panel)[row] == pytest.approx(factor - 1, abs=LARGEST)


@pytest.mark.parametrize("shares", [3.0, 8.0, 0.1])
def test_jump_with_trading_and_one_that_hardly_anybody_could_trade_on_have_no_name(
    shares: float,
) -> None:
    raw = scaled(spoilt(slice(ROW, None), 1.3, LEVELS, ()), slice(ROW, ROW + 1), volume=shares)
    assert not rules_on(checked(raw)[0], ROW)


@pytest.mark.parametrize("factor", [2.3, 3.0, 5.5, 7.0, 7.9])
def test_rise_on_the_usual_number_of_shares_is_a_change_of_unit(factor: float) -> None:
    report, panel = checked(spoilt(slice(ROW, None), factor, LEVELS, ("adj_close",)))
    assert rules_on(report, ROW) & {"unit_change", "undeclared_split"}
    assert np.abs(returns_of(panel)).max() < LARGEST


@pytest.mark.parametrize("factor", [0.01, 100.0, 1000.0, 0.001, 50.0])
@pytest.mark.parametrize("row", [20, 33, 50])
def test_volumes_of_another_unit_from_a_day_on_are_named(factor: float, row: int) -> None:
    report, panel = checked(scaled(noisy_raw(), slice(row, None), volume=factor))
    found = report.table.filter(rule="volume_step")
    assert found.select("symbol", "date").rows() == [("AAA", SESSIONS[row].item())]
    assert found["value"][0] == pytest.approx(factor, rel=0.5)
    np.testing.assert_array_equal(returns_of(panel), returns_of(checked(noisy_raw())[1]))


@pytest.mark.parametrize("factor", [100.0, 0.01])
@pytest.mark.parametrize("row", [20, 33, 50])
def test_volumes_that_return_to_what_they_were_have_no_other_unit(factor: float, row: int) -> None:
    busy = scaled(noisy_raw(), slice(row, None), volume=factor)
    returned = scaled(busy, slice(row + 6, row + 7), volume=1 / factor)
    assert checked(returned)[0].table.filter(rule="volume_step").is_empty()


def test_split_changes_no_unit_of_volumes() -> None:
    raw = scaled(noisy_raw(), slice(ROW, None), **dict.fromkeys(LEVELS, 0.02), volume=50.0)
    assert checked(raw)[0].table.filter(rule="volume_step").is_empty()


@pytest.mark.parametrize(("pause", "factor", "is_named"), [(18, 6, True), (5, 6, False)])
def test_symbol_whose_trading_is_another_after_a_pause_is_named(
    pause: int,
    factor: float,
    is_named: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    raw = scaled(noisy_raw(), slice(ROW, None), volume=factor)
    days = [day.item() for day in SESSIONS[ROW - pause : ROW]]
    here = (pl.col("symbol") == "AAA") & pl.col("date").is_in(days)
    table = checked(replace(raw, bars=raw.bars.filter(~here)))[0].table
    found = table.filter(rule="another_company")
    assert found["date"].to_list() == ([SESSIONS[ROW].item()] if is_named else [])


@pytest.mark.parametrize("digits", [2, 4, 12])
@pytest.mark.parametrize("end", [44.0, 30.0])
def test_closes_on_a_straight_line_are_named(digits: int, end: float) -> None:
    raw = noisy_raw()
    first, last = 20, 46
    line = np.linspace(37.0, end, last - first).round(digits)
    close = raw.bars["close"].to_numpy().copy()
    close[first:last] = line
    table = checked(replace(raw, bars=raw.bars.with_columns(close=close)))[0].table
    (finding,) = table.filter(rule="straight_line").iter_rows(named=True)
    assert finding["symbol"] == "AAA"
    assert finding["count"] >= last - first - 4


@pytest.mark.parametrize("symbols", [["AAA"], ["AAA", "BBB"]])
@pytest.mark.parametrize("first", [0, 3])
def test_opens_under_the_heading_of_closes_fail(symbols: list[str], first: int) -> None:
    raw = noisy_raw()
    here = pl.col("symbol").is_in(symbols) & (pl.col("date") >= pl.lit(SESSIONS[first].item()))
    exchanged = [
        pl.when(here).then(other).otherwise(name).alias(name)
        for name, other in (("open", "close"), ("close", "open"))
    ]
    bars = without(raw, "adj_close").bars.with_columns(exchanged)
    found = checked(replace(raw, bars=bars))[0].table.filter(rule="open_exchanged")
    assert found.select("symbol", "severity").rows() == [(name, "fail") for name in symbols]


UNLIKE: dict[str, tuple[pl.Expr, str]] = {
    "gross returns": (pl.col("close") / pl.col("close").shift(1), "not_prices"),
    "averages of five days": (pl.col("close").rolling_mean(5), "not_prices"),
    "weekly closes carried on": (
        pl.when(pl.int_range(pl.len()) % 5 == 0).then("close").forward_fill(),
        "closes_stand",
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
@pytest.mark.parametrize("seed", range(2))
def test_closes_that_are_no_daily_prices_fail(kind: str, seed: int) -> None:
    own, rule = UNLIKE[kind]
    bars = many(seed).bars.with_columns(dividend=0.0)
    raw = replace(many(seed), bars=bars.with_columns(close=own.over("symbol")).drop_nulls("close"))
    table = checked(raw)[0].table
    assert table.filter(severity="fail")["rule"].to_list() == [rule]
    one = pl.when(pl.col("symbol") == "S3").then(own.over("symbol")).otherwise("close")
    single = checked(replace(raw, bars=bars.with_columns(close=one).drop_nulls("close")))[0]
    assert not single.has_failed
    named = single.table.filter(rule="moves_linked")["symbol"].to_list()
    assert named == (["S3"] if rule == "not_prices" else [])


@pytest.mark.parametrize("factor", [200.0, 2.0, 0.005])
def test_single_wrong_levels_do_not_make_prices_into_something_else(factor: float) -> None:
    bars = many().bars.with_columns(dividend=0.0)
    is_wrong = pl.int_range(pl.len()) % 61 == 30
    close = pl.when(is_wrong).then(pl.col("close") * factor).otherwise("close")
    assert not checked(replace(many(), bars=bars.with_columns(close=close)))[0].has_failed


def filled(raw: RawData, row: int) -> RawData:
    """AAA ceases on a row, and its last close is carried on."""
    last = raw.bars.filter(symbol="AAA").row(row, named=True)
    is_later = (pl.col("symbol") == "AAA") & (pl.col("date") > last["date"])
    cells = [
        pl.when(is_later & pl.col(name).is_not_null()).then(last["close"]).otherwise(name)
        for name in ("open", "high", "low", "close")
    ]
    named = [cell.alias(name) for cell, name in zip(cells, LEVELS[:4], strict=True)]
    return replace(raw, bars=raw.bars.with_columns(named))


@pytest.mark.parametrize("row", [10, 25, 40])
@pytest.mark.parametrize("lacking", [("volume",), ("open", "high", "low", "volume")])
def test_closes_that_are_carried_on_after_the_end_are_no_trading(
    row: int, lacking: tuple[str, ...]
) -> None:
    raw = without(noisy_raw(), "adj_close", *lacking)
    report, panel = checked(filled(raw, row))
    assert panel.tradable[:, 0].sum() == row + 1 + 19
    end = report.table.filter(rule="ends_early")
    assert end["date"].to_list() == [SESSIONS[row + 19].item()]
    assert panel.tradable[:, 1].all()


def test_closes_that_stand_for_less_than_a_month_stay_and_so_do_those_with_volumes() -> None:
    short = filled(without(noisy_raw(), "adj_close", "volume"), END - 20)
    assert checked(short)[0].table.filter(rule="stale_close").is_empty()
    traded = filled(without(noisy_raw(), "adj_close"), 20)
    assert checked(traded)[0].table.filter(rule="stale_close").is_empty()


@pytest.mark.parametrize("n_bars", [1, 3, 12])
def test_a_share_that_stands_for_weeks_again_and_again_is_traded(n_bars: int) -> None:
    """Nobody may trade a small share for a month, so its price is that of the last trade."""
    raw = without(noisy_raw(), "adj_close", "open", "high", "low", "volume")
    own = raw.bars.filter(symbol="AAA").sort("date")["close"].to_numpy()
    moves = np.arange(len(own)) % (21 + n_bars) < n_bars  # a few trades after each month without
    last_trade = np.maximum.accumulate(np.where(moves, np.arange(len(own)), 0))
    quiet = raw.bars.filter(pl.col("symbol") != "AAA")
    bars = raw.bars.filter(symbol="AAA").sort("date").with_columns(close=pl.lit(own[last_trade]))
    report, _ = checked(replace(raw, bars=pl.concat([bars, quiet]).sort("symbol", "date")))
    found = report.table.filter(rule="stale_close")
    assert found.filter(pl.col("date") > SESSIONS[21 + n_bars].item()).is_empty()


def seam(raw: RawData, factor: float, row: int, *, shares: float = 1.0) -> RawData:
    """All symbols go on at another level from a row on."""
    days = raw.bars["date"].unique().sort()
    is_later, is_day = pl.col("date") >= days[row], pl.col("date") == days[row]
    cells = [
        pl.when(is_later).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    ]
    volume = pl.when(is_day).then(pl.col("volume") * shares).otherwise("volume")
    return replace(raw, bars=raw.bars.with_columns(*cells, volume=volume))


@pytest.mark.parametrize("factor", [1.08, 1.15, 0.9, 1.6])
@pytest.mark.parametrize("n_symbols", [3, 6])
def test_night_over_which_most_symbols_jump_on_usual_trading_is_named(
    factor: float, n_symbols: int
) -> None:
    raws = [without(noisy_raw(seed), "adj_close") for seed in range(n_symbols)]
    bars = pl.concat(
        raw.bars.filter(symbol="AAA").with_columns(symbol=pl.lit(f"S{i}"))
        for i, raw in enumerate(raws)
    )
    raw = replace(raws[0], bars=bars)
    found = levels.jumps_of_most(rules.prepare(seam(raw, factor, ROW).bars, CONFIG))
    assert found.select("date", "count").rows() == [(SESSIONS[ROW].item(), n_symbols)]
    for sound in (raw, seam(raw, factor, ROW, shares=4.0), seam(raw, 1.02, ROW)):
        assert levels.jumps_of_most(rules.prepare(sound.bars, CONFIG)).is_empty()
