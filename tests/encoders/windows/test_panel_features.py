"""Inputs of the encoders: without units, without levels, without the future."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.windows.panel import read_panel_bars
from hrl_sarp.encoders.windows.panel_features import panel_columns, panel_features
from tests.encoders import panels

KINDS: tuple[EncoderKind, ...] = ("jade", "transformer")


@pytest.fixture(scope="module")
def bars(panel_data: Path, panel_market: Market) -> Bars:
    return read_panel_bars(panel_data, panel_market, panels.small_config())


@pytest.mark.parametrize(("kind", "width"), [("jade", 11), ("transformer", 14)])
def test_every_row_has_the_named_columns(kind: EncoderKind, width: int, bars: Bars) -> None:
    table = panel_features(kind, bars, panels.small_config())
    assert table.shape == (len(bars), width)
    assert len(set(panel_columns(kind))) == width
    known = np.isfinite(table).all(axis=1)
    # EMA 200 is the last to be known: 199 bars of each of 18 stocks lack it
    assert (~known).sum() == (18 * 199 if kind == "transformer" else 0)


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
    columns = panel_columns("transformer")
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
    table = panel_features("transformer", replace(bars, volume=None), panels.small_config())
    known = np.isfinite(table).all(axis=1)
    volume = table[known, panel_columns("transformer").index("log_volume_over_mean")]
    assert not volume.any()
