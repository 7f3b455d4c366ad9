"""Rank correlation of scores and what followed, beside a ridge regression on the same rows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class RankingData:
    """Rows of the training span to fit on, rows of validation to judge on, and the scores."""

    train_features: Float[np.ndarray, "D N F"]
    train_label: Float[np.ndarray, "D N"]
    """Standardised across the stocks of each day."""
    train_mask: Bool[np.ndarray, "D N"]
    features: Float[np.ndarray, "V N F"]
    label: Float[np.ndarray, "V N"]
    mask: Bool[np.ndarray, "V N"]
    scores: Float[np.ndarray, "V N"]
    horizon: int
    """Sessions over which labels overlap."""


def fit_ridge(
    features: Float[np.ndarray, "D N F"],
    label: Float[np.ndarray, "D N"],
    mask: Bool[np.ndarray, "D N"],
    penalty: float,
) -> Float[np.ndarray, " F"]:
    """Fit a ridge regression without intercept (features and labels are centred each day).

    Args:
        features: standardised across each day.
        label: standardised across each day.
        mask: entries that count.
        penalty: times rows times the mean feature variance.

    Returns:
        Coefficients.
    """
    x, y = features[mask].astype(np.float64), label[mask]
    gram = x.T @ x
    scale = penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + scale * np.eye(len(gram)), x.T @ y)


def daily_rank_ic(
    scores: Float[np.ndarray, "V N"],
    label: Float[np.ndarray, "V N"],
    mask: Bool[np.ndarray, "V N"],
) -> Float[np.ndarray, " V"]:
    """Compute Spearman's correlation of scores and labels on each day; 0 where scores are equal."""
    correlations = np.zeros(len(scores))
    for day, chosen in enumerate(mask):
        first, second = _ranks(scores[day, chosen]), _ranks(label[day, chosen])
        spread = first.std() * second.std() if chosen.sum() > 1 else 0.0
        if spread > 0:
            centred = (first - first.mean()) * (second - second.mean())
            correlations[day] = centred.mean() / spread
    return correlations


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def mean_with_error(series: Float[np.ndarray, " V"], overlap: int) -> tuple[float, float]:
    """Return the mean and its Newey-West standard error (Bartlett weights, `overlap` lags).

    Source: Newey and West (1987), Econometrica 55(3).
    """
    centred = series - series.mean()
    n = len(series)
    variance = centred @ centred / n
    for lag in range(1, min(overlap, n - 1) + 1):
        weight = 1 - lag / (overlap + 1)
        variance += 2 * weight * (centred[lag:] @ centred[:-lag]) / n
    return float(series.mean()), float(np.sqrt(max(variance, 0.0) / n))


def compare_with_ridge(data: RankingData, penalty: float) -> dict[str, float]:
    """Put the scores' rank IC beside that of a ridge on the same universe, label and rows."""
    weights = fit_ridge(data.train_features, data.train_label, data.train_mask, penalty)
    ridge = daily_rank_ic(data.features @ weights, data.label, data.mask)
    scores = daily_rank_ic(data.scores, data.label, data.mask)
    mean, error = mean_with_error(scores, data.horizon)
    ridge_mean, ridge_error = mean_with_error(ridge, data.horizon)
    gap, gap_error = mean_with_error(scores - ridge, data.horizon)
    return {
        "rank_ic": mean,
        "rank_ic_se": error,
        "ridge_rank_ic": ridge_mean,
        "ridge_rank_ic_se": ridge_error,
        "rank_ic_minus_ridge": gap,
        "rank_ic_minus_ridge_se": gap_error,
    }
