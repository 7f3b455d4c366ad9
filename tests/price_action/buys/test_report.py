"""What is said of a run: nothing better than its numbers."""

from typing import Any

import numpy as np
import pytest

from hrl_sarp.price_action.buys.report import results_figure, results_table, verdict

HISTORY = [
    {"step": 0, "total_loss": 1.2, "val_loss": 1.1, "val_pr_auc": 0.11},
    {"step": 1, "total_loss": 1.1, "val_loss": 1.2, "val_pr_auc": 0.09},
]


def span(**changes: Any) -> dict[str, Any]:
    counts = {"windows": 500, "calls": 40}
    names = ("precision", "recall", "f1", "all_positive_f1", "accuracy", "majority_accuracy")
    plain = {"base_rate": 0.1, "pr_auc": 0.2, "lift_low": 0.05, "lift_high": 0.15}
    plain |= {"linear_pr_auc": 0.12, "hour_pr_auc": 0.11, "fall_rate": 0.1, "fall_pr_auc": 0.1}
    scores = {"score_low": 0.1, "score_high": 0.9}
    return {**counts, **dict.fromkeys(names, 0.5), **plain, **scores, **changes}


def said(**changes: Any) -> str:
    return verdict(HISTORY, {"validation": span(**changes), "test": span(**changes)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "on the test span the model beats the base rate (PR-AUC 0.2000, base rate 0.1000"),
        ({"lift_low": -0.01}, "cannot be told from the base rate"),
        # the best epoch has 0.11
        ({"base_rate": 0.11}, "no epoch beats the base rate"),
        ({"score_low": 0.495, "score_high": 0.5}, "one probability (0.4950 to 0.5000)"),
    ],
)
def test_verdict_says_what_the_numbers_allow(changes: dict[str, float], words: str) -> None:
    assert words in said(**changes)


def test_validation_alone_makes_no_claim() -> None:
    spans = {"validation": span(), "test": span(lift_low=-0.2, lift_high=0.3)}
    assert "beats" not in verdict(HISTORY, spans)


def test_table_has_every_measure_for_both_spans() -> None:
    table = results_table({"validation": span(), "test": span(calls=1234)}, 0.5)
    assert table.header == ("measure", "validation", "test")
    cells = {row[0]: row[2] for row in table.rows}
    assert cells["calls"] == "1,234"
    assert cells["base rate"] == "0.1000"


def test_figure_marks_best_epoch_and_base_rates() -> None:
    curve = (np.array([0.5, 1.0]), np.array([0.2, 0.1]))
    spans = {"validation": span(base_rate=0.08), "test": span()}
    figure = results_figure(HISTORY, spans, {"validation": curve, "test": curve})
    losses, areas, precision = figure.axes
    best = next(line for line in losses.lines if line.get_label() == "best epoch")
    assert list(best.get_xdata()) == [0, 0]
    level = next(line for line in areas.lines if line.get_label() == "base rate")
    assert list(level.get_ydata()) == [0.08, 0.08]
    assert len(precision.lines) == 4
