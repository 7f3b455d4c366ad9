"""New days that go on in another unit are no news: they are named, and wait for a consent."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.sources import sample
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA, PRICE_COLUMNS, RawData
from hrl_sarp.data.update.merge import Update, update


def traded() -> RawData:
    """Return the sample with the volumes of a busy exchange and a series of volatility."""
    raw, rng = sample.load(), np.random.default_rng(11)
    days = raw.bars["date"].unique().sort()
    of_days = pl.DataFrame({"date": days, "busy": rng.normal(0.0, 0.25, len(days))})
    bars = raw.bars.join(of_days, on="date", maintain_order="left")
    own = pl.Series(rng.normal(0.0, 0.5, bars.height))
    size = pl.col("symbol").rank("dense") / 10 + 14
    volume = (size + pl.col("busy") + own).exp().round()
    walk = np.cumsum(rng.normal(0.0, 0.05, len(days)))
    vix = pl.DataFrame({"date": days, "value": 18 + 6 * np.sin(walk)})
    return replace(
        raw,
        bars=bars.with_columns(volume=volume).drop("busy"),
        macro=vix.select("date", series=pl.lit("VIX"), value="value"),
    )


WHOLE = traded()
DAYS = WHOLE.bars["date"].unique().sort().to_list()
LEVELS = ("open", "high", "low", "close", "adj_close")
"""Columns that a change of currency or unit multiplies together."""
PROVISIONAL = 5
"""Collected sessions whose volumes and series may still be completed."""


def seen(first: int, last: int) -> RawData:
    """Return the sample's rows of some days."""
    is_seen = pl.col("date").is_between(DAYS[first], DAYS[last])
    return replace(
        WHOLE,
        bars=WHOLE.bars.filter(is_seen),
        macro=WHOLE.macro.filter(is_seen),
        index=WHOLE.index.filter(is_seen),
    )


def scaled(raw: RawData, columns: tuple[str, ...], factor: float) -> RawData:
    """Return bars with some columns in another unit, volumes as whole numbers."""
    values = [pl.col(name) * factor for name in columns]
    if columns == ("volume",):
        values = [pl.col("volume").mul(factor).round()]
    return replace(raw, bars=raw.bars.with_columns(values))


def evening(
    row: int, repeated: int, columns: tuple[str, ...] = (), factor: float = 1.0, n_new: int = 1
) -> Update:
    """Bring data up to some new days; the new data repeat some days before."""
    new = scaled(seen(row - repeated, row + n_new - 1), columns, factor)
    return update(seen(row - 80, row - 1), new, None, PROVISIONAL)


@pytest.mark.parametrize("row", range(100, len(DAYS), 97))
@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_days_as_they_came_need_nobodys_consent(row: int, repeated: int) -> None:
    made = evening(row, repeated)
    assert made.refusals == ()
    assert made.changes == ()


