"""What a price-action run reached, as a table, a sentence and a figure; all numbers come in."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from rich.table import Table

BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#777777"
"""Of Okabe and Ito, which colour-blind readers can tell apart."""
_ROWS = (
    ("windows", "windows", "{:,d}"),
    ("base rate", "base_rate", "{:.4f}"),
    ("PR-AUC", "pr_auc", "{:.4f}"),
    ("PR-AUC - base rate, 95 % low", "lift_low", "{:+.4f}"),
    ("PR-AUC - base rate, 95 % high", "lift_high", "{:+.4f}"),
    ("PR-AUC, linear on last candle", "linear_pr_auc", "{:.4f}"),
    ("PR-AUC, rate of the hour", "hour_pr_auc", "{:.4f}"),
    ("base rate of falls", "fall_rate", "{:.4f}"),
    ("PR-AUC of the model for falls", "fall_pr_auc", "{:.4f}"),
    ("calls", "calls", "{:,d}"),
    ("precision", "precision", "{:.4f}"),
    ("recall", "recall", "{:.4f}"),
    ("F1", "f1", "{:.4f}"),
    ("F1 of calling all", "all_positive_f1", "{:.4f}"),
    ("accuracy", "accuracy", "{:.4f}"),
    ("accuracy of the majority", "majority_accuracy", "{:.4f}"),
)
_ONE_ANSWER = 0.01
"""Probabilities that differ by less are the same answer."""

Curve = tuple[Float[ndarray, " W"], Float[ndarray, " W"]]
"""Recall and precision."""


def results_table(spans: dict[str, dict[str, Any]], threshold: float) -> Table:
    """Return every measure beside its trivial baseline, one column per span."""
    table = Table(title=f"price action, threshold {threshold:.4f} chosen on validation")
    table.add_column("measure")
    for span in spans:
        table.add_column(span, justify="right")
    for title, key, form in _ROWS:
        table.add_row(title, *(form.format(values[key]) for values in spans.values()))
    return table


def verdict(history: Sequence[dict[str, Any]], spans: dict[str, dict[str, Any]]) -> str:
    """Say in one sentence whether anything was found, on data that chose nothing."""
    validation, test = spans["validation"], spans["test"]
    low, high = validation["score_low"], validation["score_high"]
    if high - low < _ONE_ANSWER:
        return (
            f"the model gives all windows of validation one probability ({low:.4f} to "
            f"{high:.4f}): its vectors have collapsed; try a lower --learning-rate"
        )
    if max(row["val_pr_auc"] for row in history) <= validation["base_rate"]:
        return (
            "no epoch beats the base rate on validation: the best checkpoint is written, "
            "but it has found nothing"
        )
    numbers = (
        f"PR-AUC {test['pr_auc']:.4f}, base rate {test['base_rate']:.4f}, logistic regression on "
        f"the last candle {test['linear_pr_auc']:.4f}, rate of the hour {test['hour_pr_auc']:.4f}"
    )
    if test["lift_low"] > 0.0:
        return f"on the test span the model beats the base rate ({numbers})"
    return f"on the test span the model cannot be told from the base rate ({numbers})"


def convergence_figure(
    history: Sequence[dict[str, Any]], spans: dict[str, dict[str, Any]], curves: dict[str, Curve]
) -> Figure:
    """Draw losses and PR-AUC over epochs, and the precision-recall curves of the best epoch."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    losses, areas, precision = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in history]
    best = min(history, key=lambda row: row["val_loss"])["epoch"]
    losses.plot(epochs, [row["train_loss"] for row in history], color=BLUE, label="training")
    losses.plot(epochs, [row["val_loss"] for row in history], color=VERMILION, label="validation")
    areas.plot(epochs, [row["val_pr_auc"] for row in history], color=VERMILION, label="validation")
    _level(areas, spans["validation"]["base_rate"], GREY, "base rate")
    for axes, title in ((losses, "weighted cross-entropy"), (areas, "PR-AUC, validation")):
        axes.axvline(best, color=GREY, linewidth=0.8, linestyle=":", label="best epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, title, "epoch")
    for (span, (recall, reached)), colour in zip(curves.items(), (VERMILION, BLUE), strict=True):
        precision.plot(recall, reached, color=colour, label=span)
        _level(precision, spans[span]["base_rate"], colour, f"base rate, {span}")
    _finish(precision, "precision over recall, best epoch", "recall")
    return figure


def _level(axes: Axes, height: float, colour: str, label: str) -> None:
    axes.axhline(height, color=colour, linewidth=0.8, linestyle="--", label=label)


def _finish(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
