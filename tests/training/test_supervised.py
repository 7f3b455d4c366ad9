"""The loop of phases 1 and 2 on a task of one weight whose losses are known in advance."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrl_sarp.config.schema import SupervisedConfig
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.training.metric_log import MetricLog
from hrl_sarp.training.supervised import fit
from tests.tiny_runs import changed, context_of, tensors_of, tiny_config, tiny_market

N_ROWS = 20


class ScriptedTask:
    """Validation losses follow a script; the weight falls by the learning rate in each step."""

    number = 1
    prefix = "scripted"

    def __init__(self, losses: list[float]) -> None:
        self.networks = nn.ModuleDict({"line": nn.Linear(1, 1)})
        self.tensors: MarketTensors = tensors_of(tiny_market())
        self.train_rows = torch.arange(100, 100 + N_ROWS)
        self.generators: list[torch.Generator] = []
        self.losses = iter(losses)
        self.batches: list[list[int]] = []
        self.weights: list[float] = []
        """At each validation, epoch -1 first."""

    def loss(self, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        self.batches.append(rows.tolist())
        return self.networks["line"].weight.sum(), {"rows": float(len(rows))}

    def validate(self) -> dict[str, float]:
        self.weights.append(float(self.networks["line"].weight.detach()))
        return {"val_total_loss": next(self.losses)}


def run(
    losses: list[float], folder: Path, **values: Any
) -> tuple[ScriptedTask, MetricLog, dict[str, Any]]:
    config = tiny_config()
    section: SupervisedConfig = changed(
        config.macro_agent.pretrain, {"epochs": 6, "patience": 2, "batch_size": 8, **values}
    )
    task = ScriptedTask(losses)
    log, fitted = fit(task, section, context_of(tiny_market(), config, folder))
    log.close()
    return task, log, fitted


def test_the_best_epoch_is_restored(tmp_path: Path) -> None:
    task, _, fitted = run([1.0, 0.9, 0.7, 0.8, 0.75, 0.9, 0.8], tmp_path, patience=6)
    assert fitted == {"best_epoch": 1, "best_val_loss": 0.7}
    assert float(task.networks["line"].weight.detach()) == task.weights[2]  # epoch -1 is the first
    assert task.weights[2] != task.weights[-1]


def test_a_task_that_learns_nothing_returns_the_constant_predictor(tmp_path: Path) -> None:
    task, log, fitted = run([1.0, 1.1, 1.2, 1.3], tmp_path)
    assert fitted == {"best_epoch": -1, "best_val_loss": 1.0}
    assert float(task.networks["line"].weight.detach()) == task.weights[0]
    assert log.history[0] == {"step": -1, "scripted/val_total_loss": 1.0}


@pytest.mark.parametrize(
    ("losses", "last_epoch"),
    [
        # patience 2: no improvement for 2 epochs after the best one ends the run
        ([1.0, 0.9, 1.0, 1.0, 0.0, 0.0, 0.0], 2),
        ([1.0, 1.1, 1.1, 0.0, 0.0, 0.0, 0.0], 1),
        ([1.0, 0.9, 1.0, 0.8, 1.0, 1.0, 0.0], 4),
    ],
)
def test_patience_counts_epochs_since_the_best(
    losses: list[float], last_epoch: int, tmp_path: Path
) -> None:
    _, log, _ = run(losses, tmp_path)
    assert log.history[-1]["step"] == last_epoch


def test_a_validation_loss_that_is_no_number_is_never_best(tmp_path: Path) -> None:
    _, _, fitted = run([1.0, float("nan"), 0.9, float("-inf"), 1.0, 1.0, 1.0], tmp_path)
    assert fitted == {"best_epoch": 1, "best_val_loss": 0.9}


def test_every_epoch_sees_each_row_once_in_a_new_order(tmp_path: Path) -> None:
    task, log, _ = run([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], tmp_path)
    assert [len(batch) for batch in task.batches[:3]] == [8, 8, 4]
    epochs = [list(itertools.chain(*task.batches[i : i + 3])) for i in range(0, 18, 3)]
    assert len(epochs) == 6
    assert all(sorted(rows) == list(range(100, 100 + N_ROWS)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 6
    # terms are means over rows: (8 x 8 + 8 x 8 + 4 x 4) / 20
    assert log.history[1]["scripted/rows"] == pytest.approx(7.2)


def test_the_rate_falls_along_a_cosine(tmp_path: Path) -> None:
    _, log, _ = run([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], tmp_path, learning_rate=0.1)
    rates = [row["scripted/lr"] for row in log.history[1:]]
    # 0.1 x (1 + cos(pi e / 6)) / 2 after e = 1 .. 6 epochs
    expected = [0.0933013, 0.075, 0.05, 0.025, 0.0066987, 0.0]
    assert rates == pytest.approx(expected, abs=1e-7)
