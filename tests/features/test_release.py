"""A macro value is not known before it is published."""

import numpy as np
import pytest

from hrl_sarp.errors import FeatureError
from hrl_sarp.features.release import (
    MONTHLY,
    NEXT_SESSION,
    SAME_DAY,
    align_series,
    release_of,
)


def _days(*days: str) -> np.ndarray:
    return np.array(days, dtype="datetime64[D]")


def test_daily_series_are_known_one_session_later() -> None:
    sessions = _days("2010-01-07", "2010-01-08", "2010-01-11")
    dates = _days("2010-01-07", "2010-01-08", "2010-01-09", "2010-01-11")
    found = align_series(sessions, dates, np.array([1.0, 2.0, 3.0, 4.0]), NEXT_SESSION)
    # Monday sees Friday's value: Saturday's is not of the session before
    np.testing.assert_array_equal(found, [np.nan, 1.0, 2.0])


def test_same_day_series_are_known_at_the_close_and_carried_over_holidays() -> None:
    sessions = _days("2010-01-07", "2010-01-08", "2010-01-11")
    values = np.array([20.0, np.nan, 22.0])
    found = align_series(sessions, sessions, values, SAME_DAY)
    np.testing.assert_array_equal(found, [20.0, 20.0, 22.0])


def test_monthly_series_wait_for_their_publication() -> None:
    # 2010-01-01 + 60 days is 2010-03-02
    sessions = _days("2010-03-01", "2010-03-02")
    found = align_series(sessions, _days("2010-01-01"), np.ones(1), MONTHLY)
    np.testing.assert_array_equal(found, [np.nan, 1.0])


def test_nothing_is_known_of_an_empty_series() -> None:
    found = align_series(_days("2010-01-07"), _days(), np.empty(0), SAME_DAY)
    assert np.isnan(found).all()


@pytest.mark.parametrize("series", ["STLFSI4", "GDP", "GDPC1", "M2SL", "SOMETHING_NEW"])
def test_revised_and_unknown_series_are_refused(series: str) -> None:
    with pytest.raises(FeatureError, match=series):
        release_of(series)
