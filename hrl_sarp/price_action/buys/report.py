"""Reports the measures of a run on buys, as a table, a sentence and a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from hrl_sarp.reporting.figure import Curve, Panel, convergence_figure
from hrl_sarp.reporting.table import NONE, Table

Spans = Mapping[str, Mapping[str, Any]]
"""Measures by span, validation and test, as `price_action_results.json` holds them."""

ROWS = (
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
"""Title, name and format of each measure in the table."""
ONE_ANSWER = 0.01
"""Probabilities that differ by less than this count as equal."""


def results_table(spans: Spans, threshold: float) -> Table:
    """Lay out every measure with its trivial baseline."""
    shown = {
        (name, span): NONE if values[name] is None else form.format(values[name])
        for _, name, form in ROWS
        for span, values in spans.items()
    }
    rows = [(title, *(shown[name, span] for span in spans)) for title, name, _ in ROWS]
    title = f"price action, threshold {threshold:.4f} chosen on validation"
    return Table(title, ("measure", *spans), rows)


def verdict(history: Sequence[Mapping[str, Any]], spans: Spans) -> str:
    """Say in one sentence whether the model beats the base rate on the test span."""
    validation, test = spans["validation"], spans["test"]
    low, high = validation["score_low"], validation["score_high"]
    if high - low < ONE_ANSWER:
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


def results_figure(
    history: Sequence[Mapping[str, Any]], spans: Spans, curves: Mapping[str, Curve]
) -> Figure:
    """Draw losses and PR-AUC over epochs, and the precision-recall curves of the best epoch."""
    epochs = [row["step"] for row in history]
    best = min(history, key=lambda row: row["val_loss"])["step"]
    names = ("total_loss", "val_loss", "val_pr_auc")
    training, validation, area = ((epochs, [row[name] for row in history]) for name in names)
    losses = {"training": training, "validation": validation}
    levels = {f"base rate, {span}": float(spans[span]["base_rate"]) for span in curves}
    return convergence_figure(
        [
            Panel("weighted cross-entropy", losses, best=best),
            Panel(
                "PR-AUC, validation",
                {"validation": area},
                levels={"base rate": float(spans["validation"]["base_rate"])},
                best=best,
            ),
            Panel("precision over recall, best epoch", curves, levels=levels, x_label="recall"),
        ]
    )
