"""New data continue collected ones: nothing is lost, no seam shows, and what changed is named."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.store import FileReading, RawData, is_same
from hrl_sarp.data.update.changes import split_in_words
from hrl_sarp.data.update.merge import Update, update
from tests.data.update.growing_market import (
    N_DAYS,
    SESSIONS,
    GrowingMarket,
    day,
    drawn,
    gross_returns,
    with_bars,
)

SEEDS = range(5)


def only(raw: RawData, symbols: list[str]) -> RawData:
    """Return the bars and the rows of some symbols."""
    kept = pl.col("symbol").is_in(symbols)
    assert raw.membership is not None
    return replace(
        raw,
        bars=raw.bars.filter(kept),
        sectors=raw.sectors.filter(kept),
        membership=raw.membership.filter(kept),
    )


def must(made: Update) -> RawData:
    """Return the merged data of an update that needs nobody's consent."""
    assert made.refusals == ()
    assert made.changes == ()
    return made.raw


def cuts(rng: np.random.Generator) -> list[int]:
    """Return the last rows of increments, the first of them long enough for every listing."""
    inner = sorted(set(rng.integers(13, N_DAYS - 1, 5).tolist()))
    return [*inner, N_DAYS - 1]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("overlap", [0, 1, 4, 100])
def test_increments_of_one_download_give_the_data_of_one_collection(
    seed: int, overlap: int
) -> None:
    market, rng = drawn(seed), np.random.default_rng(seed)
    whole = market.seen(N_DAYS - 1)
    first, *rest = cuts(rng)
    there = market.seen(first, vintage=N_DAYS - 1)
    for last in rest:
        there_last = SESSIONS.tolist().index(there.bars["date"].max())
        new = market.seen(last, max(0, there_last + 1 - overlap), vintage=N_DAYS - 1)
        there = must(update(there, new, SESSIONS))
    assert is_same(there, whole)
    again = update(there, whole, SESSIONS)
    assert again.is_empty
    assert is_same(again.raw, whole)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_symbols_and_days_does_not_matter(seed: int) -> None:
    market, rng = drawn(seed), np.random.default_rng(seed)
    whole = market.seen(N_DAYS - 1)
    symbols = sorted(set(whole.bars["symbol"]))
    first = cuts(rng)[0]
    there = only(market.seen(first, vintage=N_DAYS - 1), symbols[:1])
    pieces = [(symbol, last) for symbol in symbols for last in (first, N_DAYS - 1)]
    order = rng.permutation(len(pieces)).tolist()
    for symbol, last in (pieces[number] for number in order):
        piece = only(market.seen(last, vintage=N_DAYS - 1), [symbol])
        if last == first:  # the tables of the market came with longer pieces
            piece = replace(piece, macro=piece.macro.clear(), index=piece.index.clear())
        there = must(update(there, piece))
    assert is_same(there, whole)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("digits", [2, 4, 6, 12])
@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_a_vendor_that_rescales_leaves_no_seam(seed: int, digits: int, overlap: int) -> None:
    # every increment is adjusted as of its own last day; the returns must be those of one download
    market, rng = drawn(seed, digits), np.random.default_rng(seed)
    first, *rest = cuts(rng)
    there, shown = market.seen(first), first
    rescaled = set()
    for last in rest:
        made = update(there, market.seen(last, shown + 1 - overlap), SESSIONS)
        there, shown = must(made), last
        rescaled |= set(made.rescaled)
    assert rescaled  # every drawn market has events after the first cut
    whole = gross_returns(market.seen(N_DAYS - 1).bars)
    both = gross_returns(there.bars).join(whole, on=["symbol", "date"], suffix="_whole")
    assert both.height == whole.height
    off = both.select((pl.col("gross") / pl.col("gross_whole") - 1).abs().max()).item()
    # two printed values above 8 each, off by half a unit, in two downloads; a dividend of 1 % more
    # or less is far above it
    least = there.bars["adj_close"].min()
    assert isinstance(least, float)
    printed = 4 * 0.5 * 10.0**-digits / least
    assert off < printed + (1e-5 if overlap else 6e-4)  # without overlap: two kinds of adjustment
    assert printed < 8e-3


