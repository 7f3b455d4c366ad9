"""The planted market: its formula, its moments, its clock and its seed."""

from dataclasses import replace
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import SyntheticConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.quality import validation
from hrl_sarp.data.sources import synthetic
from hrl_sarp.data.sources.synthetic import SyntheticTruth, sector_tilts
from hrl_sarp.data.store import BARS_SCHEMA, FEATURES_SCHEMA, RawData
from hrl_sarp.errors import DataError

DEFAULTS = load_config().data.synthetic


def make(**changes: Any) -> tuple[SyntheticConfig, RawData, SyntheticTruth]:
    config = DEFAULTS.model_copy(update={"n_noise_features": 2} | changes)
    sessions = first_sessions("24/5", config.start, config.n_days)
    return config, *synthetic.generate(config, sessions)


@pytest.fixture(scope="module")
def market() -> tuple[SyntheticConfig, RawData, SyntheticTruth]:
    return make()


def to_array(raw: RawData, column: str, truth: SyntheticTruth) -> np.ndarray:
    """Return a bar column as (T, A); bars are sorted by symbol, then date."""
    return raw.bars[column].to_numpy().reshape(len(truth.symbols), -1).T


def test_tables_keep_their_schema_and_order(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth],
) -> None:
    config, raw, truth = market
    assert raw.bars.schema == BARS_SCHEMA
    assert raw.features is not None
    assert raw.features.schema == FEATURES_SCHEMA
    assert raw.bars.height == config.n_days * 99
    assert_frame_equal(raw.bars, raw.bars.sort("symbol", "date"))
    assert raw.sectors["sector"].unique(maintain_order=True).to_list() == [
        f"Sector{number:02d}" for number in range(11)
    ]
    assert truth.symbols == tuple(raw.sectors["symbol"])


def test_overnight_share_of_every_log_return_is_exact(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth],
) -> None:
    config, raw, truth = market
    opening, close = to_array(raw, "open", truth), to_array(raw, "close", truth)
    overnight = np.log(opening[1:] / close[:-1])
    np.testing.assert_allclose(overnight, config.overnight_share * truth.log_return[1:], atol=1e-12)
    np.testing.assert_allclose(np.diff(np.log(close), axis=0), truth.log_return[1:], atol=1e-12)


def test_return_of_a_day_earns_the_signal_of_the_day_before_only(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth],
) -> None:
    config, _, truth = market
    beta = config.alpha_strength * config.idiosyncratic_sd_pct / 100
    # within a sector the factors cancel, so the slope on x(t-1) is beta
    stocks = (config.n_days, config.n_sectors, config.stocks_per_sector)
    active = truth.log_return.reshape(stocks)
    active = active - active.mean(axis=2, keepdims=True)
    signal = truth.signal.reshape(stocks)
    past = signal[:-1] - signal[:-1].mean(axis=2, keepdims=True)
    slope = (active[1:] * past).sum() / (past**2).sum()
    # standard error: 1.5 % / sqrt(4000 x 99 x 8 / 9) = 0.0025 %; beta is 0.15 %
    assert slope == pytest.approx(beta, abs=4 * 2.6e-5)
    # what is left after the true signal does not correlate with the signal of the same day's close
    rest = active[1:] - beta * past
    news = signal[1:] - config.signal_autocorrelation * signal[:-1]
    assert abs(np.corrcoef(rest.ravel(), news.ravel())[0, 1]) < 4 / np.sqrt(rest.size)


def test_signal_is_a_unit_autoregression(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth],
) -> None:
    config, _, truth = market
    # effective sample of an AR(1) with 0.9: 396,000 x 0.1 / 1.9 = 20,800, so se of the sd is 0.005
    assert truth.signal.std() == pytest.approx(1.0, abs=0.02)
    lagged = np.corrcoef(truth.signal[1:].ravel(), truth.signal[:-1].ravel())[0, 1]
    assert lagged == pytest.approx(config.signal_autocorrelation, abs=0.005)


def test_planted_feature_is_the_signal_and_noise_is_noise(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth],
) -> None:
    _, raw, truth = market
    assert raw.features is not None
    names = raw.features["name"].unique(maintain_order=True).to_list()
    assert names == ["planted_signal", "noise_01", "noise_02"]
    planted = raw.features.filter(pl.col("name") == "planted_signal")
    np.testing.assert_array_equal(
        planted["value"].to_numpy().reshape(len(truth.symbols), -1).T, truth.signal
    )
    noise = raw.features.filter(pl.col("name") == "noise_01")["value"].to_numpy()
    # 396,000 draws: se 0.0016 of the mean, 0.0011 of the deviation
    assert noise.mean() == pytest.approx(0, abs=0.007)
    assert noise.std() == pytest.approx(1, abs=0.005)


