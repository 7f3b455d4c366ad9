"""What a fine-tuning run leaves to look at: six tables, one figure, and the table of its measures.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from hrl_sarp.price_action.expansions.losses import task_weights
from hrl_sarp.price_action.expansions.measures import TRIVIAL_RULES, separation, span_scores
from hrl_sarp.price_action.expansions.model import TASKS
from hrl_sarp.price_action.expansions.training import Epoch
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


def empty_rows() -> Rows:
    """Return the six tables without rows."""
    return {name: [] for name in COLUMNS}


@dataclass(frozen=True)
class View:
    """What of the data the tables look at."""

    inside: Bool[np.ndarray, "W L"]
    """Bars of the validation windows' expansions."""
    inputs: dict[str, Float[np.ndarray, "V L F"]]
    """As the encoder reads them, of train and val."""
    columns: Sequence[str]
    """Of the inputs."""


def add_epoch(rows: Rows, epoch: Epoch, view: View) -> None:
    """Add an epoch's rows to the tables."""
    number, found = epoch.number, epoch.found.inside
    scores = {} if found is None else span_scores(found, view.inside)
    losses = {"train_loss": sum(epoch.train.values()), "val_loss": epoch.val_loss}
    rows["epoch_metrics"].append({"epoch": number, **losses, **scores, "epoch_time": epoch.seconds})
    rows["loss_components"] += [
        loss_row(number, "train", epoch.train, epoch.train_total),
        loss_row(number, "val", epoch.val, epoch.val_total),
    ]
    if found is not None:
        rows["probability_stats"].append(probability_row(number, found, view.inside))
    if is_due(number, STATS_EVERY):
        rows["uncertainty_params"].append(uncertainty_row(number, epoch.log_sigma))
        for phase, inputs in view.inputs.items():
            rows["feature_stats"] += feature_rows(number, phase, view.columns, inputs)
    if is_due(number, GRADIENTS_EVERY):
        rows["gradient_stats"].append({"epoch": number, **epoch.gradients})


def is_due(epoch: int, every: int) -> bool:
    """Say whether an epoch, counted from 1, has a row in a table of every so many epochs."""
    return (epoch - 1) % every == 0


def loss_row(epoch: int, phase: str, losses: Mapping[str, float], total: float) -> Row:
    """Return a row of loss_components."""
    parts = {f"loss_{NAMES[task]}": losses.get(task) for task in TASKS}
    return {"epoch": epoch, "phase": phase, **parts, "total_loss": total}


def uncertainty_row(epoch: int, log_sigma: Mapping[str, float]) -> Row:
    """Return a row of uncertainty_params."""
    weights = task_weights(log_sigma)
    sigmas = {f"sigma_{NAMES[task]}": float(np.exp(value)) for task, value in log_sigma.items()}
    shares = {f"weight_{NAMES[task]}": value for task, value in weights.items()}
    return {"epoch": epoch, **sigmas, **shares}


def probability_row(
    epoch: int, probability: Float[np.ndarray, "W L"], inside: Bool[np.ndarray, "W L"]
) -> Row:
    """Return a row of probability_stats."""
    parts = {"in_span": probability[inside], "out_span": probability[~inside]}
    summaries = {
        f"{part}_{name}": value
        for part, values in parts.items()
        for name, value in summary(values).items()
    }
    row = {"epoch": epoch, "phase": "val", **summaries}
    return {**row, "separation": separation(probability, inside)}


def feature_rows(
    epoch: int, phase: str, columns: Sequence[str], inputs: Float[np.ndarray, "W L F"]
) -> list[Row]:
    """Return the rows of feature_stats for one part of the windows."""
    return [
        {"epoch": epoch, "phase": phase, "feature_name": name, **summary(inputs[..., place])}
        for place, name in enumerate(columns)
    ]


def summary(values: Float[np.ndarray, "..."]) -> dict[str, float]:
    """Return mean, std, min, max and median."""
    measured = (values.mean(), values.std(), values.min(), values.max(), np.median(values))
    return dict(zip(SUMMARY, map(float, measured), strict=True))


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
    """Draw losses, span F1 and separation over the epochs.

    Args:
        rows: of the six tables.

    Returns:
        A figure of three panels.
    """
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


def measure_table(title: str, model: Mapping[str, float], trivial: Mapping[str, float]) -> Table:
    """Set the measures of a model beside their baselines.

    Args:
        title: of the table.
        model: measures of the model.
        trivial: what the rules of `TRIVIAL_RULES` reach.

    Returns:
        A row for each measure.
    """
    return Table(
        title,
        ("measure", "model", "baseline", "the baseline says of every window"),
        [
            (name, f"{value:.3f}", f"{trivial[name]:.3f}", TRIVIAL_RULES[name])
            for name, value in model.items()
        ],
        note="Detection: the bars of the expansion are in the window.",
        text_columns=frozenset({0, 3}),
    )


def _curve(rows: Iterable[Row], name: str) -> Curve:
    found = [(float(row["epoch"]), float(row.get(name, np.nan))) for row in rows]
    return [epoch for epoch, _ in found], [value for _, value in found]
