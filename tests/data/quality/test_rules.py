"""Splits without a flag and holes are named; crashes of the same size are not."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality import hindsight, rules
from hrl_sarp.data.quality.validation import validate
from hrl_sarp.data.store import RawData
from tests.data.raw_factories import clean_raw, day, with_cells, with_factor

CONFIG = load_config().data.validation
BONUS = CONFIG.model_copy(update={"undeclared_split_ratios": [1.5]})
PRICES = ["open", "high", "low", "close"]
ROW = 8
"""14 January 2019 of AAA: open 107.5, close 108, the close before 107; 8 rows of usual trading."""


def split_at(ratio: float, *, volume: float = 1.0, close: float = 1.0) -> RawData:
    """AAA falls to 1 / ratio over night and by `close` in the day, for good; volume is ROW's."""
    raw = with_factor(clean_raw(), ROW, 1 / ratio, [*PRICES, "adj_close"])
    raw = with_factor(raw, ROW + 1, close, [*PRICES, "adj_close"])
    bar = raw.bars.filter((pl.col("symbol") == "AAA") & (pl.col("date") == pl.lit(day(ROW))))
    price = bar["close"][0] * close
    # as many shares more as the price fell: the same money
    cells = {"volume": 1000.0 * ratio * volume, "close": price, "adj_close": price}
    lowest = min(bar["low"][0], price)
    return with_cells(raw, ROW, **cells, low=lowest)


def found_by(rule: str, bars: pl.DataFrame, config: ValidationConfig = CONFIG) -> pl.DataFrame:
    return found_in(bars, config).filter(pl.col("rule") == rule)


def found_in(bars: pl.DataFrame, config: ValidationConfig = CONFIG) -> pl.DataFrame:
    """Every finding about a row."""
    of_moves = rules.check_rows(rules.prepare(bars, config), config)
    return pl.concat([of_moves, rules.missing_values(bars)])


def splits_of(raw: RawData, config: ValidationConfig = CONFIG) -> list[tuple[str, date]]:
    return found_by("undeclared_split", raw.bars, config).select("symbol", "date").rows()


@pytest.mark.parametrize("ratio", [2.0, 5.0, 10.0, 20.0, 30.0, 50.0])
def test_fall_by_a_split_ratio_over_night_is_a_split(ratio: float) -> None:
    assert splits_of(split_at(ratio)) == [("AAA", day(ROW))]


def test_value_is_the_night_against_the_close_before() -> None:
    found = found_by("undeclared_split", split_at(2.0).bars)
    assert found["value"].to_list() == [pytest.approx(107.5 / 2 / 107 - 1)]


def test_consolidation_is_a_split_too() -> None:
    assert splits_of(split_at(0.1)) == [("AAA", day(ROW))]


@pytest.mark.parametrize("ratio", [2.0, 3.0, 10.0])
def test_fall_with_other_than_the_usual_trading_is_a_crash_that_is_named(ratio: float) -> None:
    # 0.4 to 3.5 times the median dollar volume of the days before
    assert splits_of(split_at(ratio, volume=3.3)) == [("AAA", day(ROW))]
    for volume in (0.2, 3.8, 7.0, 40.0):
        crash = split_at(ratio, volume=volume)
        assert splits_of(crash) == []
        assert found_by("suspected_split", crash.bars)["date"].to_list() == [day(ROW)]


def test_split_of_a_symbol_that_has_stated_one_may_be_named_late() -> None:
    raw = split_at(2.0)
    told = with_cells(with_factor(raw, 3, 0.5, PRICES), 3, split=2.0)  # adj_close goes on smoothly
    assert splits_of(told) == []
    assert found_by("late_split", told.bars)["date"].to_list() == [day(ROW)]
    assert found_by("suspected_split", told.bars).is_empty()
    crash = with_cells(told, ROW, volume=1e5)
    assert found_by("late_split", crash.bars).is_empty()
    assert found_by("suspected_split", crash.bars)["date"].to_list() == [day(ROW)]
    later = with_cells(with_factor(raw, ROW + 3, 0.5, PRICES), ROW + 3, split=2.0)
    assert splits_of(later) == [("AAA", day(ROW))]  # nobody knew of it then


def test_fall_in_the_day_is_a_crash() -> None:
    assert splits_of(split_at(1.0, close=0.5)) == []
    assert splits_of(split_at(2.0, close=0.8)) == []


def test_fall_that_no_split_explains_is_a_crash() -> None:
    assert splits_of(split_at(2.4)) == []  # 0.42: further from 1/2 and 1/3 than a night moves
    assert splits_of(split_at(200.0)) == []


def test_declared_split_is_left_alone() -> None:
    raw = with_factor(clean_raw(), ROW, 0.5, PRICES)  # adj_close goes on smoothly
    assert splits_of(with_cells(raw, ROW, split=2.0)) == []


def test_profile_says_which_ratios_there_are() -> None:
    assert splits_of(split_at(1.5)) == []
    assert found_by("suspected_split", split_at(1.5).bars)["date"].to_list() == [day(ROW)]
    assert splits_of(split_at(1.5), BONUS) == [("AAA", day(ROW))]
    assert splits_of(split_at(1 / 1.5), BONUS) == []  # nobody consolidates 3 shares into 2