@pytest.mark.parametrize("factor", [1e-3, 1e-2, 0.1, 10.0, 100.0, 1e3])
@pytest.mark.parametrize("repeated", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_volumes_in_another_unit_are_a_change(factor: float, repeated: int, seed: int) -> None:
    row = int(np.random.default_rng(seed).integers(100, len(DAYS) - 3))
    # a single day with a tenth of the usual volume is a short session
    n_new = 3 if (repeated, factor) == (0, 0.1) else 1
    made = evening(row, repeated, ("volume",), factor, n_new)
    assert {change.column for change in made.changes} == {"volume"}
    assert all("unit" in change.guess for change in made.changes)
    # of all stocks, or of each one whose volumes are not too small for the rounding
    assert repeated == 0 or len(made.changes) > 10


@pytest.mark.parametrize("factor", [0.01, 1 / 3, 0.5, 2.0, 10.0, 83.2])
@pytest.mark.parametrize("seed", range(3))
def test_prices_at_another_level_are_a_change_though_no_day_is_repeated(
    factor: float, seed: int
) -> None:
    row = int(np.random.default_rng(seed).integers(100, len(DAYS) - 3))
    made = evening(row, 0, LEVELS, factor)
    named = [change for change in made.changes if change.column == "close"]
    assert [change.first for change in named] == [str(DAYS[row])]
    assert "unit" in named[0].guess


@pytest.mark.parametrize("stated", [0.5, 2.0, 3.0])
def test_a_split_of_all_that_is_stated_is_none(stated: float) -> None:
    row = 200
    new = scaled(seen(row, row), PRICE_COLUMNS, 1 / stated)
    bars = new.bars.with_columns(split=pl.lit(stated), adj_close=pl.lit(None, pl.Float64))
    there = seen(row - 80, row - 1)
    there = replace(there, bars=there.bars.with_columns(adj_close=pl.lit(None, pl.Float64)))
    assert update(there, replace(new, bars=bars), None, PROVISIONAL).changes == ()


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_a_series_in_another_unit_is_a_change(factor: float, repeated: int) -> None:
    row = 300
    new = seen(row - repeated, row)
    macro = new.macro.with_columns(
        value=pl.when(pl.col("series") == "VIX").then(pl.col("value") * factor).otherwise("value")
    )
    made = update(seen(row - 80, row - 1), replace(new, macro=macro), None, PROVISIONAL)
    assert {(change.name, change.column) for change in made.changes} == {("VIX", "value")}
    assert all("unit" in change.guess for change in made.changes)


@pytest.mark.parametrize("seed", range(5))
def test_what_vendors_complete_stays_provisional(seed: int) -> None:
    """Volumes grow by a part that differs from day to day, and a late series gets its rows."""
    row, rng = 250, np.random.default_rng(seed)
    there, new = seen(row - 80, row - 1), seen(row - 3, row)
    part = pl.Series(rng.uniform(0.2, 1.3, there.bars.height))
    late = there.macro.filter(pl.col("date") < DAYS[row - 2])
    there = replace(
        there,
        macro=late,
        bars=there.bars.with_columns(volume=(pl.col("volume") * part).round()),
    )
    # only the days that a vendor still completes were incomplete
    done = there.bars.join(
        WHOLE.bars.select("symbol", "date", whole="volume"), on=["symbol", "date"]
    )
    recent = pl.col("date") >= DAYS[row - 3]
    bars = done.with_columns(volume=pl.when(recent).then("volume").otherwise("whole"))
    made = update(replace(there, bars=bars.drop("whole")), new, None, PROVISIONAL)
    assert made.changes == ()
    assert {change.column for change in made.restated} >= {"volume"}


def with_tables(raw: RawData) -> RawData:
    """Return the data with own features of all stocks, one of the market, and two more series."""
    days = pl.Series("date", DAYS)
    rng = np.random.default_rng(5)
    walks = {
        "GOLD": 1300 * np.exp(np.cumsum(rng.normal(0, 0.01, len(DAYS)))),
        "DGS10": 2 + 1.5 * np.sin(np.cumsum(rng.normal(0, 0.01, len(DAYS)))),
        "VIX": 18 + 6 * np.sin(np.cumsum(rng.normal(0, 0.05, len(DAYS)))),
    }
    macro = pl.concat(
        pl.DataFrame({"date": days, "series": [name] * len(days), "value": np.round(walk, 2)})
        for name, walk in walks.items()
    )
    level = pl.col("symbol").rank("dense") / 100
    own = WHOLE.bars.select("date", "symbol", name=pl.lit("yield"), value=level)
    mood = pl.DataFrame({"date": days, "name": "mood", "value": rng.normal(0, 1, len(days))})
    of_market = mood.select("date", pl.lit(None, pl.String).alias("symbol"), "name", "value")
    both = pl.concat([own, of_market]).with_columns(known_at="date")
    index = 1000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(DAYS))))
    levels = pl.DataFrame({"date": days, "close": np.round(index, 2)})
    kept = pl.col("date").is_between(raw.bars["date"].min(), raw.bars["date"].max())
    return replace(
        raw,
        macro=macro.filter(kept),
        index=levels.filter(kept),
        own_features=both.filter(kept).select(OWN_FEATURES_SCHEMA.names()),
    )


