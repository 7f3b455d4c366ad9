"""Series that tests of statistics draw."""

import numpy as np


def persistent(correlation: float, n: int = 2000, seed: int = 0) -> np.ndarray:
    """Draw an AR(1) series of mean 1."""
    noise = np.random.default_rng(seed).standard_normal(n)
    series = np.zeros(n)
    for i in range(1, n):
        series[i] = correlation * series[i - 1] + noise[i]
    return 1.0 + series
