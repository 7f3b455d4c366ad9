"""How good a yes-or-no classifier is, beside what knows nothing; pure functions of its scores."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression

from hrl_sarp.errors import MetricError

RESAMPLES = 1000
"""Draws of a bootstrap interval."""
LINEAR_STEPS = 1000
"""Of the solver of a logistic regression, at most."""
INTERVAL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""

Scores = Float[np.ndarray, " W"]
Labels = Int[np.ndarray, " W"]


@dataclass(frozen=True)
class Calls:
    """What calling every score from a threshold on gives."""

    threshold: float
    calls: int
    accuracy: float
    precision: float
    """0 if nothing is called."""
    recall: float
    f1: float


@dataclass(frozen=True)
class Trivial:
    """What is reached without looking."""

    base_rate: float
    """Share of positives: the precision of random calls, and their PR-AUC."""
    all_positive_f1: float
    majority_accuracy: float


def judge_calls(scores: Scores, labels: Labels, threshold: float) -> Calls:
    """Compare the calls `score >= threshold` with labels 0 and 1."""
    called, positive = scores >= threshold, labels == 1
    hits = int((called & positive).sum())
    precision = hits / max(int(called.sum()), 1)
    recall = hits / max(int(positive.sum()), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    accuracy = float((called == positive).mean())
    return Calls(float(threshold), int(called.sum()), accuracy, precision, recall, f1)


def judge_trivial(labels: Labels) -> Trivial:
    """Compute the baselines of labels 0 and 1."""
    rate = float((labels == 1).mean())
    return Trivial(rate, 2 * rate / (1 + rate), max(rate, 1 - rate))


def pr_auc(scores: Scores, labels: Labels) -> float:
    """Compute the area below the precision-recall curve as average precision.

    sum over distinct scores, highest first, of (recall gained) x (precision there). Equal scores
    are called together, so a constant score reaches exactly the base rate.

    Raises:
        MetricError: without a positive label.
    """
    _, calls, hits = _cumulative(scores, labels)
    if hits[-1] == 0:
        raise MetricError("PR-AUC needs a positive label, found none; use a longer span")
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / calls).sum() / hits[-1])


def choose_threshold(scores: Scores, labels: Labels, min_calls: int) -> float:
    """Return the threshold of highest precision among those with at least `min_calls` calls.

    Of equal precisions the one with most calls. The precision reached on the scores that chose it
    is too good: report it on others.

    Raises:
        MetricError: if there are fewer scores than `min_calls`.
    """
    thresholds, calls, hits = _cumulative(scores, labels)
    if calls[-1] < min_calls:
        raise MetricError(
            f"a threshold with {min_calls} calls needs as many scores, found {calls[-1]}; "
            "lower encoders.price_action.min_calls"
        )
    precision = np.where(calls >= min_calls, hits / calls, -1.0)
    return float(thresholds[np.flatnonzero(precision == precision.max())[-1]])


def lift_interval(
    scores: Scores, labels: Labels, block: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Bootstrap a 95 % interval of PR-AUC minus base rate.

    Blocks of consecutive windows are drawn, because neighbours share candles and label horizons.

    Args:
        scores: in the order of time.
        labels: of the same windows.
        block: windows drawn together.
        rng: what is drawn from.

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
    judged: Float[np.ndarray, "W F"],
) -> Scores:
    """Return the probabilities of a logistic regression: what needs no deep network.

    Both classes weigh alike in its fit.
    """
    model = LogisticRegression(max_iter=LINEAR_STEPS, class_weight="balanced")
    found: Scores = model.fit(train, labels).predict_proba(judged)[:, 1]
    return found


def pr_curve(
    scores: Scores, labels: Labels
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """Return recall and precision at every distinct score, highest first."""
    _, calls, hits = _cumulative(scores, labels)
    return hits / max(int(hits[-1]), 1), hits / calls


def _cumulative(
    scores: Scores, labels: Labels
) -> tuple[Float[np.ndarray, " U"], Int[np.ndarray, " U"], Int[np.ndarray, " U"]]:
    """Return distinct scores, highest first, with how many are called there, and how many hit."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.diff(ordered, append=-np.inf))  # of each run of equal scores
    return ordered[last], last + 1, np.cumsum(labels[order])[last]