def test_the_scale_of_the_new_download_is_carried_back_over_kept_days() -> None:
    market = plain()
    dividend = pl.when(pl.col("date") == day(20)).then(1.0).otherwise(0.0)
    paid = GrowingMarket(market.traded.with_columns(dividend=dividend), 6)
    made = update(market.seen(19), paid.seen(20, 18), SESSIONS)
    assert made.rescaled == ("S0",)
    assert made.changes == ()
    # the close before the day is 119: every earlier day is multiplied by 118 / 119
    expected = [round((100 + row) * 118 / 119, 6) for row in range(20)]
    assert made.raw.bars["adj_close"][:20].to_list() == pytest.approx(expected, abs=1e-6)
    assert made.raw.bars["adj_close"][20] == 120.0


def plain() -> GrowingMarket:
    """One stock without events, whose close rises by 1 a day from 100."""
    market = drawn(0, n_symbols=1)
    close = 100.0 + np.arange(N_DAYS)
    frame = pl.DataFrame({"date": SESSIONS, "close": close}).with_columns(
        pl.col("date").cast(pl.Date)
    )
    frame = frame.with_columns(
        symbol=pl.lit("S0"),
        open=pl.col("close"),
        high=pl.col("close") + 1,
        low=pl.col("close") - 1,
        volume=pl.lit(1000.0),
        adj_close=pl.lit(None, pl.Float64),
        dividend=pl.lit(0.0),
        split=pl.lit(1.0),
    )
    return GrowingMarket(frame.select(market.traded.columns), 6)


def test_without_a_repeated_day_and_without_actions_nothing_is_joined() -> None:
    market = plain()
    silent = replace(market.seen(20, 20), readings=(STATES_NOTHING,))
    made = update(market.seen(19), silent, SESSIONS)
    (line,) = made.refusals
    assert line.startswith(f"S0: adj_close cannot be joined: the new data do not repeat {day(19)}")
    assert line.endswith("give the bars of that day, too")
    repeated = replace(market.seen(20, 19), readings=(STATES_NOTHING,))
    assert must(update(market.seen(19), repeated)).bars.height == 21


STATES_NOTHING = FileReading("prices.csv", "", (("close", "close"),), 1, "", "", ())


def test_an_adjusted_close_that_nothing_explains_is_not_joined() -> None:
    market = plain()
    odd = market.seen(20, 20)
    odd = with_bars(odd, odd.bars.with_columns(pl.col("adj_close") * 0.97))
    (line,) = update(market.seen(19), odd, SESSIONS).refusals
    assert "close, split and dividend do not explain how it moves" in line


def test_a_repeated_day_whose_adjusted_close_is_no_price_joins_nothing() -> None:
    market = plain()
    there, new = (
        with_bars(
            raw, raw.bars.with_columns(adj_close=pl.when(is_last).then(0.0).otherwise("adj_close"))
        )
        for is_last in [pl.col("date") == day(19)]
        for raw in (market.seen(19), market.seen(20, 19))
    )
    odd = with_bars(new, new.bars.with_columns(pl.col("adj_close") * 0.97))
    (line,) = update(there, odd, SESSIONS).refusals
    assert line.startswith("S0: adj_close cannot be joined")