def test_unknown_volume_and_open_leave_only_the_price() -> None:
    raw = split_at(2.0)
    unknown = pl.lit(None, dtype=pl.Float64)
    closes_only = replace(raw, bars=raw.bars.with_columns(volume=unknown, open=unknown))
    assert splits_of(closes_only) == [("AAA", day(ROW))]


def test_later_rows_do_not_change_what_is_found() -> None:
    raw = split_at(2.0)
    cut = replace(raw, bars=raw.bars.filter(pl.col("date") <= pl.lit(day(ROW))))
    crashed = with_factor(raw, ROW + 2, 0.01, [*PRICES, "adj_close", "volume"])
    assert splits_of(cut) == splits_of(crashed) == [("AAA", day(ROW))]


def test_jump_of_the_adjustment_is_no_split() -> None:
    raw = with_factor(clean_raw(), ROW, 0.5, ["adj_close"])  # the traded price goes on smoothly
    assert splits_of(raw) == []


def test_split_is_reported_once_and_its_bar_stays() -> None:
    report = validate(split_at(2.0), CONFIG, "XNYS")
    about = report.table.filter(pl.col("date") == pl.lit(day(ROW)))
    assert about["rule"].to_list() == ["undeclared_split"]
    assert not about["is_excluded"].any()


def test_long_hole_is_named_with_its_days_and_not_as_a_split() -> None:
    raw = split_at(2.0)
    later = raw.bars.with_columns(
        date=pl.when(pl.col("date") >= pl.lit(day(ROW)))
        .then(pl.col("date") + timedelta(days=100))
        .otherwise("date")
    )
    found = found_by("long_hole", later)
    # 11 to 14 January is a weekend: 3 days, and 100
    assert found.filter(pl.col("symbol") == "AAA")["count"].to_list() == [103]
    assert found_by("undeclared_split", later).is_empty()


def test_every_effect_names_a_rule_that_exists() -> None:
    of_rows = set(rules.row_rules(CONFIG))
    of_others = {"missing_key", "missing_value", "duplicate", *hindsight.RULES}
    assert of_rows | of_others >= rules.EXCLUDING
    assert of_rows >= rules.BREAKING


@given(seed=st.integers(0, 2**32 - 1), n_kept=st.integers(1, 19))
@settings(max_examples=40, deadline=None)
def test_findings_of_a_row_do_not_depend_on_later_rows(seed: int, n_kept: int) -> None:
    """Spoil data at random, cut them anywhere: what was found up to there stays, in every rule."""
    raw = spoiled(np.random.default_rng(seed))
    last = day(n_kept)
    cut = replace(raw, bars=raw.bars.filter(pl.col("date") <= pl.lit(last)))
    whole, part = row_findings(raw), row_findings(cut)
    assert whole.filter(pl.col("date") <= pl.lit(last)).rows() == part.rows()


@pytest.mark.parametrize("later_row", range(ROW + 1, 20))
@pytest.mark.parametrize("action", [{"dividend": 0.5}, {"split": 2.0}])
def test_what_is_stated_later_does_not_change_what_a_gap_was(
    later_row: int, action: dict[str, float]
) -> None:
    gap = with_factor(clean_raw(), ROW, 1.03, ["adj_close"])
    assert found_by("unstated_dividend", gap.bars)["date"].to_list() == [day(ROW)]
    later = with_cells(gap, later_row, **action)
    assert found_by("unstated_dividend", later.bars)["date"].to_list() == [day(ROW)]
    before = with_cells(gap, 3, dividend=0.001)
    assert day(ROW) in found_by("adjustment_gap", before.bars)["date"].to_list()


