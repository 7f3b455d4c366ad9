"""Measures of found expansions, for a model and for rules that ignore the windows.

A label depends only on bars of its window, so these are measures of detection, not of forecasts.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import precision_recall_fscore_support

F1 = "span_f1"
THRESHOLD = 0.5
"""A bar counts as inside at this probability and above."""
HIT_BARS = (1, 3, 5)
"""Distances between the centers, in bars, that count as hits."""
CALIBRATION_BINS = 15
RUN_BARS = range(2, 31)
"""Lengths of runs of bars that are tried on labels."""
ROUNDING_BARS = 1e-4
"""Rounding of single precision, so that a center exactly k bars off is a hit."""
TRIVIAL_RULES = {
    "span_f1": "every bar inside",
    "span_precision": "every bar inside",
    "span_recall": "every bar inside",
    "run_f1": "the place and length best on training windows",
    **{f"hit_at_{k}": "the place that hits most training windows" for k in HIT_BARS},
    "iou": "the place and length best on training windows",
    "type_accuracy": "the class most frequent in training",
    "separation": "one probability for all bars",
    "ece": "the share of bars inside in training",
}
"""The rule of each measure's baseline, which gives every window the same answer."""


@dataclass(frozen=True)
class Truth:
    """The labels of W windows of L bars."""

    label: Int[np.ndarray, " W"]
    pointers: Float[np.ndarray, "W 2"]
    """Center and length, as in `task.make_targets`."""
    inside: Bool[np.ndarray, "W L"]


@dataclass(frozen=True)
class Found:
    """Answers of a model; None for tasks that it lacks."""

    label: Int[np.ndarray, " W"] | None
    pointers: Float[np.ndarray, "W 2"] | None
    inside: Float[np.ndarray, "W L"] | None
    """Probability that a bar belongs to the expansion."""


def measures(found: Found, truth: Truth, run_bars: int) -> dict[str, float]:
    """Measure a model's answers for some windows.

    `run_f1` is the F1 of the run of `run_bars` bars of greatest probability. It asks a model what
    a rule is asked that says one run of bars, and does not depend on a threshold.
    """
    result: dict[str, float] = {}
    if found.inside is not None:
        result |= span_scores(found.inside, truth.inside)
        result["run_f1"] = span_scores(likeliest_run(found.inside, run_bars), truth.inside)[F1]
    if found.pointers is not None:
        n_bars = truth.inside.shape[1]
        away = center_distance(found.pointers, truth.pointers, n_bars)
        result |= {f"hit_at_{k}": hit_rate(away, k) for k in HIT_BARS}
        result["iou"] = float(interval_iou(found.pointers, truth.pointers, n_bars).mean())
    if found.label is not None:
        result["type_accuracy"] = float((found.label == truth.label).mean())
    if found.inside is not None:
        result["separation"] = separation(found.inside, truth.inside)
        result["ece"] = calibration_error(found.inside, truth.inside)
    return result


def trivial_measures(training: Truth, truth: Truth) -> dict[str, float]:
    """Measure the rules of `TRIVIAL_RULES`, which ignore the windows."""
    n_windows, n_bars = truth.inside.shape
    everywhere = np.ones((n_windows, n_bars))
    result = span_scores(everywhere, truth.inside)
    half_bars = np.arange(2 * n_bars - 1) / 2 / (n_bars - 1)
    away = np.abs(half_bars[:, None] - training.pointers[:, 0]) * (n_bars - 1)
    for k in HIT_BARS:
        best = half_bars[(away <= k + ROUNDING_BARS).mean(axis=1).argmax()]
        found = center_distance(np.array([[best, 0.0]]), truth.pointers, n_bars)
        result[f"hit_at_{k}"] = hit_rate(found, k)
    constant = best_interval(training.pointers, n_bars)
    result["iou"] = float(interval_iou(constant, truth.pointers, n_bars).mean())
    bars, (low, high) = np.arange(n_bars) + 0.5, _edges(constant, n_bars)
    interval = ((bars > low) & (bars < high)).astype(np.float64)
    result["run_f1"] = span_scores(np.tile(interval, (n_windows, 1)), truth.inside)[F1]
    majority = np.bincount(training.label).argmax()
    result["type_accuracy"] = float((truth.label == majority).mean())
    share = training.inside.mean() * everywhere
    result["separation"] = separation(share, truth.inside)
    result["ece"] = calibration_error(share, truth.inside)
    return result


