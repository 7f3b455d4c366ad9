"""Labels run from fill to fill and say where they are incomplete."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.config.loading import load_config
from hrl_sarp.contracts import Market, Regime
from hrl_sarp.features import labels
from tests import factories

OVERNIGHT = np.array([[0.5], [0.01], [0.02], [0.03], [0.04]])
INTRADAY = np.array([[0.5], [0.10], [-0.20], [0.30], [0.5]])


@pytest.fixture
def one_stock() -> Market:
    return factories.market_with(OVERNIGHT, INTRADAY, [0])


def test_next_day_label_by_hand(one_stock: Market) -> None:
    values, valid = labels.stock_label(one_stock, 1)
    # decided at close 0, filled at open 1, valued at open 2: day 1's day and the night after
    assert values[0, 0] == pytest.approx(1.10 * 1.02 - 1)
    assert values[2, 0] == pytest.approx(1.30 * 1.04 - 1)
    np.testing.assert_array_equal(valid, [True, True, True, False, False])
    assert np.isnan(values[3:]).all()


def test_longer_label_by_hand(one_stock: Market) -> None:
    values, valid = labels.stock_label(one_stock, 3)
    expected = 1.10 * 1.02 * 0.80 * 1.03 * 1.30 * 1.04 - 1
    assert values[0, 0] == pytest.approx(expected)
    assert valid.tolist() == [True, False, False, False, False]


def test_labels_between_decisions_chain_to_the_long_label(one_stock: Market) -> None:
    parts, _ = labels.stock_label_between(one_stock, np.array([0, 1]), np.array([1, 3]))
    whole, _ = labels.stock_label(one_stock, 3)
    assert np.prod(1 + parts) == pytest.approx(1 + whole[0, 0])


def test_sector_label_averages_the_eligible_and_is_nan_for_empty_sectors() -> None:
    overnight = np.zeros((4, 3))
    intraday = np.tile([[0.1, 0.3, 0.5]], (4, 1))
    eligible = np.array([[True, True, False]] * 4)
    market = factories.market_with(
        overnight, intraday, [0, 0, 1], eligible=eligible, listed=np.ones((4, 3), bool)
    )
    values, valid = labels.sector_label(market, 1)
    assert values[0, 0] == pytest.approx(0.2)
    assert np.isnan(values[:, 1]).all()
    assert valid.tolist() == [True, True, False, False]


def test_the_variance_of_the_next_sessions_by_hand() -> None:
    moves = np.array([0.5, 0.01, -0.02, 0.03, 0.0, 0.04, 0.05])
    market = factories.market_with(np.zeros((7, 2)), np.expm1(moves)[:, None] * [1.0, 0.0], [0, 0])
    found = labels.next_variance(market, 3)
    # the close of day 0 is followed by days 1 to 3
    assert found[0, 0] == pytest.approx((0.01**2 + 0.02**2 + 0.03**2) / 3)
    assert found[3, 0] == pytest.approx((0.04**2 + 0.05**2) / 3)
    np.testing.assert_array_equal(np.isfinite(found[:, 0]), [True] * 4 + [False] * 3)
    assert np.isnan(found[:, 1]).all()  # its price never moved
    past = labels.mean_variance(market, 3)
    np.testing.assert_array_equal(past[3:, 0], found[:4, 0])
    assert np.isnan(past[:2]).all()
    tradable = market.tradable & (np.arange(7) != 4)[:, None]
    halted = labels.next_variance(dataclasses.replace(market, tradable=tradable), 3)
    np.testing.assert_array_equal(np.isfinite(halted[:, 0]), [True] + [False] * 6)


def test_a_session_is_its_night_and_its_range_where_ranges_are_known(one_stock: Market) -> None:
    ranged = dataclasses.replace(one_stock, range_variance=np.full((5, 1), 4e-4))
    found = labels.mean_variance(ranged, 2)
    nights = np.log1p(OVERNIGHT[:, 0]) ** 2
    np.testing.assert_allclose(found[1:, 0], (nights[1:] + nights[:-1]) / 2 + 4e-4)


def test_the_variance_of_the_past_ignores_what_comes_later() -> None:
    rng = np.random.default_rng(2)
    night, day = rng.normal(0.0, 0.01, (2, 40, 3))
    first = factories.market_with(night, day, [0, 0, 1])
    for t in (5, 17, 30):
        later = np.arange(40)[:, None] > t
        other = factories.market_with(
            np.where(later, 0.3, night), np.where(later, 0.2, day), [0, 0, 1]
        )
        found, changed = labels.mean_variance(first, 5), labels.mean_variance(other, 5)
        np.testing.assert_array_equal(found[: t + 1], changed[: t + 1])
        assert (found[t + 1 :] != changed[t + 1 :]).any()


def test_regime_label_by_hand() -> None:
    config = load_config(
        overrides={"data": {"regime": {"label_horizon_days": 2, "volatility_days": 2}}}
    ).data.regime
    log_return = np.array([0.01, -0.01, 9.0, 0.02, 0.02, -9.0, 0.0, 0.0])
    market = dataclasses.replace(
        factories.market_with(np.zeros((8, 1)), np.zeros((8, 1)), [0]),
        benchmark_return=np.expm1(log_return),
    )
    found = labels.regime_label(market, config)
    # row 1: past volatility 0.01, band 0.5 x 0.01 x sqrt 2 = 0.007; days 3 and 4 earn 0.04
    assert found[1] == Regime.BULL
    # row 3: days 5 and 6 earn -9, past deviation of (9, 0.02) is 4.49, band 3.2
    assert found[3] == Regime.BEAR
    # row 4: past deviation of (0.02, 0.02) is 0, days 6 and 7 earn 0
    assert found[4] == Regime.SIDEWAYS
    assert found[0] == labels.INVALID_CLASS  # no look-back
    assert (found[5:] == labels.INVALID_CLASS).all()  # no horizon


def test_the_label_of_a_row_ignores_its_own_and_the_next_day_of_the_benchmark() -> None:
    # the benchmark has no open: its move of day t + 1 cannot be earned by a fill of that day
    rng = np.random.default_rng(0)
    market = factories.random_market(rng, n_days=120)
    config = load_config().data.regime
    t = 80
    changed = market.benchmark_return.copy()
    changed[t + 1] = 5.0
    moved = labels.regime_label(dataclasses.replace(market, benchmark_return=changed), config)
    assert moved[t] == labels.regime_label(market, config)[t]


def test_standardised_rows_have_mean_0_and_deviation_1_over_the_mask() -> None:
    label = np.array([[1.0, 2.0, 3.0, 99.0], [5.0, 5.0, np.nan, 5.0]])
    mask = np.array([[True, True, True, False], [True] * 4])
    found = labels.standardise_cross_section(label, mask)
    np.testing.assert_allclose(found[0], [-np.sqrt(1.5), 0.0, np.sqrt(1.5), 0.0])
    assert not found[1].any()


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=10).map(np.array),
)
def test_groups_are_standardised_as_if_each_were_alone(seed: int, groups: np.ndarray) -> None:
    rng = np.random.default_rng(seed)
    label = rng.normal(size=(4, len(groups)))
    mask = rng.random(label.shape) < 0.8
    found = labels.standardise_cross_section(label, mask, groups)
    features = np.stack([label, -2 * label], axis=2)
    centred = labels.centre_features(features, mask, groups)
    for row, group in np.ndindex(4, 4):
        chosen = mask[row] & (groups == group)
        own = label[row, chosen]
        if len(own) > 1:
            expected = own - own.mean()
            np.testing.assert_allclose(found[row, chosen], expected / own.std(), atol=1e-9)
            np.testing.assert_allclose(centred[row, chosen, 1], -2 * expected, atol=1e-12)
        else:
            assert not found[row, chosen].any()
            assert not centred[row, chosen].any()
    assert not found[~mask].any()
    assert not centred[~mask].any()


def test_oracle_weights_prefer_winners_sum_to_one_and_leave_masked_at_zero() -> None:
    label = np.array([[1e-4, 2e-4, 3e-4, 99.0], [np.nan] * 4])
    mask = np.array([[True, True, True, False], [True] * 4])
    found = labels.oracle_weights(label, 1.0, mask)
    score = np.exp([-np.sqrt(1.5), 0.0, np.sqrt(1.5)])
    np.testing.assert_allclose(found[0, :3], score / score.sum())
    assert found[0, 3] == 0.0
    assert not found[1].any()


def slow_buy_label(
    close: np.ndarray, true_range: np.ndarray, stretch: np.ndarray, horizon: int, k: float
) -> list[int]:
    found = []
    for t in range(len(close)):
        later = t + horizon
        if later >= len(close) or stretch[later] != stretch[t] or np.isnan(true_range[t]):
            found.append(-1)
        else:
            found.append(int(close[later] - close[t] > k * true_range[t]))
    return found


@pytest.mark.parametrize("horizon", [1, 4, 50])
def test_buy_label_equals_a_slow_loop(horizon: int) -> None:
    rng = np.random.default_rng(horizon)
    close = 100.0 + np.cumsum(rng.normal(size=40))
    true_range = rng.random(40)
    true_range[:5] = np.nan
    stretch = np.repeat([0, 1, 2], [15, 5, 20])
    found = labels.buy_label(close, true_range, stretch, horizon, 1.5)
    np.testing.assert_array_equal(found, slow_buy_label(close, true_range, stretch, horizon, 1.5))


def test_buy_label_by_hand() -> None:
    close = np.array([10.0, 10.0, 13.0, 13.1, 20.0])
    # two bars on: +3.0 against 1.5 x 2 = 3 (not above), +3.1 (above), +7 in another stretch
    found = labels.buy_label(close, np.full(5, 2.0), np.array([0, 0, 0, 0, 1]), 2, 1.5)
    np.testing.assert_array_equal(found, [0, 1, -1, -1, -1])