@pytest.mark.parametrize("seed", range(20))
def test_a_corrupted_cell_is_named_and_accepted_alone(seed: int) -> None:
    market, rng = drawn(seed % 5), np.random.default_rng(seed)
    there, new = market.seen(30), market.seen(33, 20, vintage=30 if seed % 2 else 33)
    column = str(rng.choice(["open", "high", "low", "close", "volume", "dividend", "split"]))
    repeated = new.bars.filter(pl.col("date").is_between(day(22), day(30)))
    row = repeated.row(int(rng.integers(repeated.height)), named=True)
    is_row = (pl.col("symbol") == row["symbol"]) & (pl.col("date") == row["date"])
    wrong = pl.when(is_row).then(pl.col(column) * 1.01 + 0.01).otherwise(pl.col(column))
    made = update(there, with_bars(new, new.bars.with_columns(wrong.alias(column))), SESSIONS)
    assert made.refusals == ()
    (change,) = made.changes
    assert (change.name, change.column, change.count) == (row["symbol"], column, 1)
    assert change.first == change.last == str(row["date"])
    assert float(change.before) == pytest.approx(row[column])
    assert float(change.after) == pytest.approx(row[column] * 1.01 + 0.01)
    clean = update(there, new, SESSIONS).raw.bars
    differing = (made.raw.bars[column] != clean[column]).arg_true().to_list()
    assert len(differing) == 1
    assert made.raw.bars.drop(column).equals(clean.drop(column))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restated_split_is_recognised_and_replaced_as_a_whole(seed: int) -> None:
    market = drawn(seed)
    there, new = market.seen(30), market.seen(33, vintage=30 if seed % 2 else 33)
    halved = [
        pl.col(name) / 2 for name in ("open", "high", "low", "close", "adj_close", "dividend")
    ]
    is_one = pl.col("symbol") == "S1"
    bars = new.bars.with_columns(
        *(
            pl.when(is_one).then(value).otherwise(value * 2).alias(value.meta.output_name())
            for value in halved
        ),
        volume=pl.when(is_one).then(pl.col("volume") * 2).otherwise("volume"),
    )
    made = update(there, with_bars(new, bars), SESSIONS)
    of_prices = made.changes[0]
    rows = there.bars.filter(pl.col("symbol") == "S1")
    assert of_prices.name == "S1"
    assert of_prices.column == "close, open, high, low, volume"
    assert of_prices.guess == "looks like a split 2:1 restated over the past"
    assert (of_prices.first, of_prices.last) == (str(rows["date"][0]), str(rows["date"][-1]))
    assert of_prices.count == rows.height
    assert {change.name for change in made.changes} == {"S1"}
    assert made.refusals == ()
    assert made.raw.bars.equals(bars)


def test_a_split_restated_over_a_part_of_the_history_is_refused_even_if_accepted() -> None:
    market = plain()
    new = market.seen(25, 15)
    restated = with_bars(new, new.bars.with_columns(pl.col("open", "high", "low", "close") / 2))
    made = update(market.seen(20), restated, SESSIONS)
    assert any("split 2:1" in change.guess for change in made.changes)
    (line,) = made.refusals
    assert f"the close of {day(15)}, the first day that the new data repeat, is 57.5" in line
    assert "was collected as 115" in line
    assert line.endswith("give its whole history")


def test_a_split_that_is_declared_on_a_new_day_is_no_change() -> None:
    market = plain()
    is_split = pl.col("date") >= day(20)
    prices = [
        pl.when(is_split).then(pl.col(n) / 2).otherwise(n).alias(n)
        for n in ("open", "high", "low", "close")
    ]
    split = pl.when(pl.col("date") == day(20)).then(2.0).otherwise(1.0)
    after = GrowingMarket(market.traded.with_columns(*prices, split=split), 6)
    for first in (20, 19, 0):
        made = update(market.seen(19), after.seen(22, first), SESSIONS)
        bars = must(made).bars
        assert made.rescaled == ("S0",)
        assert bars["close"][:20].to_list() == market.seen(19).bars["close"].to_list()
        assert gross_returns(bars)["gross"][20] == pytest.approx(120 / 119)


def test_a_late_dividend_is_named_by_its_day_and_accepted() -> None:
    market = plain()
    dividend = pl.when(pl.col("date") == day(15)).then(1.0).otherwise(0.0)
    paid = GrowingMarket(market.traded.with_columns(dividend=dividend), 6)
    made = update(market.seen(20), paid.seen(22, 10), SESSIONS)
    stated, returns = made.changes
    assert (stated.column, stated.first, stated.before, stated.after) == (
        "dividend",
        str(day(15)),
        "0",
        "1",
    )
    assert (returns.first, returns.last, returns.count) == (str(day(15)), str(day(15)), 1)
    assert returns.before == f"{115 / 114 - 1:+.4%}"
    assert returns.after == f"{115 / 113 - 1:+.4%}"
    assert made.refusals == ()
    whole = gross_returns(paid.seen(22).bars)["gross"].to_list()
    assert gross_returns(made.raw.bars)["gross"].to_list()[1:] == pytest.approx(whole[1:], abs=1e-6)


