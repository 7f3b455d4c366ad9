"""Training arrays: aligned by date, earned after the row, honest about what is missing."""

import numpy as np
import pytest

from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import DataError
from hrl_sarp.features.labels import stock_label
from hrl_sarp.market.training_data import TrainingDataLoader
from tests import raw_data

N_DAYS = 700


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> TrainingDataLoader:
    folder = tmp_path_factory.mktemp("data") / "raw"
    write_raw(raw_data.random_raw(np.random.default_rng(0), N_DAYS), folder)
    return TrainingDataLoader(folder, "us", raw_data.small_config("us", N_DAYS))


def test_macro_rows_are_week_ends_with_next_weeks_returns(loader: TrainingDataLoader) -> None:
    data, market = loader.load_macro_training_data("2006-06-01", "2006-12-31"), loader.market
    assert data.macro_states.shape == (len(data.dates), 18)
    assert data.sector_returns.shape == (len(data.dates), 3)
    assert data.sector_embeddings is None  # phase 1 has not run
    first, second = (int(np.searchsorted(market.dates, day)) for day in data.dates[:2])
    assert market.is_week_end[first]
    np.testing.assert_array_equal(data.macro_states[0, :17], market.macro_features[first])
    assert not data.macro_states[:, 17].any()  # nobody has a portfolio yet, so no drawdown
    # by hand: each stock from the open after this week end to the open after the next
    wealth = np.ones(market.n_assets) * (1 + market.intraday_return[first + 1])
    for day in range(first + 2, second + 1):
        wealth *= (1 + market.overnight_return[day]) * (1 + market.intraday_return[day])
    wealth *= 1 + market.overnight_return[second + 1]
    members = market.eligible[first] & (market.sector_of == 0)
    assert data.sector_returns[0, 0] == pytest.approx((wealth[members] - 1).mean())


def test_micro_rows_carry_the_return_after_the_row(loader: TrainingDataLoader) -> None:
    data, market = loader.load_micro_training_data("2006-06-01", "2006-06-30"), loader.market
    row = int(np.searchsorted(market.dates, data.dates[0]))
    assert data.dates[0] == np.datetime64("2006-06-01")
    assert data.dates[-1] == np.datetime64("2006-06-30")
    np.testing.assert_array_equal(data.stock_features[0], market.stock_features[row])
    np.testing.assert_array_equal(data.stock_returns[0], stock_label(market, 1)[0][row])
    expected = (1 + market.intraday_return[row + 1]) * (1 + market.overnight_return[row + 2]) - 1
    np.testing.assert_allclose(data.stock_returns[0], expected, atol=1e-12)
    assert data.goals.shape == (len(data.dates), 3 + 3)
    np.testing.assert_allclose(data.goals[:, :3].sum(axis=1), 1.0)
    np.testing.assert_allclose(data.goals[:, 3:].sum(axis=1), 1.0, rtol=1e-5)
    assert (data.stock_masks <= market.tradable[row : row + len(data.dates)]).all()


def test_rows_without_a_complete_label_are_left_out(loader: TrainingDataLoader) -> None:
    data = loader.load_micro_training_data("2006-01-01", "2030-01-01")
    assert data.dates[-1] == loader.market.dates[-3]  # filled at the open of -2, valued at -1's
    assert np.isfinite(data.stock_returns).all()


@pytest.mark.parametrize("kind", ["macro", "micro"])
def test_an_empty_range_says_which_dates_exist(loader: TrainingDataLoader, kind: str) -> None:
    load = getattr(loader, f"load_{kind}_training_data")
    with pytest.raises(DataError, match=r"1990-01-01 and 1991-01-01; choose dates between 2006"):
        load("1990-01-01", "1991-01-01")
    with pytest.raises(DataError, match="expected YYYY-MM-DD"):
        load("last year", "2007-01-01")
