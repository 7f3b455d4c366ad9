"""Other futures agree in all that was known at the close of a day, and differ after it."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.store import MEMBERSHIP_SCHEMA, RawData
from hrl_sarp.studies.audit.futures import FUTURES, Future, corrupt, delist, split_later, truncate
from tests import raw_data
from tests.causality import audited

DAY = np.datetime64("2007-03-30")
TODAY = DAY.item()
RAW_PRICES = ("open", "high", "low", "close", "volume", "dividend", "split")


@pytest.fixture(scope="module")
def raw() -> RawData:
    return audited.raw_with_reports(np.random.default_rng(0))


@pytest.mark.parametrize("future", FUTURES, ids=lambda future: future.name)
def test_bars_and_reports_that_were_known_stay(raw: RawData, future: Future) -> None:
    changed = future.change(raw, DAY)
    known, other = (
        data.bars.filter(pl.col("date") <= TODAY).select("date", "symbol", *RAW_PRICES)
        for data in (raw, changed)
    )
    assert other.equals(known)
    public = pl.col("known_at") < TODAY  # a value is seen from the session after known_at on
    assert raw.own_features is not None
    assert changed.own_features is not None
    known, other = (own.filter(public) for own in (raw.own_features, changed.own_features))
    assert other.equals(known)


def test_a_corrupted_future_has_other_numbers_in_every_column_and_bars_that_could_be(
    raw: RawData,
) -> None:
    before, after = (
        bars.filter((pl.col("date") > TODAY) & (pl.col("symbol") == "A0"))
        for bars in (raw.bars, corrupt(raw, DAY).bars)
    )
    for name in ("open", "high", "low", "close", "adj_close", "volume"):
        assert (before[name] != after[name]).all(), name
    assert (after["high"] >= after.select(pl.max_horizontal("open", "close")).to_series()).all()
    assert (after["low"] <= after.select(pl.min_horizontal("open", "close")).to_series()).all()
    moved = (after["close"] / before["close"]).log().diff().drop_nulls()
    assert float(moved.std() or 0) == pytest.approx(0.02 * 2**0.5, rel=0.2)  # two walks of 2 %


def test_a_third_of_the_stocks_end(raw: RawData) -> None:
    last = delist(raw, DAY).bars.group_by("symbol").agg(pl.max("date")).sort("symbol")
    ended = last.filter(pl.col("date") <= TODAY)["symbol"].to_list()
    # A2 has left by itself before
    assert ended == ["A1", "A2", "A4", "B1", "B4", "G1", "G4"]


def test_a_later_split_halves_prices_and_adjusts_the_past(raw: RawData) -> None:
    before, after = (
        bars.filter(pl.col("symbol") == "A0").sort("date")
        for bars in (raw.bars, split_later(raw, DAY).bars)
    )
    later = (before["date"] > TODAY).to_numpy()
    first = int(np.argmax(later))
    np.testing.assert_array_equal(after["close"] / before["close"], np.where(later, 0.5, 1.0))
    np.testing.assert_array_equal(after["adj_close"] / before["adj_close"], np.where(later, 1, 0.5))
    stated = (after["split"] / before["split"]).to_numpy()
    assert stated[first] == 2.0
    assert np.delete(stated, first).tolist() == [1.0] * (len(stated) - 1)


def test_who_joins_or_leaves_later_is_forgotten(raw: RawData) -> None:
    rows = [
        ("A0", date(2005, 1, 3), date(2006, 1, 3)),  # has left
        ("A1", date(2005, 1, 3), date(2007, 5, 1)),  # will leave
        ("A2", date(2007, 5, 1), None),  # will join
    ]
    members = pl.DataFrame(rows, schema=MEMBERSHIP_SCHEMA, orient="row")
    known = truncate(RawData(**{**vars(raw), "membership": members}), DAY).membership
    assert known is not None
    assert known.rows() == [rows[0], (*rows[1][:2], None)]


def test_values_that_were_not_printed_are_those_of_the_release_calendar() -> None:
    raw = raw_data.random_raw(np.random.default_rng(0), audited.N_DAYS)
    (future,) = (future for future in FUTURES if future.name == "not printed yet")
    changed = future.change(raw, DAY).macro
    moved = changed.filter(changed["value"] != raw.macro["value"])
    first = dict(moved.group_by("series").agg(pl.min("date")).iter_rows())
    # VIX is printed at the close, gold a session later, the policy rate 60 days after its month
    assert first["VIX"] > TODAY
    assert first["GOLD"] == TODAY
    assert first["FEDFUNDS"] == date(2007, 2, 1)
