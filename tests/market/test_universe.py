"""The yearly choice of stocks and their places."""

import datetime

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.market_schema import UniverseConfig
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.market.universe import choose_slots, membership_mask, year_starts

CONFIG = UniverseConfig(stocks_per_sector=2, lookback_days=4, min_bars=3)
DATES = np.array(
    [f"2000-12-{day:02d}" for day in (26, 27, 28, 29)]
    + ["2001-01-02", "2001-01-03", "2001-12-28", "2001-12-31", "2002-01-02", "2002-01-03"],
    dtype="datetime64[D]",
)


def _tables(dollars: np.ndarray, *, has_volume: bool = True) -> PricePanel:
    """One sector of four stocks and an empty second one; 0 dollars mean no bar."""
    present = dollars > 0
    last = len(dollars) - 1 - present[::-1].argmax(axis=0)
    listed = np.arange(len(dollars))[:, None] <= last
    zeros = np.zeros(dollars.shape)
    return PricePanel(
        dates=DATES,
        symbols=("A", "B", "C", "D"),
        sector_of=np.zeros(4, dtype=np.int64),
        n_sectors=2,
        overnight_return=zeros,
        intraday_return=zeros,
        printed=present,
        tradable=present,
        listed=listed,
        high_to_close=zeros,
        low_to_close=zeros,
        dollar_volume=np.where(present, dollars if has_volume else 0.0, np.nan),
        columns=frozenset({"close", "volume"} if has_volume else {"close"}),
    )


@pytest.fixture
def dollars() -> np.ndarray:
    table = np.tile([10.0, 30.0, 20.0, 40.0], (len(DATES), 1))
    table[:2, 3] = 0.0  # D lacks bars in the first look-back
    return table


def _chosen(dollars: np.ndarray, **options: bool) -> np.ndarray:
    tables = _tables(dollars, **options)
    return choose_slots(tables, np.ones(dollars.shape, dtype=bool), CONFIG)


def test_year_starts_are_the_first_sessions_of_later_years() -> None:
    assert year_starts(DATES).tolist() == [4, 8]


def test_the_most_traded_with_enough_bars_are_chosen_each_year(dollars: np.ndarray) -> None:
    slots = _chosen(dollars)
    assert (slots[:4] == -1).all()  # no universe before the first choice
    assert slots[4].tolist() == [1, 2, -1, -1]  # B, C; the second sector has no stocks
    assert slots[8].tolist() == [1, 3, -1, -1]  # D has bars now; B keeps its place


def test_the_choice_reads_sessions_before_it_only(dollars: np.ndarray) -> None:
    changed = dollars.copy()
    changed[4:8, 0] = 1e9
    np.testing.assert_array_equal(_chosen(changed)[4:8], _chosen(dollars)[4:8])
    assert 0 in _chosen(changed)[8]


def test_one_spike_does_not_make_a_stock_most_traded(dollars: np.ndarray) -> None:
    changed = dollars.copy()
    changed[1, 0] = 1e9  # the median of four days does not see it
    np.testing.assert_array_equal(_chosen(changed)[4], _chosen(dollars)[4])


def test_a_leaver_empties_its_slot_until_the_next_choice(dollars: np.ndarray) -> None:
    changed = dollars.copy()
    changed[6:, 1] = 0.0
    slots = _chosen(changed)
    assert slots[5].tolist() == [1, 2, -1, -1]
    assert slots[6].tolist() == [-1, 2, -1, -1]
    assert slots[8].tolist() == [3, 2, -1, -1]  # D takes the free place, C stays


def test_without_volume_stocks_with_enough_bars_come_in_symbol_order(dollars: np.ndarray) -> None:
    assert _chosen(dollars, has_volume=False)[4].tolist() == [0, 1, -1, -1]


def test_membership_bounds_who_may_be_bought(dollars: np.ndarray) -> None:
    tables = _tables(dollars)
    membership = pl.DataFrame(
        {
            "symbol": ["B", "C", "ELSEWHERE"],
            "start": [datetime.date(2000, 1, 1), datetime.date(2001, 1, 2), None],
            "end": [datetime.date(2001, 1, 2), None, None],
        }
    )
    mask = membership_mask(tables, membership)
    slots = choose_slots(tables, mask, CONFIG)
    assert not mask[:, [0, 3]].any()
    assert slots[4].tolist() == [1, 2, -1, -1]
    assert slots[5].tolist() == [-1, 2, -1, -1]  # B was expelled
