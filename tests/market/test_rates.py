"""Cash, benchmark and published series."""

import datetime

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.market.rates import benchmark_returns, risk_free_returns, unread_series

DATES = np.array(["2010-01-29", "2010-02-01", "2010-02-02"], dtype="datetime64[D]")
NO_FINDINGS = FINDINGS_SCHEMA.to_frame()


def _macro(*rows: tuple[str, str, float]) -> pl.DataFrame:
    table = [(datetime.date.fromisoformat(day), series, value) for day, series, value in rows]
    return pl.DataFrame(table, schema=MACRO_SCHEMA, orient="row")


def _raw(macro: pl.DataFrame, index: pl.DataFrame | None = None) -> RawData:
    return RawData(
        bars=pl.DataFrame(schema=BARS_SCHEMA),
        sectors=pl.DataFrame(schema=SECTORS_SCHEMA),
        macro=macro,
        index=pl.DataFrame(schema=INDEX_SCHEMA) if index is None else index,
        source="files",
        adjustment="",
        survivorship="",
    )


@pytest.fixture
def prices() -> PricePanel:
    overnight = np.array([[0.0, 0.0, 0.0], [0.01, 0.03, 0.5], [0.02, 0.0, 0.5]])
    everything = np.ones((3, 3), dtype=bool)
    zeros = np.zeros((3, 3))
    return PricePanel(
        dates=DATES,
        symbols=("A", "B", "C"),
        sector_of=np.zeros(3, dtype=np.int64),
        n_sectors=1,
        overnight_return=overnight,
        intraday_return=zeros,
        printed=everything,
        tradable=everything,
        listed=everything,
        high_to_close=zeros,
        low_to_close=zeros,
        dollar_volume=zeros,
        columns=frozenset({"close"}),
    )


def test_cash_earns_the_rate_of_the_month_before_over_calendar_days() -> None:
    macro = _macro(
        ("2009-12-01", "FEDFUNDS", 3.6),
        ("2010-01-01", "FEDFUNDS", 7.2),
        ("2010-02-01", "FEDFUNDS", 99.0),
    )
    found, text = risk_free_returns(macro, DATES)
    # from Friday to Monday 3 days, then 1 day, both in February: 7.2 % of January, over 360
    np.testing.assert_allclose(found, [0.0, 0.072 * 3 / 360, 0.072 / 360])
    assert "FEDFUNDS" in text


def test_without_a_policy_rate_cash_earns_the_bill_rate_of_the_day_before() -> None:
    macro = _macro(("2010-01-28", "IRX", 3.6), ("2010-01-30", "IRX", 7.2), ("2010-02-02", "IRX", 9))
    found, text = risk_free_returns(macro, DATES)
    # Friday to Monday: 3 days at the 7.2 % of Saturday, over 360; then 1 day at the same rate
    np.testing.assert_allclose(found, [0.0, 0.072 * 3 / 360, 0.072 / 360])
    assert text == "IRX of the day before, ACT/360"


def test_the_policy_rate_goes_before_the_bill_rate() -> None:
    macro = _macro(("2009-12-01", "FEDFUNDS", 3.6), ("2010-01-28", "IRX", 99.0))
    assert risk_free_returns(macro, DATES)[1] == "FEDFUNDS of the month before, ACT/360"


def test_cash_earns_nothing_and_says_so_without_a_rate() -> None:
    found, text = risk_free_returns(_macro(), DATES)
    assert not found.any()
    assert "no FEDFUNDS" in text


def test_the_index_of_the_data_comes_first(prices: PricePanel) -> None:
    index = pl.DataFrame({"date": DATES, "close": [100.0, 110.0, 99.0]}, schema=INDEX_SCHEMA)
    found, text = benchmark_returns(
        _raw(_macro(), index), prices, np.array([[0, 1]] * 3), NO_FINDINGS
    )
    np.testing.assert_allclose(found, [0.0, 0.1, -0.1])
    assert text == "index of the data set"