def span_scores(
    probability: Float[np.ndarray, "W L"], inside: Bool[np.ndarray, "W L"]
) -> dict[str, float]:
    """Measure the calls `probability >= THRESHOLD` in each window, then average over windows.

    Precision is 0 where no bar is called; each window has some bar inside.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        inside, probability >= THRESHOLD, average="samples", zero_division=0
    )
    return {F1: float(f1), "span_precision": float(precision), "span_recall": float(recall)}


def likeliest_run(probability: Float[np.ndarray, "W L"], n_bars: int) -> Float[np.ndarray, "W L"]:
    """Mark the run of `n_bars` bars with the greatest sum in each window, the first of equals."""
    length = probability.shape[1]
    sums = np.cumsum(np.pad(probability, ((0, 0), (1, 0))), axis=1)
    first = (sums[:, n_bars:] - sums[:, : length - n_bars + 1]).argmax(axis=1)
    bars = np.arange(length)
    inside = (bars >= first[:, None]) & (bars < first[:, None] + n_bars)
    return inside.astype(np.float64)


def likeliest_bars(probability: Float[np.ndarray, "W L"], inside: Bool[np.ndarray, "W L"]) -> int:
    """Choose the length among `RUN_BARS` for which the likeliest runs fit labels best."""
    scores = [span_scores(likeliest_run(probability, n), inside)[F1] for n in RUN_BARS]
    return RUN_BARS[int(np.argmax(scores))]


def center_distance(
    found: Float[np.ndarray, "#W 2"], truth: Float[np.ndarray, "W 2"], n_bars: int
) -> Float[np.ndarray, " W"]:
    """Measure how many bars centers are apart; one row of `found` stands for all windows."""
    return np.abs(found[:, 0] - truth[:, 0]) * (n_bars - 1)


def hit_rate(distance_bars: Float[np.ndarray, " W"], k: int) -> float:
    """Compute the share of windows whose centers are at most k bars apart."""
    return float((distance_bars <= k + ROUNDING_BARS).mean())


def interval_iou(
    found: Float[np.ndarray, "*M 2"], truth: Float[np.ndarray, "*W 2"], n_bars: int
) -> np.ndarray:
    """Compute intersection over union of the intervals that pointers name; broadcasts."""
    low, high = _edges(found, n_bars)
    begin, end = _edges(truth, n_bars)
    shared = np.clip(np.minimum(high, end) - np.maximum(low, begin), 0.0, None)
    return shared / ((high - low) + (end - begin) - shared)


def best_interval(training: Float[np.ndarray, "W 2"], n_bars: int) -> Float[np.ndarray, "1 2"]:
    """Find the interval around a whole bar that overlaps training windows most."""
    places, lengths = np.arange(n_bars) / (n_bars - 1), np.unique(training[:, 1])
    choices = np.stack(np.meshgrid(places, lengths, indexing="ij"), axis=2).reshape(-1, 1, 2)
    overlap = interval_iou(choices, training, n_bars)
    return choices[overlap.mean(axis=1).argmax()]


def separation(probability: Float[np.ndarray, "W L"], inside: Bool[np.ndarray, "W L"]) -> float:
    """Compute the mean probability of bars inside less that of bars outside."""
    return float(probability[inside].mean() - probability[~inside].mean())


def calibration_error(
    probability: Float[np.ndarray, "W L"], inside: Bool[np.ndarray, "W L"]
) -> float:
    """Compute the expected calibration error over bars, in bins of equal width.

    Source:
        Guo et al. (2017), "On calibration of modern neural networks", equation 3.
    """
    p, y = probability.ravel(), inside.ravel()
    bins = np.minimum((p * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=p - y, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(p))


def _edges(pointers: Float[np.ndarray, "*N 2"], n_bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of each interval, in bars: bar t covers t to t + 1."""
    middle, half = pointers[..., 0] * (n_bars - 1) + 0.5, pointers[..., 1] * n_bars / 2
    return middle - half, middle + half