def multiplied(raw: RawData, table: str, name: str, factor: float, since: int) -> RawData:
    """Return the data with one name of a table in another unit from some day on."""
    key = {"macro": pl.col("series"), "own_features": pl.col("name")}.get(table, pl.lit(""))
    column = "close" if table == "index" else "value"
    is_other = (key == name) & (pl.col("date") >= DAYS[since])
    changed = pl.when(is_other).then(pl.col(column) * factor).otherwise(column).alias(column)
    return replace(raw, **{table: getattr(raw, table).with_columns(changed)})


OTHER_UNITS = [
    *[("macro", "GOLD", factor) for factor in (1 / 31.1, 10.0, 83.0)],
    *[("macro", "VIX", factor) for factor in (0.01, 0.1, 100.0)],
    *[("macro", "DGS10", factor) for factor in (10.0, 100.0)],
    *[("index", "", factor) for factor in (0.1, 10.0)],
    *[("own_features", "yield", factor) for factor in (0.01, 100.0, 1e6)],
    *[("own_features", "mood", factor) for factor in (1e3, 1e6)],
]


@pytest.mark.parametrize("row", [300, 500, 700])
@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_other_tables_as_they_came_need_nobodys_consent(row: int, repeated: int) -> None:
    there, new = with_tables(seen(row - 250, row - 1)), with_tables(seen(row - repeated, row))
    assert update(there, new, None, PROVISIONAL).changes == ()


@pytest.mark.parametrize(("table", "name", "factor"), OTHER_UNITS)
@pytest.mark.parametrize("repeated", [0, 1, 3])
def test_new_values_at_another_level_are_a_change_though_repeated_ones_fit(
    table: str, name: str, factor: float, repeated: int
) -> None:
    row = 500
    there, new = with_tables(seen(row - 250, row - 1)), with_tables(seen(row - repeated, row))
    made = update(there, multiplied(new, table, name, factor, row), None, PROVISIONAL)
    assert [(change.table, change.name, change.first) for change in made.changes] == [
        (table, name, str(DAYS[row]))
    ]
    assert made.changes[0].guess


def test_two_series_that_change_places_are_a_change() -> None:
    row = 500
    there, new = with_tables(seen(row - 250, row - 1)), with_tables(seen(row, row))
    other = {"VIX": "DGS10", "DGS10": "VIX"}
    swapped = replace(new, macro=new.macro.with_columns(pl.col("series").replace(other)))
    made = update(there, swapped, None, PROVISIONAL)
    assert {change.name for change in made.changes} == {"VIX", "DGS10"}


def test_a_large_factor_near_zero_is_no_other_unit() -> None:
    row = 500
    there, new = with_tables(seen(row - 250, row - 1)), with_tables(seen(row, row))
    days = pl.DataFrame({"date": DAYS[row - 250 : row], "series": ["SPREAD"] * 250})
    fallen = days.with_columns(value=pl.when(pl.int_range(250) < 245).then(2.0).otherwise(0.1))
    there = replace(there, macro=fallen)
    near = new.macro.head(1).with_columns(series=pl.lit("SPREAD"), value=pl.lit(0.003))
    assert update(there, replace(new, macro=near), None, PROVISIONAL).changes == ()


@pytest.mark.parametrize("factor", [1e-3, 1e-2, 100.0, 1e3])
@pytest.mark.parametrize("n_symbols", [3, 6])
def test_volumes_of_a_part_in_another_unit_are_a_change(factor: float, n_symbols: int) -> None:
    row = 500
    new = seen(row, row)
    some = new.bars["symbol"].unique().sort()[:n_symbols]
    scale = pl.when(pl.col("symbol").is_in(some.implode())).then(factor).otherwise(1.0)
    new = replace(new, bars=new.bars.with_columns(volume=(pl.col("volume") * scale).round()))
    made = update(seen(row - 80, row - 1), new, None, PROVISIONAL)
    assert [change.column for change in made.changes] == ["volume"]
    assert f"in {n_symbols} of" in made.changes[0].guess


