"""Bars of a market's stocks and their windows: equal to the market's returns, cut as documented."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.encoder_schema import PanelConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.data.bars import Bars
from hrl_sarp.data.store import read_raw
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.windows.panel import (
    NONE,
    complete_windows,
    panel_bars,
    panel_columns,
    panel_features,
    pretraining_windows,
    read_panel_bars,
    window_table,
)
from hrl_sarp.errors import DataError
from hrl_sarp.features.prices import build_panel
from tests import factories, raw_data
from tests.encoders import panels

KINDS: tuple[EncoderKind, ...] = ("jade", "transformer")


@pytest.fixture(scope="module")
def bars(panel_data: Path, panel_market: Market) -> Bars:
    return read_panel_bars(panel_data, panel_market, panels.small_config())


def panel_config(**changes: object) -> PanelConfig:
    return panels.small_config().encoders.panel.model_copy(update=changes)


def bars_on(sessions: list[list[int]]) -> Bars:
    """One stock per list, with a bar on each of these sessions; prices do not matter."""
    day = np.concatenate(sessions)
    price = np.ones(len(day))
    return Bars(
        timestamps=np.datetime64("2001-01-01", "us") + day * np.timedelta64(1, "D"),
        instrument=np.repeat(np.arange(len(sessions)), [len(s) for s in sessions]).astype(np.int32),
        instruments=tuple(f"S{i}" for i in range(len(sessions))),
        open=price,
        high=price,
        low=price,
        close=price,
        volume=None,
        content_hash="made by hand",
    )


def test_bars_move_as_the_market_does(bars: Bars, panel_market: Market) -> None:
    column = panel_market.symbols.index("A1")  # halted now and then
    own = bars.instrument == bars.instruments.index("A1")
    days = bars.timestamps[own].astype("datetime64[D]")
    late = days > panel_market.dates[0]
    rows = np.searchsorted(panel_market.dates, days[late])
    close, opening = bars.close[own], bars.open[own]
    np.testing.assert_array_equal(
        np.isin(panel_market.dates[1:], days), panel_market.tradable[1:, column]
    )
    np.testing.assert_allclose(
        close[late] / opening[late] - 1, panel_market.intraday_return[rows, column], atol=1e-12
    )
    before = close[np.flatnonzero(late) - 1]
    np.testing.assert_allclose(
        opening[late] / before - 1, panel_market.overnight_return[rows, column], atol=1e-12
    )


def test_highs_and_lows_lie_as_far_from_the_close_as_they_were_traded(
    bars: Bars, panel_data: Path
) -> None:
    raw = read_raw(panel_data).bars.filter(symbol="B0").sort("date")
    own = bars.instrument == bars.instruments.index("B0")
    for name in ("high", "low"):
        traded = (raw[name] / raw["close"]).to_numpy()
        np.testing.assert_allclose(getattr(bars, name)[own] / bars.close[own], traded, rtol=1e-12)


def test_stocks_that_are_never_eligible_are_there_too(bars: Bars, panel_market: Market) -> None:
    assert set(bars.instruments) > set(panel_market.symbols)


def test_with_closes_only_a_bar_opens_at_the_close_before_it() -> None:
    raw = raw_data.closes_only(raw_data.random_raw(np.random.default_rng(1), panels.N_DAYS))
    findings = raw.bars.select("symbol", "date").clear().with_columns(rule=None)
    panel = build_panel(raw, findings.cast({"rule": str}), ["Alpha", "Beta", "Gamma"])
    found = panel_bars(panel, "hash")
    own = found.instrument == 0
    close, opening = found.close[own], found.open[own]
    assert opening[0] == close[0]
    np.testing.assert_array_equal(opening[1:], close[:-1])
    np.testing.assert_array_equal(found.high[own], np.maximum(opening, close))
    np.testing.assert_array_equal(found.low[own], np.minimum(opening, close))
    assert found.volume is None


def test_bars_of_other_data_are_refused(panel_data: Path, panel_market: Market) -> None:
    other = replace(panel_market, overnight_return=panel_market.overnight_return + 1e-6)
    with pytest.raises(DataError, match=r"expected the bars that market us .* found others"):
        read_panel_bars(panel_data, other, panels.small_config())


def test_a_window_crosses_a_short_halt_but_no_long_one_and_no_other_stock() -> None:
    # sessions 0 to 11 exist, for stock 1 has a bar on each; stock 0 lacks 2, and 6 to 8
    found = complete_windows(
        bars_on([[0, 1, 3, 4, 5, 9, 10, 11], list(range(12))]),
        np.ones(20, dtype=bool),
        panel_config(window_length=3, max_missing_sessions=2),
        stride=1,
    )
    # stock 0: rows 0-4 are one stretch (one session missing), 5-7 the next (three missing)
    assert found.tolist() == [0, 1, 2, 5, *range(8, 18)]


def test_a_window_holds_no_bar_whose_features_are_not_known_yet() -> None:
    usable = np.array([False, False, True, True, True, True])
    config = panel_config(window_length=3, max_missing_sessions=2)
    assert complete_windows(bars_on([list(range(6))]), usable, config, stride=1).tolist() == [2, 3]


def test_windows_end_in_their_part_of_the_training_span_and_share_no_bar() -> None:
    bars = bars_on([list(range(40)), list(range(40))])
    market = factories.market_with(np.zeros((30, 2)), np.zeros((30, 2)), [0, 0])
    dates = np.unique(bars.timestamps).astype("datetime64[D]")[10:]  # ten sessions come before it
    split = Split(DayRange(0, 20), DayRange(21, 26), DayRange(27, 30))
    market = replace(market, dates=dates, split=split)
    config = panel_config(window_length=4, stride=2, val_share=0.5)
    found = pretraining_windows(bars, np.ones(80, dtype=bool), market, config)
    # rows of stock 0 are sessions; market row 0 is session 10. Windows end on odd sessions: 3, 5 ..
    # training ends on 11 to 19; validation begins from 20 on and ends by 29; the test begins from
    # 30 on and ends on sessions 31 to 35, so that only the window of 32 to 35 is left
    each = {"train": [8, 10, 12, 14, 16], "validation": [20, 22, 24, 26], "test": [30, 32]}
    for name, starts in each.items():
        assert getattr(found, name).tolist() == [*starts, *(40 + start for start in starts)]


def test_a_span_without_windows_is_refused() -> None:
    bars = bars_on([list(range(30))])
    market = factories.market_with(np.zeros((30, 1)), np.zeros((30, 1)), [0])
    market = replace(market, dates=np.unique(bars.timestamps).astype("datetime64[D]"))
    config = panel_config(window_length=20, stride=2)
    with pytest.raises(DataError, match="no train window of 20 sessions"):
        pretraining_windows(bars, np.ones(30, dtype=bool), market, config)


def test_only_stocks_in_a_slot_of_the_day_have_a_window(bars: Bars, panel_market: Market) -> None:
    config = panel_config()
    table = window_table(bars, np.ones(len(bars), dtype=bool), panel_market, config)
    assert table.shape == (panel_market.n_days, panel_market.n_assets)
    here = table != NONE
    assert not (here & ~(panel_market.eligible & panel_market.tradable)).any()
    # every stock in a slot has 240 bars behind it, so only halts are left without
    assert (here == (panel_market.eligible & panel_market.tradable)).all()
    day, stock = (axis[1000] for axis in np.nonzero(here))
    last = table[day, stock] + config.window_length - 1
    assert bars.timestamps[last].astype("datetime64[D]") == panel_market.dates[day]
    assert bars.instruments[bars.instrument[last]] == panel_market.symbols[stock]


@pytest.mark.parametrize(("kind", "width"), [("jade", 11), ("transformer", 14)])
def test_every_row_has_the_named_columns(kind: EncoderKind, width: int, bars: Bars) -> None:
    table = panel_features(kind, bars, panels.small_config())
    assert table.shape == (len(bars), width)
    assert len(set(panel_columns(kind, panels.small_config().windowed.feature_config))) == width
    known = np.isfinite(table).all(axis=1)
    # EMA 200 is the last to be known: 199 bars of each of 18 stocks lack it
    assert (~known).sum() == (18 * 199 if kind == "transformer" else 0)


def test_jade_reads_moves_too_where_they_are_configured(bars: Bars) -> None:
    config = panels.small_config()
    settings = config.windowed.feature_config.model_copy(update={"displacement_bars": [4]})
    windowed = config.windowed.model_copy(update={"feature_config": settings})
    wide = config.model_copy(update={"windowed": windowed})
    table = panel_features("jade", bars, wide)
    assert panel_columns("jade", settings)[-1] == "displacement_4"
    assert table.shape == (len(bars), 12)
    np.testing.assert_array_equal(table[:, :11], panel_features("jade", bars, config))
    assert panel_columns("transformer", settings) == panel_columns(
        "transformer", config.windowed.feature_config
    )


@pytest.mark.parametrize("kind", KINDS)
def test_features_do_not_depend_on_the_unit_of_prices_and_volume(
    kind: EncoderKind, bars: Bars
) -> None:
    assert bars.volume is not None
    scaled = {name: 40.0 * getattr(bars, name) for name in ("open", "high", "low", "close")}
    other = replace(bars, **scaled, volume=0.01 * bars.volume)
    config = panels.small_config()
    found, expected = panel_features(kind, other, config), panel_features(kind, bars, config)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_features_ignore_later_bars_of_every_stock(kind: EncoderKind, bars: Bars) -> None:
    config, day = panels.small_config(), np.unique(bars.timestamps)[500]
    early = bars.timestamps <= day
    expected = panel_features(kind, bars, config)[early]
    changed = panel_features(kind, panels.with_other_prices(bars, day), config)
    np.testing.assert_array_equal(changed[early], expected)
    assert (changed[~early] != panel_features(kind, bars, config)[~early]).any()
    np.testing.assert_array_equal(panel_features(kind, panels.cut_off(bars, day), config), expected)


def test_the_close_is_a_return_and_volume_is_relative_to_its_mean(bars: Bars) -> None:
    assert bars.volume is not None
    table = panel_features("transformer", bars, panels.small_config())
    columns = panel_columns("transformer", panels.small_config().windowed.feature_config)
    row = 300  # of the first stock, which has all 700 bars
    assert bars.instrument[row] == 0
    expected = {
        "log_return": np.log(bars.close[300] / bars.close[299]),
        "open_over_close": bars.open[300] / bars.close[300],
        "log_volume_over_mean": np.log(bars.volume[300] / bars.volume[281:301].mean()),
    }
    for name, value in expected.items():
        assert table[row, columns.index(name)] == pytest.approx(value, abs=1e-6)


def test_without_volume_that_column_is_zero(bars: Bars) -> None:
    config = panels.small_config()
    table = panel_features("transformer", replace(bars, volume=None), config)
    named = panel_columns("transformer", config.windowed.feature_config)
    known = np.isfinite(table).all(axis=1)
    volume = table[known, named.index("log_volume_over_mean")]
    assert not volume.any()