def test_regime_changes_only_between_iso_weeks_and_stays_as_often_as_told() -> None:
    _, _, truth = make(n_days=20_000, n_sectors=3, stocks_per_sector=1, n_noise_features=0)
    weeks = [day.isocalendar()[:2] for day in truth.dates.tolist()]
    starts = [now != before for before, now in pairwise(weeks)]
    np.testing.assert_array_equal(np.diff(truth.week_of), np.array(starts, dtype=int))
    stays = np.mean(truth.regime[1:] == truth.regime[:-1])
    assert stays == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))
    assert set(truth.regime) == set(Regime)


@pytest.mark.parametrize("regime", list(Regime))
def test_sector_and_market_moves_have_the_planted_moments(
    market: tuple[SyntheticConfig, RawData, SyntheticTruth], regime: Regime
) -> None:
    config, raw, truth = market
    is_regime = truth.regime[truth.week_of] == regime
    days = is_regime.sum()
    factor = np.diff(np.log(raw.index["close"].to_numpy()), prepend=np.log(100.0))[is_regime]
    sd = config.market_sd_pct[regime] / 100
    assert factor.mean() == pytest.approx(
        config.market_mean_bps[regime] / 1e4, abs=4 * sd / days**0.5
    )
    assert factor.std() == pytest.approx(sd, rel=4 / (2 * days) ** 0.5)
    stocks = truth.log_return[is_regime].reshape(days, config.n_sectors, -1).mean(axis=2)
    active = (stocks - factor[:, None]).mean(axis=0) + (config.idiosyncratic_sd_pct / 100) ** 2 / 2
    planted = config.sector_drift_bps / 1e4 * truth.sector_tilt[regime]
    # sd of a sector's active move: 0.8 % and 1.5 % / 3 from nine stocks, 0.94 %; the signal's
    # slow mean adds 0.15 % / 3 x sqrt(19)
    np.testing.assert_allclose(active, planted, atol=4.5 * 0.0097 / days**0.5)


def test_tilts_of_eleven_sectors_are_those_of_the_specification() -> None:
    expected = np.zeros((3, 11))
    expected[Regime.BEAR, :3], expected[Regime.BEAR, 8:] = 1, -1
    expected[Regime.BULL, :3], expected[Regime.BULL, 8:] = -1, 1
    expected[Regime.SIDEWAYS, 4:7], expected[Regime.SIDEWAYS, [0, 1, 9]] = 1, -1
    np.testing.assert_array_equal(sector_tilts(11), expected)


@pytest.mark.parametrize("n_sectors", range(3, 23))
def test_tilts_favour_as_many_sectors_as_they_punish(n_sectors: int) -> None:
    tilt = sector_tilts(n_sectors)
    np.testing.assert_array_equal(tilt.sum(axis=1), 0)
    assert (np.abs(tilt).max(axis=1) == 1).all()


def test_same_seed_same_bits_other_seed_other_market() -> None:
    small = {"n_days": 30, "n_sectors": 3, "stocks_per_sector": 2}
    _, first, _ = make(**small)
    _, again, _ = make(**small)
    _, other, _ = make(**small, seed=1)
    assert_frame_equal(first.bars, again.bars)
    assert first.features is not None
    assert again.features is not None
    assert_frame_equal(first.features, again.features)
    assert not first.bars["close"].equals(other.bars["close"])


def test_synthetic_market_has_no_finding_on_its_calendar() -> None:
    config = load_config()
    section = config.data.synthetic.model_copy(update={"n_days": 300, "n_noise_features": 0})
    raw, _ = synthetic.generate(section, first_sessions("XNYS", section.start, 300))
    assert validation.validate(raw, config.data.validation, "XNYS").table.is_empty()


def test_fewer_than_three_sectors_are_refused() -> None:
    with pytest.raises(DataError, match=r"n_sectors: expected at least 3, found 2"):
        make(n_sectors=2)


def test_calendar_that_ends_too_early_is_refused() -> None:
    sessions = first_sessions("24/5", date(2000, 1, 3), 10)
    with pytest.raises(DataError, match="has 10 sessions"):
        synthetic.generate(DEFAULTS, sessions)


def test_truth_is_frozen() -> None:
    _, _, truth = make(n_days=10, n_sectors=3, stocks_per_sector=1)
    with pytest.raises(AttributeError):
        truth.regime = truth.regime  # type: ignore[misc]  # the assignment under test
    assert replace(truth, symbols=truth.symbols).symbols == truth.symbols
