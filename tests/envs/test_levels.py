"""Where episodes start: at week ends that leave room for a whole episode, mixed by regime."""

from dataclasses import replace

import numpy as np
import pytest

from hrl_sarp.contracts import DayRange, Regime
from hrl_sarp.envs.levels import EpisodeStarts
from hrl_sarp.errors import MarketError
from tests import factories

FLAT = np.zeros((60, 2))
MARKET = factories.market_with(FLAT, FLAT, [0, 1])
"""Twelve weeks of five sessions; week ends are rows 4, 9, ... 59."""


def starts(horizon: int, span: DayRange, *, weekly: bool) -> list[int]:
    found: list[int] = EpisodeStarts(MARKET, span, horizon, weekly=weekly, seed=0).days.tolist()
    return found


def test_weekly_episodes_end_at_the_last_week_end_of_the_span() -> None:
    # week ends of rows 7 to 37: 9, 14, 19, 24, 29, 34; three weeks after 19 is 34
    assert starts(3, DayRange(7, 38), weekly=True) == [9, 14, 19]


def test_daily_episodes_touch_no_row_behind_the_span() -> None:
    # 12 sessions from row 24 end at row 36, from row 29 at row 41
    assert starts(12, DayRange(7, 38), weekly=False) == [9, 14, 19, 24]
    assert starts(12, DayRange(7, 37), weekly=False) == [9, 14, 19, 24]
    assert starts(12, DayRange(7, 36), weekly=False) == [9, 14, 19]


@pytest.mark.parametrize("weekly", [True, False])
def test_a_span_without_room_is_refused_with_its_dates(*, weekly: bool) -> None:
    with pytest.raises(MarketError, match=r"no episode of 40 .* 2001-01-01 and 2001-01-26"):
        starts(40, DayRange(0, 20), weekly=weekly)


def test_the_mix_sets_the_share_of_each_regime_however_rare() -> None:
    regime = np.full(60, Regime.SIDEWAYS)
    regime[[4, 9]], regime[14] = Regime.BULL, Regime.BEAR
    market = replace(MARKET, filtered_regime=np.eye(3)[regime])
    drawn = EpisodeStarts(market, DayRange(0, 60), 5, weekly=False, seed=1)
    drawn.set_mix([0.1, 0.7, 0.2])
    found = np.bincount(regime[drawn.draw(20_000)], minlength=3) / 20_000
    np.testing.assert_allclose(found, [0.1, 0.7, 0.2], atol=0.015)


def test_without_a_mix_all_weeks_are_alike_whatever_their_regime() -> None:
    regime = np.full(60, Regime.SIDEWAYS)
    regime[[4, 9]], regime[14] = Regime.BULL, Regime.BEAR
    market = replace(MARKET, filtered_regime=np.eye(3)[regime])
    drawn = EpisodeStarts(market, DayRange(0, 60), 5, weekly=False, seed=1)
    drawn.set_mix([0.6, 0.3, 0.1])
    drawn.set_mix(None)
    found = np.bincount(drawn.draw(20_000), minlength=60)[drawn.days] / 20_000
    np.testing.assert_allclose(found, 1 / len(drawn.days), atol=0.015)


def test_a_regime_without_days_leaves_its_share_to_the_others() -> None:
    regime = np.where(np.arange(60) < 30, Regime.BULL, Regime.SIDEWAYS)
    market = replace(MARKET, filtered_regime=np.eye(3)[regime])
    drawn = EpisodeStarts(market, DayRange(0, 60), 5, weekly=False, seed=1)
    drawn.set_mix([0.6, 0.3, 0.1])
    found = np.bincount(regime[drawn.draw(20_000)], minlength=3) / 20_000
    np.testing.assert_allclose(found, [0.0, 0.75, 0.25], atol=0.015)
    drawn.set_mix([1.0, 0.0, 0.0])  # only bear starts are asked for and there are none
    assert set(drawn.draw(500).tolist()) == set(drawn.days.tolist())


def test_the_regime_of_a_start_is_the_filtered_one_of_that_day() -> None:
    # a label of what follows would pick the days that turn out badly
    assert EpisodeStarts(MARKET, DayRange(0, 60), 5, weekly=False, seed=0).regime.tolist() == (
        MARKET.filtered_regime[4:55:5].argmax(axis=1).tolist()
    )


def test_restored_starts_continue_the_same_draws() -> None:
    first = EpisodeStarts(MARKET, DayRange(0, 60), 5, weekly=False, seed=1)
    first.draw(7)
    second = EpisodeStarts(MARKET, DayRange(0, 60), 5, weekly=False, seed=2)
    second.load_state_dict(first.state_dict())
    assert first.draw(50).tolist() == second.draw(50).tolist()
