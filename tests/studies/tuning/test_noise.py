"""Tuning on pure noise: how often the best trial would be taken for more than luck.

What is simulated: a search of `N_TRIALS` trials whose values change nothing. A trial's daily gain
over the rule is noise: a part that all trials share, as configurations of one family do, and a part
of its own. It is cut into inner folds, each is one training, and the best trial is the one with
the highest `lower_score`. Its returns are then certified twice: on the very sessions that chose it,
which is the worst that can happen, and on fresh ones, as the test span is. Reports say that a
policy is more than luck by a deflated Sharpe ratio above `BEYOND_LUCK`, with the number of trials
that the trial log holds. A share of an agent is deployed if the lower bound of its gain is above 0,
at an error that is split among these trials (`training/certify.py`).
"""

from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.schema import AcceptanceConfig
from hrl_sarp.evaluation.statistics import (
    BEYOND_LUCK,
    Trials,
    active_appraisal,
    deflated_sharpe_ratio,
)
from hrl_sarp.run.trials import Span, Trial, TrialLog
from hrl_sarp.studies.tuning.cells import SCORE, TUNED
from hrl_sarp.studies.tuning.inner import lower_score
from hrl_sarp.training.acceptance import PairedDays, accept

N_SEARCHES, N_TRIALS, N_FOLDS, N_DAYS = 200, 20, 4, 500
HIGHEST_RATE = 0.08
SEEN, FRESH = "the sessions that chose it", "fresh sessions"


def search(rng: np.random.Generator, shared: float, gain: float = 0.0) -> tuple[np.ndarray, ...]:
    """Draw a search; return the gains of all trials, of the best one, and fresh ones of that."""
    common = rng.standard_normal((2, N_DAYS, 1))
    own = rng.standard_normal((2, N_DAYS, N_TRIALS))
    gains, fresh = 0.01 * (shared**0.5 * common + (1 - shared) ** 0.5 * own) + gain
    by_training = gains.reshape(N_FOLDS, -1, N_TRIALS).mean(axis=1)
    best = int(np.argmax([lower_score(column.tolist()) for column in by_training.T]))
    return gains, gains[:, best], fresh[:, best]


def certified_rate(shared: float, sessions: str, *, is_counted: bool = True) -> float:
    """Return the share of searches whose best trial is certified."""
    rng = np.random.default_rng([7, int(100 * shared)])
    certified = 0
    for _ in range(N_SEARCHES):
        gains, best, fresh = search(rng, shared)
        ratios: tuple[float, ...] = ()
        if is_counted and sessions == SEEN:
            ratios = tuple(active_appraisal(column).ratio for column in gains.T)
        trials = Trials(N_TRIALS + 1 if is_counted else 1, ratios)
        found = active_appraisal(best if sessions == SEEN else fresh)
        certified += deflated_sharpe_ratio(found, trials) > BEYOND_LUCK
    return certified / N_SEARCHES


@pytest.mark.parametrize("shared", [0.0, 0.8])
@pytest.mark.parametrize("sessions", [SEEN, FRESH])
def test_tuned_on_noise_the_certified_rate_stays_below_8_percent(
    shared: float, sessions: str
) -> None:
    rate = certified_rate(shared, sessions)
    assert rate <= HIGHEST_RATE, f"{rate:.1%} of {N_SEARCHES} searches certified"


def deployed_rate(n_tuned: int, n_searches: int) -> float:
    """Return the share of searches whose best trial is deployed, tested where it was chosen."""
    error = 0.1 / max(1, n_tuned)
    rule = AcceptanceConfig(shares=[0.5, 1.0], confidence=1 - error, block_days=20, samples=800)
    rng, deployed = np.random.default_rng(11), 0
    for number in range(n_searches):
        _, best, _ = search(rng, 0.5)
        folds = [
            PairedDays(str(fold), 0, {0.5: days / 2, 1.0: days})
            for fold, days in enumerate(best.reshape(N_FOLDS, -1))
        ]
        deployed += accept(folds, rule, seed=number).granted > 0
    return deployed / n_searches


def test_tuned_on_noise_what_is_deployed_stays_below_8_percent() -> None:
    assert deployed_rate(N_TRIALS, N_SEARCHES) <= HIGHEST_RATE
    # at the whole error, which is 10 % of all that is tested once
    assert deployed_rate(0, N_SEARCHES // 4) > 0.25


def test_without_the_count_noise_would_be_certified() -> None:
    # the best of 20 independent ratios is above 1.64 errors with probability 1 - 0.95^20 = 0.64;
    # the error of the score makes the choice a little worse than the best mean
    assert certified_rate(0.0, SEEN, is_counted=False) > 0.4


def test_a_true_gain_is_certified_in_spite_of_the_count() -> None:
    # 0.2 % a day at a deviation of 1 %: a ratio of 0.2, or 4.5 errors of 500 sessions. The luck of
    # 21 trials is 1.9 errors, and the bound 1.64 above it: 4.5 is beyond 3.5 five times in six
    rng = np.random.default_rng(3)
    certified = 0
    for _ in range(100):
        *_, fresh = search(rng, 0.5, gain=0.002)
        sure = deflated_sharpe_ratio(active_appraisal(fresh), Trials(N_TRIALS + 1, ()))
        certified += sure > BEYOND_LUCK
    assert certified >= 70


def test_the_log_holds_the_count_that_the_simulation_takes(tmp_path: Path) -> None:
    log, test = TrialLog(tmp_path / "trials.jsonl"), Span("test", "2018-01-02", "2022-12-30")
    tuned = Span(TUNED, "2009-01-02", "2017-12-29")
    for number in range(N_TRIALS):
        log.add(Trial("tuning", "x", str(number), "da7a", tuned, SCORE, 0.1, seed=0))
    bearing = [trial for trial in log.trials(market="da7a") if trial.bears_on(test)]
    assert len({trial.key for trial in bearing}) == N_TRIALS
