"""The tables and the figure that a fine-tuning run writes.

| file | rows |
|---|---|
| epoch_metrics.csv | one an epoch; losses are plain sums over tasks, span measures of validation |
| loss_components.csv | train and val of each epoch; total_loss is what is minimised |
| uncertainty_params.csv | every 5th epoch; weights are shares of 1 / sigma^2 |
| probability_stats.csv | one an epoch: span probabilities of validation bars |
| feature_stats.csv | every 5th epoch, train and val: inputs as the encoder reads them |
| gradient_stats.csv | every 10th epoch: norms of its first batch, before clipping |

Epochs count from 1, and the first has a row in every table. A task that the variant lacks leaves
its cells empty.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from hrl_sarp.fitting import Epoch
from hrl_sarp.price_action.expansions.measures import TRIVIAL_RULES, separation, span_scores
from hrl_sarp.price_action.expansions.task import ExpansionTask, weighted_total
from hrl_sarp.reporting.figure import Curve, Panel, convergence_figure
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_text

STATS_EVERY, GRADIENTS_EVERY = 5, 10
"""Epochs between two rows."""
NAMES = {"type": "type", "pointers": "ptr", "span": "span", "countdown": "countdown"}
"""Of the tasks, in the columns."""
SUMMARY = ("mean", "std", "min", "max", "median")
COLUMNS = {
    "epoch_metrics": (
        *("epoch", "train_loss", "val_loss", "span_f1", "span_precision", "span_recall"),
        "epoch_time",
    ),
    "loss_components": (
        *("epoch", "phase", "loss_type", "loss_ptr", "loss_span", "loss_countdown"),
        "total_loss",
    ),
    "uncertainty_params": (
        *("epoch", "sigma_ptr", "sigma_type", "sigma_span", "sigma_countdown"),
        *("weight_ptr", "weight_type", "weight_span", "weight_countdown"),
    ),
    "probability_stats": (
        *("epoch", "phase", *(f"in_span_{name}" for name in SUMMARY)),
        *(f"out_span_{name}" for name in SUMMARY),
        "separation",
    ),
    "feature_stats": ("epoch", "phase", "feature_name", *SUMMARY),
    "gradient_stats": ("epoch", "total_grad_norm"),
}
"""Exact columns; gradient_stats goes on with one for each weight, by its name."""

Row = dict[str, Any]
Rows = dict[str, list[Row]]


def add_epoch(rows: Rows, epoch: Epoch, task: ExpansionTask, columns: Sequence[str]) -> None:
    """Add an epoch's rows to the tables."""
    number, probability = epoch.number + 1, task.found.inside
    inside = task.targets.inside[task.validation].cpu().numpy() > 0
    log_sigma = {name: value.detach().cpu() for name, value in task.module.log_sigmas().items()}
    train = {name: epoch.terms[f"train_{name}"] for name in log_sigma}
    val = {name: epoch.measures[f"val_{name}"] for name in log_sigma}
    val_total = float(weighted_total({n: torch.tensor(v) for n, v in val.items()}, log_sigma))
    scores = {} if probability is None else span_scores(probability, inside)
    losses = {"train_loss": sum(train.values()), "val_loss": epoch.loss}
    rows["epoch_metrics"].append({"epoch": number, **losses, **scores, "epoch_time": epoch.seconds})
    for phase, parts, total in (
        ("train", train, epoch.terms["total_loss"]),
        ("val", val, val_total),
    ):
        named = {f"loss_{NAMES[name]}": loss for name, loss in parts.items()}
        rows["loss_components"].append(
            {"epoch": number, "phase": phase, **named, "total_loss": total}
        )
    if probability is not None:
        apart = {"separation": separation(probability, inside)}
        said = {
            **summary(probability[inside], "in_span_"),
            **summary(probability[~inside], "out_span_"),
        }
        rows["probability_stats"].append({"epoch": number, "phase": "val", **said, **apart})
    if epoch.number % STATS_EVERY == 0:
        rows["uncertainty_params"].append({"epoch": number, **_sigmas(log_sigma)})
        for phase, chosen in (("train", task.train_rows), ("val", task.validation)):
            inputs = task.inputs[chosen].cpu().numpy()
            rows["feature_stats"] += [
                {"epoch": number, "phase": phase, "feature_name": name, **summary(inputs[..., i])}
                for i, name in enumerate(columns)
            ]
    if epoch.number % GRADIENTS_EVERY == 0:
        norm = math.hypot(*epoch.gradients.values())
        rows["gradient_stats"].append({"epoch": number, "total_grad_norm": norm, **epoch.gradients})


def summary(values: Float[np.ndarray, "..."], prefix: str = "") -> dict[str, float]:
    """Describe a distribution."""
    measured = (values.mean(), values.std(), values.min(), values.max(), np.median(values))
    return {f"{prefix}{name}": float(v) for name, v in zip(SUMMARY, measured, strict=True)}


def write_tables(folder: Path, rows: Rows) -> None:
    """Write the six files."""
    for name, columns in COLUMNS.items():
        seen = dict.fromkeys(column for row in rows[name] for column in row)
        more = [column for column in seen if column not in columns]
        text = io.StringIO()
        writer = csv.DictWriter(text, [*columns, *more], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name])
        write_text(folder / f"{name}.csv", text.getvalue())


def losses_figure(rows: Rows) -> Figure:
    """Draw losses, span F1 and separation over the epochs."""
    metrics, stats = rows["epoch_metrics"], rows["probability_stats"]
    losses = {
        "training": _curve(metrics, "train_loss"),
        "validation": _curve(metrics, "val_loss"),
    }
    return convergence_figure(
        [
            Panel("loss, sum over tasks", losses),
            Panel("span F1, validation", {"validation": _curve(metrics, "span_f1")}),
            Panel("mean probability in - out", {"validation": _curve(stats, "separation")}),
        ]
    )


def measure_table(
    title: str,
    model: Mapping[str, float],
    trivial: Mapping[str, float],
    rules: Mapping[str, Mapping[str, float]],
) -> Table:
    """Set the measures of a model beside those of rules and of constant answers."""
    shown = {
        name: [f"{found[name]:.3f}" if name in found else "-" for found in rules.values()]
        for name in model
    }
    return Table(
        title,
        ("measure", "model", *rules, "constant", "which says of every window"),
        [
            (name, f"{value:.3f}", *shown[name], f"{trivial[name]:.3f}", TRIVIAL_RULES[name])
            for name, value in model.items()
        ],
        note="Detection: the bars of the expansion are in the window. The fixed interval is the "
        "best one on the labels. The largest move is that of the close in ATR of the bar before; "
        "no network, and of the labels it knows the best length.",
        text_columns=frozenset({0, 3 + len(rules)}),
    )


def _curve(rows: Iterable[Row], name: str) -> Curve:
    found = [(float(row["epoch"]), float(row.get(name, np.nan))) for row in rows]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _sigmas(log_sigma: Mapping[str, Tensor]) -> Row:
    """Return sigma of each task, and its share of the sum of 1 / sigma^2."""
    sigma = {name: float(value.exp()) for name, value in log_sigma.items()}
    total = sum(value**-2 for value in sigma.values())
    shares = {f"weight_{NAMES[name]}": value**-2 / total for name, value in sigma.items()}
    return {**{f"sigma_{NAMES[name]}": value for name, value in sigma.items()}, **shares}
