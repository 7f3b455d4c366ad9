"""Cross-sectional and trailing z-scores."""

import numpy as np
import pytest

from hrl_sarp.features.standardise import robust_z, trailing_z


def test_robust_z_of_five_stocks_by_hand() -> None:
    values = np.array([[1.0, 2.0, 3.0, 5.0, 100.0]])
    z = robust_z(values, np.ones((1, 5), dtype=bool), 3.0)
    # median 3, deviations 2 1 0 2 97: MAD 2, scale 2.9652
    np.testing.assert_allclose(z[0, :4], [-2 / 2.9652, -1 / 2.9652, 0.0, 2 / 2.9652], rtol=1e-6)
    assert z[0, 4] == 3.0


@pytest.mark.parametrize("n_assets", [2, 3, 10, 41])
def test_robust_z_equals_a_slow_reference(n_assets: int) -> None:
    rng = np.random.default_rng(n_assets)
    values = rng.normal(size=(50, n_assets)).round(1).astype(np.float32)
    present = rng.random(values.shape) < 0.8
    values[rng.random(values.shape) < 0.1] = np.nan
    found = robust_z(values.astype(np.float64), present, 3.0)
    for t in range(len(values)):
        usable = present[t] & np.isfinite(values[t])
        row = values[t, usable].astype(np.float64)
        expected = np.zeros(n_assets)
        if len(row) >= 2:
            gap = np.abs(row - np.median(row))
            scale = 1.4826 * np.median(gap) or 1.2533 * gap.mean()
            if scale > 1e-6:
                expected[usable] = np.clip((row - np.median(row)) / scale, -3, 3)
        np.testing.assert_allclose(found[t], expected, atol=2e-5)


def test_robust_z_ignores_stocks_without_a_bar() -> None:
    values = np.array([[1.0, 2.0, 3.0, 50.0]])
    present = np.array([[True, True, True, False]])
    alone = robust_z(values[:, :3], present[:, :3], 3.0)
    together = robust_z(values, present, 3.0)
    np.testing.assert_array_equal(together[:, :3], alone)
    assert together[0, 3] == 0.0


def test_robust_z_of_a_day_without_spread_is_zero() -> None:
    assert not robust_z(np.full((1, 4), 7.0), np.ones((1, 4), dtype=bool), 3.0).any()


def test_trailing_z_by_hand() -> None:
    z = trailing_z(np.array([np.nan, 1.0, 3.0, 3.0, 6.0]), 3, 3.0)
    # row 2: mean 2, deviation 1; row 4: values 3 3 6, mean 4, deviation sqrt 2
    np.testing.assert_allclose(z, [0, 0, 1.0, 2 / 3 / np.sqrt(8 / 9), 2 / np.sqrt(2)])


def test_trailing_z_of_a_constant_is_zero() -> None:
    assert not trailing_z(np.full(30, 0.1), 10, 3.0).any()
