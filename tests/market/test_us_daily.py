"""The us profile on real data, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market
from hrl_sarp.data.sources.files import folder
from hrl_sarp.market.assemble import assemble_market

DEFECTS = {
    "ZBRA": ("2003-08-21", "2004-08-25"),
    "TRMB": ("2007-02-23", "2007-02-26"),
    "HBI": ("2015-03-04",),
}


@pytest.fixture(scope="module")
def market(data_folder: Path) -> Market:
    if not (data_folder / "us_daily").is_dir():
        pytest.skip("the data folder has no us_daily")
    raw = folder.load(data_folder / "us_daily", data_folder / "us_macro")
    return assemble_market(raw, load_config(market="us"))


def test_every_sector_is_served_from_2001(market: Market) -> None:
    assert market.dates[0] == np.datetime64("2001-01-02")
    filled = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1)
    assert filled.any(axis=2).all()
    assert market.n_slots == 99
    assert filled.sum(axis=(1, 2)).min() >= 97


def test_named_defects_are_not_in_the_returns(market: Market) -> None:
    total = (1 + market.overnight_return) * (1 + market.intraday_return) - 1
    for symbol, days in DEFECTS.items():
        if symbol not in market.symbols:
            continue
        column = market.symbols.index(symbol)
        for day in days:
            row = int(np.searchsorted(market.dates, np.datetime64(day)))
            assert not market.tradable[row, column]
            assert np.abs(total[row : row + 3, column]).max() < 0.1


def test_the_moves_beyond_60_percent_that_stay_are_real(market: Market) -> None:
    total = (1 + market.overnight_return) * (1 + market.intraday_return) - 1
    found = {
        (str(market.dates[row]), market.symbols[column])
        for row, column in zip(*np.nonzero(np.abs(total) > 0.60), strict=True)
    }
    # the autumn of 2008, an airline's earnings, a bank's stress test
    assert found <= {
        ("2008-07-22", "UAL"),
        ("2008-10-13", "MS"),
        ("2008-10-29", "LVS"),
        ("2009-02-06", "FITB"),
    }


def test_a_split_and_a_spin_off_are_no_crash(market: Market) -> None:
    total = (1 + market.overnight_return) * (1 + market.intraday_return) - 1
    for symbol, day in (("AAPL", "2014-06-09"), ("C", "2011-05-09"), ("NFLX", "2015-07-15")):
        if symbol in market.symbols:
            row = int(np.searchsorted(market.dates, np.datetime64(day)))
            assert abs(total[row, market.symbols.index(symbol)]) < 0.12


def test_cash_and_index_earned_what_they_did(market: Market) -> None:
    year = market.dates.astype("datetime64[Y]").astype(int) + 1970
    # FEDFUNDS averaged 5.0 % in 2007 and 0.1 % in 2014
    assert (1 + market.risk_free[year == 2007]).prod() - 1 == pytest.approx(0.0515, abs=0.003)
    assert market.risk_free[year == 2014].sum() < 0.002
    # the S&P 500 lost 37 % with dividends in 2008; equal weights over sectors lose about as much
    assert (1 + market.benchmark_return[year == 2008]).prod() - 1 == pytest.approx(-0.37, abs=0.05)
