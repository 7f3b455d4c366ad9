"""Advantages compared among rows that live through the same day."""

import numpy as np
from jaxtyping import Float, Shaped


def compare_on_same_day(
    advantages: Float[np.ndarray, "T B"], days: Shaped[np.ndarray, "T B"]
) -> Float[np.ndarray, "T B"]:
    """Subtract from each advantage the mean of the other rows that stood on the same day.

    The market is exogenous, so rows of one day earn on the same returns whatever they decide: what
    they earn in common is noise to the gradient. The others' mean does not depend on the row's own
    action, so the gradient stays unbiased. A row alone on its day keeps its advantage.

    Args:
        advantages: of a rollout of T steps and B environments.
        days: market row of each observation.

    Source:
        Mao et al. (2019), Variance reduction for reinforcement learning in input-driven
        environments; leave-one-out as in Kool, van Hoof and Welling (2019).
    """
    result = advantages.copy()
    for step, day in enumerate(days):
        _, place, count = np.unique(day, return_inverse=True, return_counts=True)
        others = count[place] - 1
        mean = np.bincount(place, weights=advantages[step])[place] / count[place]
        own = (advantages[step] - mean) * count[place] / np.maximum(others, 1)
        result[step] = np.where(others > 0, own, advantages[step])
    return result
