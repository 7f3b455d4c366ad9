"""How often a verdict falls where the truth is known: on noise, and on a planted effect."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation.statistics.folds import verdict
from hrl_sarp.evaluation.statistics.resampled import BootstrapPlan, bootstrap_annual_mean, interval
from hrl_sarp.metrics import without_rounding
from hrl_sarp.resampling import stationary_bootstrap


@dataclass(frozen=True)
class Share:
    """How many of several trials had an outcome, with the interval of the true share.

    Examples:
        >>> found = Share.of(5, 200, 0.95)
        >>> round(found.low, 3), round(found.high, 3)
        (0.011, 0.057)
    """

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int, confidence: float) -> "Share":
        """Take Wilson's interval, which holds near 0 and 1, too.

        Args:
            count: of the outcome.
            total: of the trials.
            confidence: 0.95 leaves 2.5 % on each side.

        Returns:
            The share.

        Raises:
            MetricError: without trials, or with more outcomes than trials.
        """
        # importing it takes a second, which every command would wait
        from scipy.stats import binomtest

        if not 0 <= count <= total or total < 1:
            raise MetricError(f"share of {count} in {total}: expected 0 <= count <= total")
        found = binomtest(count, total).proportion_ci(confidence, method="wilson")
        return cls(count, total, float(found.low), float(found.high))


def share_called_better(
    gain: Float[np.ndarray, " T"],
    effect: float,
    n_studies: int,
    plan: BootstrapPlan,
    periods_per_year: int,
    margin: int | float,
) -> Share:
    """Count how often the verdict is "better" on histories whose true mean is known.

    A history is drawn from the sessions of a study in blocks, so it has their tails and their
    dependence; the mean is taken out and the effect put in its place. An effect of 0 is noise.

    Args:
        gain: difference to a reference, one per session, as the study has it.
        effect: true annual mean of the histories, in the unit of `gain`.
        n_studies: histories, at least 1.
        plan: that the study takes its intervals by; histories have blocks as long as its.
        periods_per_year: 252 for sessions.
        margin: of the verdict, a year.

    Returns:
        The share of the histories, with its interval at the plan's confidence.

    Raises:
        MetricError: for a gain that is not finite.
    """
    if not np.isfinite(gain).all():
        raise MetricError("share of verdicts: expected a finite gain in every session, found NaN")
    # a stream of its own: the histories must not be the samples that evaluate them
    rng = np.random.default_rng([plan.seed, len(gain), 3])
    drawn = stationary_bootstrap(len(gain), plan.block_days, n_studies, rng)
    histories = without_rounding(gain - gain.mean())[drawn].T + effect / periods_per_year
    means = bootstrap_annual_mean(histories, plan.counts(len(gain)), periods_per_year)
    found = [
        verdict(interval(periods_per_year * float(own.mean()), samples, plan.confidence), margin)
        for own, samples in zip(histories.T, means.T, strict=True)
    ]
    return Share.of(found.count("better"), n_studies, plan.confidence)