def test_a_kept_day_among_repeated_ones_takes_the_scale_of_the_day_before_it() -> None:
    market = plain()
    dividend = pl.when(pl.col("date") == day(15)).then(1.0).otherwise(0.0)
    paid = GrowingMarket(market.traded.with_columns(dividend=dividend), 6)
    new = paid.seen(22, 10)
    made = update(market.seen(20), with_bars(new, new.bars.filter(pl.col("date") != day(14))))
    assert made.refusals == ()
    # the day before the late dividend is kept: the dividend must fall on its own day
    whole = gross_returns(paid.seen(22).bars)["gross"].to_list()
    found = gross_returns(made.raw.bars)["gross"].to_list()
    assert found[1:] == pytest.approx(whole[1:], abs=1e-6)


def test_a_change_on_the_first_repeated_days_needs_more_history() -> None:
    market = plain()
    dividend = pl.when(pl.col("date") == day(15)).then(1.0).otherwise(0.0)
    paid = GrowingMarket(market.traded.with_columns(dividend=dividend), 6)
    (line,) = update(market.seen(20), paid.seen(22, 14), SESSIONS).refusals
    assert f"the return of adj_close on {day(15)} is not the collected one" in line


def test_bars_of_the_past_that_were_missing_are_a_change() -> None:
    market = plain()
    there = market.seen(20)
    holed = with_bars(there, there.bars.filter(pl.col("date") != day(12)))
    made = update(holed, market.seen(20), SESSIONS)
    (change,) = made.changes
    assert (change.column, change.first, change.guess) == (
        "row",
        str(day(12)),
        "a row that was missing",
    )
    assert made.raw.bars.equals(there.bars)


def test_a_missing_session_between_old_and_new_days_is_refused() -> None:
    market = plain()
    new = market.seen(24, 20)
    holed = with_bars(new, new.bars.filter(pl.col("date") != day(22)))
    (line,) = update(market.seen(20), holed, SESSIONS).refusals
    assert line.startswith(f"no bar of {day(22)}, which the exchange's calendar has")


def test_symbols_that_the_new_data_lack_stay_and_are_named() -> None:
    market = drawn(3)
    there = market.seen(30)
    alive = there.bars.filter(pl.col("date") == day(30))["symbol"].to_list()
    gone = alive[-1]
    new = market.seen(31)
    new = with_bars(new, new.bars.filter(pl.col("symbol") != gone))
    made = update(there, new, SESSIONS)
    assert gone in made.stale
    assert made.absent == (gone,)
    before = there.bars.filter(pl.col("symbol") == gone)
    kept = must(made).bars.filter(pl.col("symbol") == gone)
    assert kept.equals(before)


def test_a_new_symbol_under_another_spelling_is_refused() -> None:
    market = plain()
    new = market.seen(22)
    renamed = with_bars(new, new.bars.with_columns(symbol=pl.lit("s-0")))
    made = update(market.seen(20), renamed, SESSIONS)
    assert "s-0 is new, and collected is S0: spell both alike" in made.refusals


@pytest.mark.parametrize("column", ["open", "high", "low", "volume", "adj_close"])
def test_a_column_that_comes_or_goes_is_refused(column: str) -> None:
    market = plain()
    there, new = market.seen(20), market.seen(22)
    without = [
        with_bars(raw, raw.bars.with_columns(pl.lit(None, pl.Float64).alias(column)))
        for raw in (there, new)
    ]
    (lost,) = update(there, without[1]).refusals
    assert lost == f"the collected bars state {column}, the new ones do not; give the columns"
    (gained,) = update(without[0], new).refusals
    assert f"the new bars state {column}, the collected ones do not" in gained


