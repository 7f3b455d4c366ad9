"""Ridge regression of stock labels on the market's features: the bar every network has to clear."""

import numpy as np
from jaxtyping import Bool, Float

from hrl_sarp.config.schema import EvaluationConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import MarketError
from hrl_sarp.features.labels import stock_label

CHUNK_DAYS = 64
"""Days whose features are multiplied at a time, to bound the memory."""


def fit_ridge(market: Market, span: DayRange, section: EvaluationConfig) -> Float[np.ndarray, " F"]:
    """Fit next-`ridge_label_days` returns, standardised across each day's stocks, in closed form.

    Args:
        market: features and returns.
        span: only rows whose label ends inside it are used.
        section: label and penalty, which is times rows x mean feature variance.

    Returns:
        One coefficient per feature; there is no intercept, for both sides are centred by day.

    Raises:
        MarketError: if the span has no row with a complete label.
    """
    labels, complete = stock_label(market, section.ridge_label_days)
    rows = np.arange(span.start, max(span.start, span.stop - 1 - section.ridge_label_days))
    rows = rows[complete[rows]]
    members = market.eligible & market.tradable
    n_features = market.stock_features.shape[2]
    gram, moment, count = np.zeros((n_features, n_features)), np.zeros(n_features), 0
    for start in range(0, len(rows), CHUNK_DAYS):
        chunk = rows[start : start + CHUNK_DAYS]
        mask = members[chunk] & np.isfinite(labels[chunk])
        features = market.stock_features[chunk][mask].astype(np.float64)
        target = _standardised(labels[chunk], mask)[mask]
        gram += features.T @ features
        moment += features.T @ target
        count += len(target)
    variance = float(np.trace(gram)) / max(count * n_features, 1)
    if variance <= 0:
        raise MarketError(
            f"ridge baseline: rows [{span.start}, {span.stop}) hold no stock with features and a "
            f"label of {section.ridge_label_days} sessions; lengthen the training span or leave "
            "'ridge' out of evaluation.baselines"
        )
    penalty = section.ridge_penalty * count * variance
    return np.linalg.solve(gram + penalty * np.eye(n_features), moment)


def _standardised(
    labels: Float[np.ndarray, "D A"], mask: Bool[np.ndarray, "D A"]
) -> Float[np.ndarray, "D A"]:
    """Centre and scale each day's labels over its members; days without spread become 0."""
    count = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    mean = np.where(mask, labels, 0.0).sum(axis=1, keepdims=True) / count
    centred = np.where(mask, labels - mean, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return centred / np.where(deviation > 0, deviation, 1.0)
