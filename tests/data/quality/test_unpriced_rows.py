"""A row without a close hides nothing: what happens over it is found and earned as without it."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.quality.expressions import priced_rows
from hrl_sarp.data.quality.validation import validate
from hrl_sarp.data.store import RawData
from hrl_sarp.features.prices import build_panel
from tests.data.raw_factories import clean_raw, day, with_cells, with_factor

CONFIG = load_config().data.validation
PRICES = ["open", "high", "low", "close"]
BLANK = dict.fromkeys([*PRICES, "volume", "adj_close"], None)
LACKING = {"missing_value", "calendar_gap", "stale_run"}
"""What is said of the rows themselves."""


def without_adjusted(raw: RawData) -> RawData:
    return replace(raw, bars=raw.bars.with_columns(adj_close=pl.lit(None, dtype=pl.Float64)))


def earned(raw: RawData) -> tuple[set[tuple[object, ...]], dict[object, float]]:
    """Return the findings about moves, and the whole return of AAA on each day with a bar."""
    report = validate(raw, CONFIG, "XNYS")
    panel = build_panel(raw, report.table, ["Energy"])
    j = panel.symbols.index("AAA")
    total = (1 + panel.overnight_return[:, j]) * (1 + panel.intraday_return[:, j]) - 1
    found = report.table.filter(~pl.col("rule").is_in(sorted(LACKING)))
    return (
        set(found.select("symbol", "date", "rule").iter_rows()),
        {
            when.item(): float(value)
            for when, value, is_bar in zip(panel.dates, total, panel.tradable[:, j], strict=True)
            if is_bar
        },
    )


@given(
    first=st.integers(3, 14),
    n_blank=st.integers(1, 4),
    stated=st.lists(
        st.tuples(
            st.integers(1, 19), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 3.0])
        ),
        max_size=4,
        unique_by=lambda action: action[0],
    ),
    factor=st.sampled_from([1.0, 0.5, 0.2, 0.01, 100.0]),
    is_adjusted=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_rows_without_a_close_change_nothing(
    first: int,
    n_blank: int,
    stated: list[tuple[int, float, float]],
    factor: float,
    is_adjusted: bool,  # noqa: FBT001 -- drawn by hypothesis
) -> None:
    """Compare with data that lack the rows and state their splits and dividends a row later."""
    raw = with_factor(clean_raw(), first + n_blank, factor, [*PRICES, "adj_close"])
    raw = raw if is_adjusted else without_adjusted(raw)
    gone = range(first, first + n_blank)
    absent, blank = raw, raw
    shares, cash = 1.0, 0.0
    for row, split, dividend in sorted(stated):
        blank = with_cells(blank, row, split=split, dividend=dividend)
        if row in gone or row == first + n_blank:
            shares, cash = shares * split, cash + shares * dividend
        else:
            absent = with_cells(absent, row, split=split, dividend=dividend)
    absent = with_cells(absent, first + n_blank, split=shares, dividend=cash)
    dates = [day(row) for row in gone]
    is_gone = (pl.col("symbol") == "AAA") & pl.col("date").is_in(dates)
    absent = replace(absent, bars=absent.bars.filter(~is_gone))
    for row in gone:
        blank = with_cells(blank, row, **BLANK)
    found, returns = earned(blank)
    expected_findings, expected = earned(absent)
    assert found == expected_findings
    assert returns.keys() == expected.keys()
    np.testing.assert_allclose(list(returns.values()), list(expected.values()), atol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 0.01, 100.0])
def test_split_and_unit_change_behind_a_blank_row_are_not_earned(factor: float) -> None:
    raw = with_factor(clean_raw(), 9, factor, [*PRICES, "adj_close"])
    raw = with_cells(raw, 9, volume=1000.0 / factor if factor == 0.5 else 1000.0)
    _, returns = earned(with_cells(raw, 8, **BLANK))
    assert max(map(abs, returns.values())) < 0.02  # closes rise by 1 a day from 100


def test_actions_of_blank_rows_count_on_the_next_bar() -> None:
    raw = with_cells(clean_raw(), 5, split=2.0, **BLANK)
    raw = with_cells(with_cells(raw, 6, dividend=1.0, **BLANK), 7, split=3.0)
    bars = priced_rows(raw.bars).filter(symbol="AAA")
    assert bars["date"].to_list() == [day(row) for row in range(20) if row not in (5, 6)]
    # one share becomes 2, each of which is paid 1, then 6
    assert bars["split"][5] == 6.0
    assert bars["dividend"][5] == 2.0
    assert bars["split"].n_unique() == 2
