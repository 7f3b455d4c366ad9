"""A world that stands still, and shocks whose every return is known by hand."""

import numpy as np
import pytest

from hrl_sarp.config.schema import RunConfig, ShockConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import ConfigError
from hrl_sarp.evaluation.stress_market import frozen_market, shocked_market
from tests import factories
from tests.evaluation.small_runs import stress_config

DAY = 9
SHOCK = ShockConfig(
    name="half",
    sector_returns=[-0.36, 0.21],
    days=2,
    recovery_days=4,
    probability=0.1,
)


def config(**changes: object) -> RunConfig:
    return stress_config({"Sector0": "A", "Sector1": "B"}, [SHOCK], **changes)


def real_market() -> Market:
    rng = np.random.default_rng(0)
    overnight, intraday = rng.normal(0, 0.01, (2, 15, 3))
    return factories.market_with(
        overnight,
        intraday,
        [0, 1, 1],
        stock_features=rng.normal(size=(15, 3, 5)),
        risk_free=np.full(15, 1e-4),
        filtered_regime=rng.dirichlet(np.ones(3), 15),
    )


def test_the_past_stays_and_the_future_repeats_the_last_day() -> None:
    market = real_market()
    frozen = frozen_market(market, DAY, 6)
    assert frozen.n_days == DAY + 1 + 6
    for name in ("stock_features", "macro_features", "filtered_regime", "slots", "eligible"):
        before, after = getattr(market, name), getattr(frozen, name)
        np.testing.assert_array_equal(after[: DAY + 1], before[: DAY + 1])
        np.testing.assert_array_equal(after[DAY + 1 :], np.repeat(before[[DAY]], 6, axis=0))
    for name in ("overnight_return", "intraday_return", "risk_free", "benchmark_return"):
        before, after = getattr(market, name), getattr(frozen, name)
        np.testing.assert_array_equal(after[: DAY + 1], before[: DAY + 1])
        assert not after[DAY + 1 :].any()


def test_appended_sessions_are_the_weekdays_that_follow() -> None:
    frozen = frozen_market(real_market(), DAY, 6)  # row 9 is Friday 2001-01-12
    later = [str(day) for day in frozen.dates[DAY + 1 :]]
    assert later == [f"2001-01-{day}" for day in (15, 16, 17, 18, 19, 22)]
    assert frozen.is_week_end[DAY:].tolist() == [True, False, False, False, False, True, False]


def test_a_stock_halted_on_the_last_day_trades_again_and_a_vanished_one_does_not() -> None:
    market = real_market()
    tradable, listed = market.tradable.copy(), market.listed.copy()
    tradable[DAY, 0] = False
    tradable[DAY:, 2] = listed[DAY:, 2] = False
    halted = factories.market_with(
        market.overnight_return,
        market.intraday_return,
        market.sector_of,
        tradable=tradable,
        listed=listed,
    )
    frozen = frozen_market(halted, DAY, 3)
    assert not frozen.tradable[DAY, 0]
    assert frozen.tradable[DAY + 1 :].tolist() == [[True, True, False]] * 3


def test_sectors_fall_and_recover_to_the_digit() -> None:
    market = shocked_market(frozen_market(real_market(), DAY, 8), DAY, SHOCK, config())
    moves = (1 + market.overnight_return[DAY + 1 :]) * (1 + market.intraday_return[DAY + 1 :])
    # 0.64 over two sessions is 0.8 each; undone over four it is 1.25^(1/2). 1.21 is 1.1 each.
    assert moves[:2, 0] == pytest.approx([0.8, 0.8])
    assert moves[2:6, 0] == pytest.approx([1.25**0.5] * 4)
    assert moves[:2, 1] == pytest.approx([1.1, 1.1])
    np.testing.assert_array_equal(moves[:, 1], moves[:, 2])  # both are of sector 1
    assert moves[:2].prod(axis=0) == pytest.approx([0.64, 1.21, 1.21])
    assert moves.prod(axis=0) == pytest.approx([1.0, 1.0, 1.0])
    assert moves[6:].tolist() == [[1.0] * 3] * 2


def test_nights_take_their_share_of_the_logarithm() -> None:
    frozen = frozen_market(real_market(), DAY, 8)
    market = shocked_market(frozen, DAY, SHOCK, config(overnight_share=0.25))
    assert market.overnight_return[DAY + 1, 0] == pytest.approx(0.8**0.25 - 1)
    assert market.intraday_return[DAY + 1, 0] == pytest.approx(0.8**0.75 - 1)


def test_data_of_closes_only_move_over_night() -> None:
    market = real_market()
    closes = factories.market_with(market.overnight_return, np.zeros((15, 3)), market.sector_of)
    shocked = shocked_market(frozen_market(closes, DAY, 6), DAY, SHOCK, config())
    assert not shocked.intraday_return.any()
    assert shocked.overnight_return[DAY + 1, 0] == pytest.approx(-0.2)


def test_the_index_earns_what_the_universe_does() -> None:
    market = shocked_market(frozen_market(real_market(), DAY, 6), DAY, SHOCK, config())
    # a third each: nights of sqrt(0.8) and sqrt(1.1), then days of the same
    half = (0.8**0.5 + 2 * 1.1**0.5) / 3
    assert market.benchmark_return[DAY + 1] == pytest.approx(half**2 - 1)
    np.testing.assert_array_equal(
        market.benchmark_return[: DAY + 1], real_market().benchmark_return[: DAY + 1]
    )


def test_a_sector_without_a_shock_sector_is_refused_by_name() -> None:
    unmapped = stress_config({"Sector0": "A"}, [SHOCK])
    with pytest.raises(ConfigError, match="no shock sector for Sector1; expected one of A, B"):
        shocked_market(frozen_market(real_market(), DAY, 6), DAY, SHOCK, unmapped)