def test_index_earns_nothing_over_a_level_that_validation_found_wrong(prices: PricePanel) -> None:
    index = pl.DataFrame({"date": DATES, "close": [100.0, 9.0, 9.9]}, schema=INDEX_SCHEMA)
    jump = pl.DataFrame(
        [{"symbol": "index", "date": DATES[1].item(), "rule": "index_jump", "count": 1}],
        schema=FINDINGS_SCHEMA,
    )
    found, _ = benchmark_returns(_raw(_macro(), index), prices, np.array([[0, 1]] * 3), jump)
    np.testing.assert_allclose(found, [0.0, 0.0, 0.1])  # not -91 % at a change of base


def test_index_that_begins_late_and_ends_early_is_equal_weight_there(prices: PricePanel) -> None:
    slots = np.array([[0, 1]] * 3)
    late = pl.DataFrame({"date": DATES[1:], "close": [100.0, 90.0]}, schema=INDEX_SCHEMA)
    found, text = benchmark_returns(_raw(_macro(), late), prices, slots, NO_FINDINGS)
    # Monday: stocks A and B earn 1 % and 3 %; Tuesday the index has its first return
    np.testing.assert_allclose(found, [0.0, 0.02, -0.1])
    assert "1/N of the eligible stocks in 1 sessions" in text
    early = pl.DataFrame({"date": DATES[:2], "close": [100.0, 90.0]}, schema=INDEX_SCHEMA)
    found, _ = benchmark_returns(_raw(_macro(), early), prices, slots, NO_FINDINGS)
    np.testing.assert_allclose(found, [0.0, -0.1, 0.01])


def test_without_an_index_the_eligible_of_the_day_before_count_equally(prices: PricePanel) -> None:
    slots = np.array([[0, 1], [1, -1], [2, 2]])
    found, _ = benchmark_returns(_raw(_macro()), prices, slots, NO_FINDINGS)
    np.testing.assert_allclose(found, [0.0, 0.02, 0.0])


def test_nine_sector_funds_replace_equal_weights_where_they_exist(prices: PricePanel) -> None:
    rows = [
        (str(day), f"ETF_{fund}", 100.0 * (1 + 0.01 * fund) ** step)
        for fund in range(9)
        for step, day in enumerate(DATES[1:])
    ]
    found, text = benchmark_returns(
        _raw(_macro(*rows)), prices, np.array([[0, 1]] * 3), NO_FINDINGS
    )
    # the funds' first return is on the last day: mean of 0 % to 8 %
    np.testing.assert_allclose(found, [0.0, 0.02, 0.04])
    assert "sector funds from 2010-02-02" in text


def test_eight_funds_are_not_the_market(prices: PricePanel) -> None:
    rows = [(str(day), f"ETF_{fund}", 100.0) for fund in range(8) for day in DATES]
    found, text = benchmark_returns(
        _raw(_macro(*rows)), prices, np.array([[0, 1]] * 3), NO_FINDINGS
    )
    np.testing.assert_allclose(found, [0.0, 0.02, 0.01])
    assert "1/N" in text


@pytest.mark.parametrize("n_unread", [0, 1, 2, 8, 9, 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_series_that_no_feature_reads_are_named_in_one_line(n_unread: int, seed: int) -> None:
    unread = [f"S{number:02d}" for number in range(n_unread)]
    served = ["VIX", "DGS10", "FEDFUNDS", "IRX", "ETF_XLK"]
    names = np.random.default_rng(seed).permutation([*unread, *served]).tolist()
    told = unread_series(_macro(*(("2010-01-29", name, 1.0) for name in names)), {"VIX", "DGS10"})
    assert len(told) == (n_unread > 0)
    for line in told:
        assert f"reads {', '.join(unread[:8])}" in line
        assert (f"and {n_unread - 8} more" in line) == (n_unread > 8)
        assert not [name for name in served if name in line]
