"""What was known of the end of a stock, worked out by hand; rows of one market and of many."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from hrl_sarp.daily.paper.account import Terms
from hrl_sarp.daily.paper.book import first_day
from hrl_sarp.daily.paper.known import bars_of, known_listed, unlike_days
from hrl_sarp.data.store import BARS_SCHEMA, RawData
from hrl_sarp.errors import DataError
from tests import factories
from tests.daily.paper.conftest import DAYS, ENDS, HALTED, LAST_BAR, PAUSE, START, PaperSite

FIRST = date(2024, 1, 1)


def raw_of(printed: dict[str, str]) -> RawData:
    """Make bars where a stock has an x; a stock of every day gives the sessions."""
    rows = [
        {"date": FIRST + timedelta(days=i), "symbol": symbol, "close": 10.0}
        for symbol, marks in {**printed, "ALL": "x" * len(next(iter(printed.values())))}.items()
        for i, mark in enumerate(marks)
        if mark == "x"
    ]
    nothing = pl.DataFrame()
    return RawData(
        pl.DataFrame(rows, schema=BARS_SCHEMA), nothing, nothing, nothing, "files", "none", "none"
    )


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("xxxxxxxxxxxxxxxxxxxx", []),
        ("xxxxxxxxxx.xxxxxxxxx", []),  # a halt within 2 sessions is one on time as well
        ("xxxxxxxxxx..xxxxxxxx", []),
        ("xxxxxxxxxx....xxxxxx", [12, 13]),  # gone at 12 on time, halted in hindsight
        ("xxxxxxxxxxxx........", [7, 8, 9, 10, 11, 12, 13]),  # a collapse until 11, halted until 13
        ("xxxxxxxxxxxxxxxxxx..", [13, 14, 15, 16, 17]),  # still halted at the end
        ("..xxxxxxxxxxxxxxxxxx", []),
        ("xx..................", [0, 1, 2, 3]),
    ],
)
def test_sessions_that_hindsight_changes(marks: str, expected: list[int]) -> None:
    found = sorted((day - FIRST).days for day in unlike_days(raw_of({"A": marks}), 2))
    assert found == expected


def test_a_stock_is_listed_for_as_long_as_it_counts_as_halted() -> None:
    flat = np.zeros((8, 2))
    tradable = np.ones((8, 2), dtype=bool)
    tradable[2:6, 0] = False
    listed = np.ones((8, 2), dtype=bool)
    market = factories.market_with(flat, flat, np.arange(2), tradable=tradable, listed=listed)
    assert known_listed(market, 2)[:, 0].tolist() == [True] * 4 + [False] * 2 + [True] * 2
    assert known_listed(market, 0)[:, 0].tolist() == [True] * 2 + [False] * 4 + [True] * 2
    assert known_listed(market, 2)[:, 1].all()


def test_before_its_first_bar_the_mask_is_that_of_the_market() -> None:
    flat = np.zeros((4, 2))
    tradable = np.ones((4, 2), dtype=bool)
    tradable[:2, 0] = False
    listed = tradable.copy()
    listed[1, 0] = True
    market = factories.market_with(flat, flat, np.arange(2), tradable=tradable, listed=listed)
    assert known_listed(market, 3)[:, 0].tolist() == [False, True, True, True]


def test_bars_fill_in_what_a_source_leaves_out() -> None:
    raw = raw_of({"A": "xx"})
    assert bars_of(raw, FIRST)["A"] == (10.0, 1.0, 0.0)
    split = raw.bars.with_columns(split=pl.lit(2.0), dividend=pl.lit(0.3))
    assert bars_of(replace(raw, bars=split), FIRST)["A"] == (10.0, 2.0, 0.3)


def test_each_session_is_served_as_it_was_known(paper_site: PaperSite) -> None:
    markets = paper_site.markets()
    column = markets.view.market.symbols.index(ENDS)
    # in hindsight the stock is gone after its last bar; on time it is halted for 3 sessions
    assert not markets.view.market.listed[markets.view.row(DAYS[LAST_BAR + 1]), column]
    for late in range(1, HALTED + 3):
        known = markets.at(DAYS[LAST_BAR + late])
        place = known.view.market.symbols.index(ENDS)
        assert known.view.tensors.listed[known.row, place].item() == (late <= HALTED)
        is_cut = known.view is not markets.view
        assert is_cut == (late <= HALTED)
        assert known.view.market.dates[known.row].item() == known.day
        assert ENDS not in known.closes
    assert markets.at(DAYS[PAUSE[0] + HALTED + 1]).view is not markets.view


def test_a_decision_in_hindsight_is_that_of_the_day(paper_site: PaperSite) -> None:
    terms = Terms(("x",), "y", "us", 1e5, 1, HALTED, START)
    whole = paper_site.markets()
    for row in (DAYS.index(START), LAST_BAR - 1, LAST_BAR + 1):
        day = first_day(whole.at(DAYS[row]), terms)
        on_time = paper_site.markets(row).at(DAYS[row])
        assert on_time.view.todays[0].day == DAYS[row]
        assert first_day(on_time, terms) == day


def test_a_day_that_is_no_session_is_refused(paper_site: PaperSite) -> None:
    with pytest.raises(DataError, match="no session of 1999-01-04"):
        paper_site.markets().at(date(1999, 1, 4))
