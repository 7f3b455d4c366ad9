"""The verdict on noise and on planted effects; shares with Wilson's interval."""

import numpy as np
import pytest

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation.statistics import (
    BootstrapPlan,
    Share,
    newey_west_error,
    optimal_block_days,
    share_called_better,
    smallest_detectable_effect,
)

YEAR, MARGIN = 252, 0.5


def test_wilsons_interval_is_the_published_one() -> None:
    # 10 of 20 at 95 %: (p + z^2/2n +- z sqrt(pq/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.96
    z, n, p = 1.959964, 20, 0.5
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    found = Share.of(10, 20, 0.95)
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert Share.of(0, 20, 0.95).low == 0.0
    # all of one trial: 1 / (1 + z^2) is its lower end; 90 % has z = 1.645
    assert Share.of(1, 1, 0.95).low == pytest.approx(1 / (1 + z**2))
    assert Share.of(1, 1, 0.90).low == pytest.approx(1 / (1 + 1.644854**2))
    for count, total in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(MetricError) as refused:
            Share.of(count, total, 0.95)
        assert str(refused.value) == (f"share of {count} in {total}: expected 0 <= count <= total")


def gains(seed: int, lag: float) -> np.ndarray:
    """Draw ten years of differences with fat tails, today's holding part of yesterday's."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_t(4, size=2520) * 0.5
    for t in range(1, len(drawn)):
        drawn[t] += lag * drawn[t - 1]
    return drawn + 0.03  # what the study found is no matter: it is taken out


@pytest.mark.parametrize(("seed", "lag"), [(0, 0.0), (1, 0.0), (2, 0.3), (3, -0.3)])
def test_noise_is_seldom_called_better_and_planted_effects_are_found(seed: int, lag: float) -> None:
    gain = gains(seed, lag)
    plan = BootstrapPlan(optimal_block_days(gain), 500, 0.95, 0)
    noise = share_called_better(gain, 0.0, 200, plan, YEAR, MARGIN)
    assert noise.total == 200
    assert noise.count <= 16
    effect = 1.5 * smallest_detectable_effect(YEAR * newey_west_error(gain))
    planted = share_called_better(gain, effect, 20, plan, YEAR, MARGIN)
    assert planted.count >= 16
    assert share_called_better(gain, -effect, 20, plan, YEAR, MARGIN).count == 0


def test_intervals_that_are_too_narrow_are_found_out() -> None:
    # blocks of one session ignore that days hang together, and a confidence of 50 % is no proof
    gain = gains(4, 0.6)
    careless = BootstrapPlan(1, 500, 0.5, 0)
    # histories keep the blocks of the careless plan, so only its confidence is at fault: 25 %
    assert 30 <= share_called_better(gain, 0.0, 200, careless, YEAR, MARGIN).count <= 70


def test_the_mean_of_the_study_does_not_matter_and_nan_is_refused() -> None:
    gain, plan = gains(5, 0.0), BootstrapPlan(5, 200, 0.95, 0)
    first = share_called_better(gain, 0.0, 50, plan, YEAR, MARGIN)
    assert first == share_called_better(gain + 7.0, 0.0, 50, plan, YEAR, MARGIN)
    gain[3] = np.nan
    with pytest.raises(MetricError) as refused:
        share_called_better(gain, 0.0, 50, plan, YEAR, MARGIN)
    assert str(refused.value) == (
        "share of verdicts: expected a finite gain in every session, found NaN"
    )


def test_the_smallest_detectable_effect_is_found_with_its_power() -> None:
    # 2.80 errors are found in 80 of 100 histories, and one error in 17: P(z > 1.96 - 1)
    gain = gains(6, 0.0)
    plan = BootstrapPlan(1, 500, 0.95, 0)
    error = YEAR * newey_west_error(gain, lags=0)
    for effect, power in ((2.80 * error, 0.80), (error, 0.17)):
        found = share_called_better(gain, effect, 400, plan, YEAR, MARGIN)
        # 4 standard errors of 400 draws are 0.08; errors of fat tails differ, too
        assert found.count / found.total == pytest.approx(power, abs=0.1)


def test_the_seed_of_the_plan_draws_the_histories() -> None:
    gain = gains(7, 0.0)
    effect = 2.8 * YEAR * newey_west_error(gain)
    counts = []
    for seed in (0, 0, 1, 2, 3):
        plan = BootstrapPlan(1, 100, 0.95, seed)
        counts.append(share_called_better(gain, effect, 300, plan, YEAR, MARGIN).count)
    assert counts[0] == counts[1]
    assert len(set(counts)) > 1


def test_a_gain_that_never_moves_is_certain_by_its_effect() -> None:
    plan = BootstrapPlan(1, 50, 0.95, 0)
    still = np.full(100, 0.2)
    assert share_called_better(still, 1.0, 10, plan, YEAR, MARGIN).count == 10
    assert share_called_better(still, 0.0, 10, plan, YEAR, MARGIN).count == 0
