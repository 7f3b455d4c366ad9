"""What the folds and seeds of a study say together: middles, improvements, signs, one verdict."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation.statistics.resampled import Interval
from hrl_sarp.resampling import draw_counts, stationary_bootstrap

Verdict = Literal["better", "not worse", "no difference shown", "worse"]


def interquartile_mean(values: Float[np.ndarray, " n"]) -> float:
    """Compute the mean of the middle half. Values on its border count in part.

    Args:
        values: in any order, at least one; NaN is not skipped.

    Returns:
        The mean; where n is a multiple of 4 it is the 25 % trimmed mean.

    Source:
        Agarwal et al. (2021), "Deep RL at the edge of the statistical precipice".
    """
    return float(np.sort(values) @ _middle_half(len(values)))


def _middle_half(n: int) -> Float[np.ndarray, " n"]:
    """Return the weights of ordered values in their interquartile mean."""
    edges = np.arange(n + 1) / n
    inside = np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25)
    return inside.clip(min=0.0) / 0.5


def bootstrap_interquartile_mean(
    scores: Float[np.ndarray, "samples F K"],
) -> Float[np.ndarray, " samples"]:
    """Compute the interquartile mean over folds and seeds of every sample.

    Args:
        scores: of `fold_scores`, with redrawn seeds.

    Returns:
        One mean for each sample.
    """
    flat = scores.reshape(len(scores), -1)
    return np.sort(flat, axis=1) @ _middle_half(flat.shape[1])


def probability_of_improvement(
    first: Float[np.ndarray, "*rows F K"], second: Float[np.ndarray, "*rows F L"]
) -> Float[np.ndarray, "*rows"]:
    """Compute how often a run of the first beats one of the second on a fold drawn at random.

    Args:
        first: a score for each fold and seed; larger is better.
        second: of the same folds, with seeds of its own.

    Returns:
        Share of the pairs of seeds, mean over the folds. Ties count half.

    Source:
        Agarwal et al. (2021), who take it from Mann and Whitney (1947).
    """
    difference = first[..., :, None] - second[..., None, :]
    wins = (difference > 0) + 0.5 * (difference == 0)
    return np.asarray(wins.mean(axis=(-3, -2, -1)))


def fold_counts(
    lengths: Sequence[int], block_days: int | float, n_samples: int, rng: np.random.Generator
) -> list[Float[np.ndarray, "samples _"]]:
    """Resample the dates of each fold by itself; a fold stays a fold.

    Args:
        lengths: sessions of each fold.
        block_days: mean length of a block.
        n_samples: resampled histories.
        rng: source of the draws.

    Returns:
        How often each session of a fold is drawn in each sample. Row 0 is the history itself.
    """
    return [
        np.concatenate(
            [
                np.ones((1, n)),
                draw_counts(stationary_bootstrap(n, min(block_days, n), n_samples, rng)),
            ]
        )
        for n in lengths
    ]


def fold_scores(
    series: Sequence[Float[np.ndarray, "_ K"]],
    counts: Sequence[Float[np.ndarray, "samples _"]],
    periods_per_year: int,
) -> Float[np.ndarray, "samples F K"]:
    """Compute the annualised mean of every fold and seed in every sample.

    Args:
        series: of each fold, one column for each seed; NaN is not skipped.
        counts: of `fold_counts`. Series that share them are paired.
        periods_per_year: 252 for sessions.

    Returns:
        Row 0 holds the means of the history itself.
    """
    means = [
        drawn @ one * (periods_per_year / len(one))
        for one, drawn in zip(series, counts, strict=True)
    ]
    return np.stack(means, axis=1)


def sign_test(differences: Float[np.ndarray, " n"]) -> float:
    """Test whether folds are won as often as lost, whatever the size of what is won.

    Args:
        differences: one for each fold; a 0 is neither won nor lost and is left out.

    Returns:
        Two-sided p value; 1.0 if nothing is left.

    Raises:
        MetricError: if a difference is not finite.
    """
    # importing it takes a second, which every command would wait
    from scipy.stats import binomtest

    if not np.isfinite(differences).all():
        raise MetricError("sign test: expected finite differences, found others; leave folds out")
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def verdict(found: Interval, margin: int | float) -> Verdict:
    """Say what an interval shows of a difference, and nothing that it does not show.

    Args:
        found: difference to a reference; larger is better. Its value is not read.
        margin: largest loss that counts as none, above 0, in the unit of the interval.

    Returns:
        "better" if the interval lies above 0 and "worse" if it lies below 0, even within the
        margin. Else "not worse" if it lies above -margin, and "no difference shown" otherwise.

    Raises:
        MetricError: if the margin is negative or an end is not finite.
    """
    if margin < 0 or not np.isfinite([found.low, found.high]).all():
        raise MetricError(
            f"verdict on [{found.low}, {found.high}] with margin {margin}: expected finite ends "
            "and a margin of at least 0"
        )
    if found.low > 0:
        return "better"
    if found.high < 0:
        return "worse"
    return "not worse" if found.low > -margin else "no difference shown"
