"""Measures of a binary classifier and of baselines that know nothing, from scores and labels.

All functions take W scores in the order of time, where higher means "yes", and labels 0 or 1.
scikit-learn, which counts the calls, refuses NaN.
"""

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
)

from hrl_sarp.errors import MetricError

RESAMPLES = 1000
"""Number of bootstrap samples of an interval."""
LINEAR_STEPS = 1000
"""Largest number of iterations of the logistic regression's solver."""
INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""

Scores = Float[np.ndarray, " W"]
Labels = Int[np.ndarray, " W"]


def evaluate_calls(scores: Scores, labels: Labels, threshold: float) -> dict[str, float]:
    """Compare the calls `score >= threshold` with the labels; a measure of 0 / 0 is 0."""
    called = scores >= threshold
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, called, average="binary", zero_division=0
    )
    return {
        "threshold": float(threshold),
        "calls": int(called.sum()),
        "accuracy": float(accuracy_score(labels, called)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def evaluate_trivial(labels: Labels) -> dict[str, float]:
    """Compute the measures of random calls, of calling all, and of the more frequent class.

    The base rate, the share of positives, is the precision and the PR-AUC of random calls.
    """
    rate = float((labels == 1).mean())
    return {
        "base_rate": rate,
        "all_positive_f1": 2 * rate / (1 + rate),
        "majority_accuracy": max(rate, 1 - rate),
    }


def pr_auc(scores: Scores, labels: Labels) -> float:
    """Compute the area below the precision-recall curve as average precision.

    Equal scores are called together, so a constant score reaches exactly the base rate.
    """
    if not labels.any():
        raise MetricError("PR-AUC needs a positive label, found none; use a longer span")
    return float(average_precision_score(labels, scores))


def choose_threshold(scores: Scores, labels: Labels, min_calls: int) -> float:
    """Find the threshold of highest precision among those with enough calls.

    At equal precision the threshold with most calls is taken. The precision on these scores is
    too high, because they chose the threshold, so report that on others.
    """
    if len(scores) < min_calls:
        raise MetricError(
            f"a threshold with {min_calls} calls needs as many scores, found {len(scores)}; "
            "lower encoders.price_action.min_calls"
        )
    precision, _, thresholds = precision_recall_curve(labels, scores)
    calls = len(scores) - np.searchsorted(np.sort(scores), thresholds)
    # thresholds ascend, so the first of equal precisions has most calls
    return float(thresholds[np.where(calls >= min_calls, precision[:-1], -1.0).argmax()])


def lift_interval(
    scores: Scores, labels: Labels, block: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Bootstrap a 95 % interval of PR-AUC minus base rate.

    Blocks of consecutive windows are drawn, because neighbours share candles and label horizons.
    Draws without a positive label are left out.

    Source:
        Künsch (1989), "The jackknife and the bootstrap for general stationary observations".
    """
    block = min(block, len(scores))
    n_blocks = -(-len(scores) // block)
    lifts = []
    for first in rng.integers(0, len(scores) - block + 1, size=(RESAMPLES, n_blocks)):
        rows = (first[:, None] + np.arange(block)).ravel()[: len(scores)]
        if labels[rows].any():
            lifts.append(pr_auc(scores[rows], labels[rows]) - float(labels[rows].mean()))
    low, high = np.percentile(lifts, INTERVAL)
    return float(low), float(high)


def linear_scores(
    train: Float[np.ndarray, "N F"],
    labels: Int[np.ndarray, " N"],
    evaluated: Float[np.ndarray, "W F"],
) -> Scores:
    """Score windows by a logistic regression whose fit gives both classes equal weight."""
    model = LogisticRegression(max_iter=LINEAR_STEPS, class_weight="balanced")
    found: Scores = model.fit(train, labels).predict_proba(evaluated)[:, 1]
    return found


def pr_curve(
    scores: Scores, labels: Labels
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """Return recall and precision at each of the U distinct scores, highest first."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return recall[-2::-1], precision[-2::-1]
