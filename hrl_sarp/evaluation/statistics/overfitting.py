"""Whether the best of many configurations is better than luck: overfitting and reality checks."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import ROUNDING

BLOCKS = 16
"""Blocks of dates of the cross-validation: 12,870 splits into halves."""
FEWEST_CONFIGURATIONS = 16
"""With fewer the ranks of a split are too coarse to speak of a probability."""
CHUNK = 1000
"""Splits that are computed at a time, which bounds the memory."""


def probability_of_overfitting(
    simple_returns: Float[np.ndarray, "T N"], n_blocks: int = BLOCKS
) -> float:
    """Compute how often the best configuration of one half is below the median of the other.

    Combinatorially symmetric cross-validation: the dates are cut into blocks, and every choice of
    half of them selects the configuration with the best Sharpe ratio, whose rank in the other half
    is looked at. The rank is out of N + 1, as in the source: out of N the last place would have an
    infinite logit. A block is longer by one session where T is no multiple; none is left out.

    Args:
        simple_returns: net and per period, one column for each configuration; less cash or less a
            benchmark, as the selection compared them. NaN is refused.
        n_blocks: even; 16 give 12,870 splits.

    Returns:
        A probability. 0.5 is what selection without any skill comes to.

    Raises:
        MetricError: for a table that is too small or not finite, or an odd number of blocks.

    Source:
        Bailey, Borwein, Lopez de Prado and Zhu (2017), "The probability of backtest overfitting".
    """
    n_periods, n_configurations = simple_returns.shape
    is_usable = n_blocks >= 2 and n_blocks % 2 == 0 and n_periods >= 2 * n_blocks
    if not is_usable or n_configurations < 2 or not np.isfinite(simple_returns).all():
        raise MetricError(
            f"overfitting of {n_configurations} configurations over {n_periods} periods in "
            f"{n_blocks} blocks: expected finite returns of at least 2 configurations, an even "
            "number of blocks and two periods in each; take fewer blocks or a longer span"
        )
    sums = _block_sums(simple_returns, n_blocks)
    halves = _halves(n_blocks)
    below = 0
    for first in range(0, len(halves), CHUNK):
        inside = halves[first : first + CHUNK]
        chosen = _ratios(inside, *sums).argmax(axis=1)[:, None]
        outside = _ratios(~inside, *sums)
        own = np.take_along_axis(outside, chosen, axis=1)
        # mean rank of ties, from 1; at most the middle of N + 1 is a logit of at most 0
        lower = (outside < own - ROUNDING).sum(axis=1)
        ties = (outside <= own + ROUNDING).sum(axis=1) - lower
        rank = lower + 0.5 * (ties + 1)
        below += int((rank / (n_configurations + 1) <= 0.5).sum())
    return below / len(halves)


def _halves(n_blocks: int) -> Bool[np.ndarray, "splits blocks"]:
    """Return every choice of half of the blocks."""
    chosen = np.array(list(combinations(range(n_blocks), n_blocks // 2)))
    halves = np.zeros((len(chosen), n_blocks), dtype=bool)
    np.put_along_axis(halves, chosen, values=True, axis=1)
    return halves


def _block_sums(
    values: Float[np.ndarray, "T N"], n_blocks: int
) -> tuple[
    Float[np.ndarray, " blocks"],
    Float[np.ndarray, "blocks N"],
    Float[np.ndarray, "blocks N"],
    Float[np.ndarray, " N"],
]:
    """Return periods, sums and sums of squares of each block after the mean, and the mean."""
    centre = values.mean(axis=0)  # taken out first, to keep digits of the variance
    blocks = np.array_split(values - centre, n_blocks)
    lengths = np.array([float(len(block)) for block in blocks])
    sums = np.stack([block.sum(axis=0) for block in blocks])
    squares = np.stack([(block**2).sum(axis=0) for block in blocks])
    return lengths, sums, squares, centre


def _ratios(
    masks: Bool[np.ndarray, "splits blocks"],
    lengths: Float[np.ndarray, " blocks"],
    sums: Float[np.ndarray, "blocks N"],
    squares: Float[np.ndarray, "blocks N"],
    centre: Float[np.ndarray, " N"],
) -> Float[np.ndarray, "splits N"]:
    """Compute the Sharpe ratio of each configuration over the blocks of each mask."""
    weights = masks.astype(np.float64)
    count = (weights @ lengths)[:, None]
    shift = weights @ sums / count
    variance = (weights @ squares / count - shift**2) * count / (count - 1)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    ratio = np.zeros_like(deviation)
    return np.divide(shift + centre, deviation, out=ratio, where=deviation > ROUNDING)


def superior_predictive_ability(
    benchmark: Float[np.ndarray, " _"],
    models: Float[np.ndarray, "T N"],
    block_days: int,
    samples: int,
    seed: int,
) -> float:
    """Test whether the best of several policies beats a benchmark by more than the luck of search.

    Args:
        benchmark: what it earned per period; NaN is refused.
        models: what each policy earned over the same periods.
        block_days: mean block of the stationary bootstrap.
        samples: resampled histories.
        seed: of the draws.

    Returns:
        The consistent p value; 0.0 if a policy earns more in every period by the same amount, 1.0
        if none differs in any other way.

    Raises:
        MetricError: for returns that are not finite or not over the same periods.

    Source:
        Hansen (2005), "A test for superior predictive ability"; library `arch`.
    """
    from arch.bootstrap import SPA  # here, because it takes seconds to import

    moving, surely_better = _differing(benchmark, models)
    if surely_better.any() or not moving.any():
        return 0.0 if surely_better.any() else 1.0
    rng = np.random.default_rng(seed)
    test = SPA(-benchmark, -models[:, moving], block_size=block_days, reps=samples, seed=rng)
    test.compute()
    return float(test.pvalues["consistent"])


def superior_policies(
    benchmark: Float[np.ndarray, " _"],
    models: Float[np.ndarray, "T N"],
    block_days: int,
    samples: int,
    seed: int,
    size: float = 0.05,
) -> list[int]:
    """Name the policies that beat a benchmark, with one error rate over all of them.

    Args:
        benchmark: what it earned per period; NaN is refused.
        models: what each policy earned over the same periods.
        block_days: mean block of the stationary bootstrap.
        samples: resampled histories.
        seed: of the draws.
        size: probability that any of the named ones is none.

    Returns:
        Columns in ascending order; none where none is shown.

    Raises:
        MetricError: for returns that are not finite or not over the same periods.

    Source:
        Romano and Wolf (2005), "Stepwise multiple testing"; library `arch`.
    """
    from arch.bootstrap import StepM  # here, because it takes seconds to import

    moving, surely_better = _differing(benchmark, models)
    columns, sure = np.flatnonzero(moving), np.flatnonzero(surely_better)
    if not len(columns):
        return [int(place) for place in sure]
    rng = np.random.default_rng(seed)
    test = StepM(
        -benchmark, -models[:, columns], size, block_size=block_days, reps=samples, seed=rng
    )
    test.compute()
    found = columns[np.array(test.superior_models, dtype=np.int64)]
    return sorted(int(place) for place in (*sure, *found))


def _differing(
    benchmark: Float[np.ndarray, " _"], models: Float[np.ndarray, "T N"]
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Say which policies differ from period to period, and which earn a constant amount more.

    The others are the benchmark itself, or it less a constant: a deviation of 0 has no test.
    """
    if len(benchmark) != len(models) or not np.isfinite(models).all():
        raise MetricError(
            f"reality check of {len(models)} periods against {len(benchmark)} of the benchmark: "
            "expected finite returns over the same periods; align them by date"
        )
    difference = models - benchmark[:, None]
    moves = difference.std(axis=0) > ROUNDING
    return moves, ~moves & (difference.mean(axis=0) > ROUNDING)