@pytest.mark.parametrize(("table", "column"), [("macro", "series"), ("own_features", "name")])
def test_a_series_under_another_spelling_is_refused_and_one_that_stops_is_named(
    table: str, column: str
) -> None:
    row = 500
    there, new = with_tables(seen(row - 250, row - 1)), with_tables(seen(row, row))
    frame = getattr(new, table)
    name = frame[column].sort()[0]
    respelt = frame.with_columns(pl.col(column).replace({name: name.swapcase()}))
    made = update(there, replace(new, **{table: respelt}), None, PROVISIONAL)
    assert [name in line for line in made.refusals] == [True]
    lacking = replace(new, **{table: frame.filter(pl.col(column) != name)})
    made = update(there, lacking, None, PROVISIONAL)
    assert (made.refusals, made.absent_series) == ((), (name,))


@pytest.mark.parametrize("repeated", [1, 3])
def test_a_stock_under_a_new_symbol_is_refused(repeated: int) -> None:
    row = 500
    there, new = seen(row - 80, row - 1), seen(row - repeated, row)
    name = new.bars["symbol"][0]
    renamed = new.bars.with_columns(pl.col("symbol").replace({name: "META"}))
    made = update(there, replace(new, bars=renamed), None, PROVISIONAL)
    assert [line.startswith("META is new") and name in line for line in made.refusals] == [True]


@pytest.mark.parametrize("seed", range(3))
def test_a_new_stock_that_shares_one_bar_with_an_ended_one_is_no_other_name(seed: int) -> None:
    """Thin stocks may have one close and volume on a day by chance, but not on all days."""
    rng = np.random.default_rng(seed)
    row, ended = (
        int(rng.integers(100, len(DAYS))),
        str(rng.choice(WHOLE.bars["symbol"].unique().sort())),
    )
    there, new = seen(row - 80, row - 1), seen(row - 4, row)
    own = new.bars.filter(pl.col("symbol") == ended).with_columns(
        pl.when(pl.col("date") != DAYS[row - 2])
        .then(pl.col(*LEVELS) * 1.7)
        .otherwise(pl.col(*LEVELS)),
        symbol=pl.lit("NEW"),
    )
    sectors = WHOLE.sectors.filter(pl.col("symbol") == ended).with_columns(symbol=pl.lit("NEW"))
    bars = pl.concat([new.bars.filter(pl.col("symbol") != ended), own]).sort("symbol", "date")
    given = replace(new, bars=bars, sectors=pl.concat([new.sectors, sectors]))
    made = update(there, given, None, PROVISIONAL)
    assert made.refusals == ()
    assert (made.new_symbols, made.absent) == (("NEW",), (ended,))


@pytest.mark.parametrize("share", [1 / 8, 1 / 25])
def test_a_short_session_is_no_other_unit(share: float) -> None:
    assert evening(300, 0, ("volume",), share).changes == ()


@pytest.mark.parametrize("factor", [0.4, 2.5, 3.0])
def test_several_volumes_that_differ_by_one_factor_are_a_change(factor: float) -> None:
    made = evening(300, 3, ("volume",), factor)
    assert {change.column for change in made.changes} == {"volume"}


def test_a_crash_with_much_trading_is_no_other_unit() -> None:
    new = scaled(scaled(seen(300, 300), LEVELS, 0.7), ("volume",), 4.0)
    assert update(seen(220, 299), new, None, PROVISIONAL).changes == ()


def test_a_late_row_among_provisional_ones_needs_nobodys_consent() -> None:
    there = seen(220, 299)
    late = there.macro.filter(pl.col("date") != DAYS[298])
    made = update(replace(there, macro=late), seen(296, 300), None, PROVISIONAL)
    assert (made.changes, [change.column for change in made.restated]) == ((), ["row"])
