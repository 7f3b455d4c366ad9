"""Training arrays: aligned by date, earned after the row, honest about what is missing."""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import CheckpointError, DataError, MissingArtifactError
from hrl_sarp.features.labels import stock_label
from hrl_sarp.market.sector_table import market_fingerprint, write_sector_table
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


def test_arrays_are_read_by_name_too(loader: TrainingDataLoader) -> None:
    days = loader.load_micro_training_data("2006-06-01", "2006-06-30")
    names = ["stock_features", "stock_returns", "stock_to_sector", "stock_masks", "goals", "dates"]
    assert list(days.keys()) == names
    assert all(days[name] is getattr(days, name) for name in names)
    assert days["masks"] is days.stock_masks
    assert dict(days.items()).keys() == set(names)
    with pytest.raises(KeyError, match=r"'prices': expected one of stock_features"):
        days["prices"]


def test_sector_embeddings_are_those_that_phase_1_wrote_for_this_market(
    loader: TrainingDataLoader, tmp_path: Path
) -> None:
    loader = TrainingDataLoader.of(loader.market, loader.config)
    loader.log_dir = tmp_path
    days = ("2006-06-01", "2006-12-31")
    assert loader.load_macro_training_data(*days)["sector_embeddings"] is None
    market = loader.market
    table = np.random.default_rng(1).normal(size=(market.n_days, 3, 4)).astype(np.float32)
    path = tmp_path / "pretrain_macro" / "sector_graph.pt"
    write_sector_table(path, market, market_fingerprint(market), table)
    weeks = loader.load_macro_training_data(*days)
    rows = np.searchsorted(market.dates, weeks.dates)
    np.testing.assert_array_equal(weeks["sector_embeddings"], table[rows])
    write_sector_table(path, market, "another market", table)
    assert loader.load_macro_training_data(*days).sector_embeddings is None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"sector_graph\.pt"):
        loader.load_macro_training_data(*days)


def test_without_data_the_loader_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingArtifactError, match=r"data/raw/manifest\.json.*collect-data"):
        TrainingDataLoader()