@pytest.mark.parametrize(
    ("n_gaps", "n_symbols", "is_dividend"),
    [(1, 4, True), (2, 4, True), (2, 2, True), (3, 6, True), (3, 5, False), (4, 4, False)],
)
def test_gap_of_most_stocks_on_one_day_is_no_dividend(
    n_gaps: int,
    n_symbols: int,
    is_dividend: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    symbols = tuple(f"S{i}" for i in range(n_symbols))
    is_later = pl.col("symbol").is_in(symbols[:n_gaps]) & (pl.col("date") >= pl.lit(day(ROW)))
    scale = pl.when(is_later).then(1.03).otherwise(1.0)
    bars = clean_raw(symbols).bars.with_columns(pl.col("adj_close") * scale)
    rule, other = "unstated_dividend", "adjustment_gap"
    if not is_dividend:
        rule, other = other, rule
    assert found_by(rule, bars)["symbol"].to_list() == list(symbols[:n_gaps])
    assert found_by(other, bars).is_empty()


def test_random_spoiling_breaks_every_rule_about_rows() -> None:
    rng = np.random.default_rng(0)
    broken = {rule for _ in range(120) for rule in row_findings(spoiled(rng))["rule"]}
    # tests/data/quality/test_levels.py and test_actions.py break these
    elsewhere = {"unit_change", "unit_change_in_day", "split_displaced", "split_contradicted"}
    elsewhere |= {"quiet_jump", "split_as_bonus", "stale_close"}
    assert broken >= set(rules.row_rules(CONFIG)) - elsewhere - {"long_hole", "leaves_zero"}
    assert not rules.SUMMARISING & (rules.EXCLUDING | rules.BREAKING)


def spoiled(rng: np.random.Generator) -> RawData:
    """Change some cells, and columns up to a row or from a row on."""
    raw = clean_raw()
    for _ in range(rng.integers(1, 6)):
        row, symbol = int(rng.integers(1, 20)), str(rng.choice(["AAA", "BBB"]))
        kind = rng.integers(0, 9)
        if kind == 0:
            paid = float(rng.choice([0.5, 20.0, 300.0]))
            again = with_cells(raw, min(row + 1, 19), symbol, dividend=paid if paid < 1 else 0.0)
            raw = with_cells(again, row, symbol, dividend=paid)
        elif kind == 1:
            raw = with_cells(raw, row, symbol, split=float(rng.choice([0.5, 2.0])))
        elif kind == 2:
            raw = with_factor(raw, row, float(rng.choice([0.5, 2.0, 1.03])), ["adj_close"])
        elif kind == 3:
            raw = with_factor(raw, row, float(rng.choice([0.5, 0.2])), [*PRICES, "adj_close"])
            raw = with_cells(raw, row, volume=float(rng.choice([1000.0, 2000.0, 20000.0])))
        elif kind == 4:
            name = str(rng.choice([*PRICES, "volume", "adj_close"]))
            raw = with_cells(raw, row, symbol, **{name: rng.choice([None, 0.0, -1.0, 1e4])})
        elif kind == 5:  # a column that begins, or ends, with a row
            name = str(rng.choice(["open", "high", "low", "volume"]))
            side = pl.col("date") < day(row) if rng.random() < 0.5 else pl.col("date") >= day(row)
            known = pl.when(side).then(None).otherwise(pl.col(name)).alias(name)
            raw = replace(raw, bars=raw.bars.with_columns(known))
        elif kind == 6:
            is_row = (pl.col("symbol") == symbol) & (pl.col("date") == pl.lit(day(row - 1)))
            copied = raw.bars.filter(is_row).with_columns(date=pl.lit(day(row)))
            is_copied = (pl.col("symbol") == symbol) & (pl.col("date") == pl.lit(day(row)))
            raw = replace(raw, bars=pl.concat([raw.bars.filter(~is_copied), copied]))
        elif kind == 7:
            flat = dict.fromkeys([*PRICES, "adj_close"], 100.0)
            raw = with_cells(raw, row, symbol, **flat, volume=0.0)
        else:  # an adjustment a day early
            raw = with_cells(raw, row, symbol, adj_close=float(rng.choice([50.0, 250.0])))
    return raw


def row_findings(raw: RawData) -> pl.DataFrame:
    """Every finding about a row, sorted."""
    return found_in(raw.bars.sort("symbol", "date")).sort("symbol", "date", "rule")


def test_column_that_no_row_has_is_not_missed() -> None:
    bars = clean_raw().bars.with_columns(volume=pl.lit(None, dtype=pl.Float64))
    assert found_by("missing_value", bars).is_empty()
    without_closes = bars.with_columns(close=pl.lit(None, dtype=pl.Float64))
    assert found_by("missing_value", without_closes).height == bars.height


COLUMNS = ("open", "high", "low", "volume", "adj_close")


@pytest.mark.parametrize("column", COLUMNS)
def test_column_that_one_symbol_lacks_as_a_whole_is_named_once_and_its_rows_stay(
    column: str,
) -> None:
    bars = clean_raw().bars
    lacking = pl.when(pl.col("symbol") == "AAA").then(None).otherwise(pl.col(column))
    spoiled = bars.with_columns(lacking.alias(column))
    assert found_by("missing_value", spoiled).is_empty()
    found = rules.missing_columns(spoiled)
    n_rows = bars.filter(symbol="AAA").height
    assert found.select("symbol", "rule", "count", "detail").rows() == [
        ("AAA", "column_missing", n_rows, f"no {column}, which other symbols have")
    ]
    assert rules.missing_columns(bars).is_empty()


@pytest.mark.parametrize("column", COLUMNS)
def test_row_that_lacks_what_its_symbol_has_says_which_column(column: str) -> None:
    found = found_by("missing_value", with_cells(clean_raw(), 5, **{column: None}).bars)
    assert found.select("symbol", "date", "detail").rows() == [("AAA", day(5), f"no {column}")]


@pytest.mark.parametrize(
    ("later", "amount", "is_named"),
    [(1, 0.5, True), (3, 0.5, True), (4, 0.5, False), (1, 0.4, False)],
)
def test_dividend_that_stands_again_is_named(
    later: int,
    amount: float,
    is_named: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    raw = with_cells(with_cells(clean_raw(), ROW, dividend=0.5), ROW + later, dividend=amount)
    found = found_by("dividend_again", raw.bars)
    expected = [("AAA", day(ROW + later), 0.5)] if is_named else []
    assert found.select("symbol", "date", "value").rows() == expected