def test_splits_that_are_no_longer_stated_are_refused() -> None:
    market = drawn(0)
    silent = replace(market.seen(N_DAYS - 1, N_DAYS - 1), readings=(STATES_NOTHING,))
    silent = with_bars(silent, silent.bars.with_columns(split=pl.lit(1.0), dividend=pl.lit(0.0)))
    (line,) = update(market.seen(N_DAYS - 2), silent).refusals
    assert "state split, dividend, the new ones do not" in line


def test_ends_of_membership_are_news_after_the_collected_days_and_changes_before() -> None:
    market = plain()
    there, new = market.seen(20), market.seen(22)
    assert new.membership is not None
    for row, n_changes in ((20, 0), (21, 0), (19, 1)):
        ended = replace(new, membership=new.membership.with_columns(end=pl.lit(day(row))))
        made = update(there, ended)
        assert len(made.changes) == n_changes
        assert made.raw.membership is not None
        assert made.raw.membership["end"].to_list() == [day(row)]
        assert made.added["membership"] == 1 - n_changes


def test_other_tables_are_compared_like_bars() -> None:
    market = plain()
    there, new = market.seen(20), market.seen(22)
    assert new.own_features is not None
    second = pl.int_range(pl.len()) == 1
    spoiled = replace(
        new,
        sectors=new.sectors.with_columns(sector=pl.lit("Utilities")),
        macro=new.macro.with_columns(pl.when(second).then(9.0).otherwise("value").alias("value")),
        index=new.index.with_columns(pl.when(second).then(9.0).otherwise("close").alias("close")),
        own_features=new.own_features.with_columns(
            pl.when(second).then(9.0).otherwise("value").alias("value")
        ),
    )
    made = update(there, spoiled)
    named = {(change.table, change.name, change.first, change.after) for change in made.changes}
    assert named == {
        ("sectors", "S0", "", "Utilities"),
        ("macro", "VIX", str(day(1)), "9"),
        ("index", "", str(day(1)), "9"),
        ("own_features", "mood", str(day(1)), "9"),
    }


def test_rounding_is_no_change_and_collected_values_stay() -> None:
    market = plain()
    there, new = market.seen(20), market.seen(22)
    noisy = with_bars(new, new.bars.with_columns(pl.col("close", "volume") * (1 + 1e-9)))
    bars = must(update(there, noisy)).bars
    assert bars["close"][:21].equals(there.bars["close"])


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (0.5, "2:1"),
        (2.0, "1:2"),
        (1 / 7.000007, "7:1"),
        (0.6667, "3:2"),
        (0.1, "10:1"),
        (1.02, ""),
        (0.7391, ""),
        (0.0, ""),
    ],
)
def test_factors_of_prices_are_named_as_splits(factor: float, words: str) -> None:
    assert split_in_words(factor) == words


@pytest.mark.parametrize("adjusts", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_a_stock_that_lacks_a_session_over_the_seam_is_named(adjusts: bool, repeats: bool) -> None:  # noqa: FBT001 -- drawn
    """Without adjusted closes nobody could tell whether it split on the session."""
    market = drawn(2)
    none = pl.lit(None, dtype=pl.Float64).alias("adj_close")

    def seen(last: int, first: int = 0) -> RawData:
        raw = market.seen(last, first, vintage=N_DAYS - 1)
        return raw if adjusts else replace(raw, bars=raw.bars.with_columns(none))

    there = seen(20)
    symbols = there.bars.filter(pl.col("date") == day(20))["symbol"].unique().sort().to_list()
    held = next(
        s
        for s in symbols
        if {day(n) for n in (21, 22)} <= {*market.traded.filter(symbol=s)["date"].to_list()}
    )
    is_hole = (pl.col("symbol") == held) & (pl.col("date") == day(21))
    new = seen(24, 20 if repeats else 21)
    new = replace(new, bars=new.bars.filter(~is_hole))
    made = update(there, new, SESSIONS)
    whole = {*market.traded.filter(pl.col("date") == day(21))["symbol"]}
    back = {*market.traded.filter(pl.col("date").is_between(day(22), day(24)))["symbol"]}
    gaps = {s for s in symbols if s not in whole and s in back}
    assert set(made.holes) == (set() if adjusts else {held, *gaps})
