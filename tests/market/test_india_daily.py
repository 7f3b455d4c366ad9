"""The nse profile on real data, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market
from hrl_sarp.data.sources.files import folder as files
from hrl_sarp.market.assemble import assemble_market

SPLITS = {
    "SBIN": "2014-11-20",
    "TITAN": "2011-06-23",
    "INFY": "2018-09-04",
    "RELIANCE": "2017-09-07",
    "TCS": "2018-05-31",
    "HDFCBANK": "2019-09-19",
    "WIPRO": "2019-03-06",
}
HOLES = ("GAIL", "INDUSINDBK", "KOTAKBANK", "SHREECEM")


@pytest.fixture(scope="module")
def market(data_folder: Path) -> Market:
    folder = data_folder / "india_daily"
    if not folder.is_dir():
        pytest.skip("the data folder has no india_daily")
    config = load_config(market="nse")
    assert config.data.named_tables is not None
    return assemble_market(files.load(folder, None, config.data.named_tables), config)


def row(market: Market, day: str) -> int:
    found = int(np.searchsorted(market.dates, np.datetime64(day)))
    assert str(market.dates[found]) == day
    return found


def total_return(market: Market) -> np.ndarray:
    return (1 + market.overnight_return) * (1 + market.intraday_return) - 1


def test_ten_of_eleven_sectors_are_served_and_realty_is_empty(market: Market) -> None:
    filled = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1).sum(axis=2)
    last = dict(zip(market.sector_names, filled[-1].tolist(), strict=True))
    assert last == {
        "IT": 5,
        "Financials": 9,
        "Auto": 6,
        "Pharma": 3,
        "FMCG": 6,
        "Energy": 7,
        "Metals": 6,  # with UPL
        "Realty": 0,
        "Media": 1,
        "Telecom": 1,
        "Infra": 5,
    }
    assert market.manifest["sectors_without_stocks"] == ["Realty"]
    assert market.n_assets == 49
    assert str(market.dates[0]) == "2002-01-01"


def test_a_split_is_no_loss_and_its_day_is_still_earned(market: Market) -> None:
    for symbol, day in SPLITS.items():
        t, column = row(market, day), market.symbols.index(symbol)
        assert market.overnight_return[t, column] == 0.0
        assert market.tradable[t, column]
        # the largest of these days is TITAN's, +9 % from open to close
        assert 0.0 < abs(market.intraday_return[t, column]) < 0.1


def test_no_night_of_a_split_is_left_and_crashes_are(market: Market) -> None:
    earned = total_return(market)
    falls = {
        (str(market.dates[t]), market.symbols[column])
        for t, column in zip(*np.nonzero(earned < -0.22), strict=True)
    }
    # a stock's first day, a warning, a demerger without a record, a promoter's pledge, two panics
    assert falls == {
        ("2003-04-10", "INFY"),
        ("2004-05-17", "GAIL"),
        ("2006-01-18", "RELIANCE"),
        ("2008-01-21", "VEDL"),
        ("2008-05-26", "BAJAJ-AUTO"),
        ("2019-01-25", "ZEEL"),
    }


def test_stocks_with_the_long_hole_enter_after_a_full_year(market: Market) -> None:
    columns = [market.symbols.index(symbol) for symbol in HOLES]
    year = market.dates.astype("datetime64[Y]").astype(int) + 1970
    assert not market.eligible[year == 2002][:, columns].any()
    assert market.eligible[year == 2003][:, columns].all()


def test_weekend_sessions_are_traded_and_end_their_week(market: Market) -> None:
    budget = row(market, "2015-02-28")  # Saturday
    assert market.tradable[budget].all()
    assert market.is_week_end[budget]
    assert not market.is_week_end[budget - 1]  # Friday
    evening = row(market, "2016-10-30")  # Sunday
    assert market.is_week_end[evening]
    assert not market.is_week_end[evening - 1]
    # the week whose Friday became a holiday ends on Thursday
    assert market.is_week_end[row(market, "2013-11-14")]


def test_every_week_ends_once(market: Market) -> None:
    week = (market.dates.astype("datetime64[D]").astype(np.int64) + 3) // 7
    # the data stop on Tuesday, 31 December 2019: that week has no end
    np.testing.assert_array_equal(week[market.is_week_end], np.unique(week)[:-1])


def test_flows_are_known_a_session_later_and_absent_before_2007(market: Market) -> None:
    year = market.dates.astype("datetime64[Y]").astype(int) + 1970
    for name in ("foreign_flow_60d", "domestic_flow_60d"):
        flow = market.macro_features[:, market.macro_names.index(name)]
        assert not flow[year < 2007].any()
        assert np.abs(flow[year > 2007]).mean() > 0.5
    # first value: 2 April 2007; a z-score needs five of them
    foreign = market.macro_features[:, market.macro_names.index("foreign_flow_60d")]
    assert str(market.dates[np.flatnonzero(foreign)[0]]) > "2007-04-02"


def test_index_and_cash_are_what_the_manifest_says(market: Market) -> None:
    year = market.dates.astype("datetime64[Y]").astype(int) + 1970
    # the NIFTY 50 closed 2007 at 6138.6 and 2008 at 2959.15
    lost = (1 + market.benchmark_return[year == 2008]).prod() - 1
    assert lost == pytest.approx(2959.15 / 6138.60 - 1, abs=1e-4)
    assert not market.risk_free.any()
    assert market.manifest["risk_free"] == "0: the data hold no FEDFUNDS"


def test_costs_are_the_statutory_ones() -> None:
    costs = load_config(market="nse").market_profile.costs
    # transaction tax 0.1 %, exchange 0.00325 %, regulator 0.0001 %, 18 % tax on the exchange's fee,
    # stamp duty 0.015 % on purchases
    sell = 10.0 + 0.325 * 1.18 + 0.01
    assert costs.sell_bps == pytest.approx(sell, abs=0.01)
    assert costs.buy_bps == pytest.approx(sell + 1.5, abs=0.01)
    assert costs.slippage_bps == 5.0
