"""The training loop on a task of one weight whose losses are known in advance."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.errors import CheckpointError, DataError, StoppedEarly, TrainingDivergedError
from hrl_sarp.fitting import Epoch, Fit, Fitted, History, RunState, Schedule, Task, World
from hrl_sarp.run.session import StopFlag
from tests.end_to_end.phase_runs import StopAfter, assert_same
from tests.fitting.kills import assert_kills_change_nothing

N_ROWS = 20
CPU = torch.device("cpu")
SCHEDULE = Schedule(
    epochs=6,
    patience=2,
    batch_size=8,
    learning_rate=0.1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    checkpoint_seconds=0.0,
    low_epoch=6,
    final_share=0.0,
    validate_first=True,
)


class ScriptedTask:
    """Validation losses follow a script; the weight falls by the learning rate in each step."""

    title = "scripted"

    def __init__(self, losses: list[float]) -> None:
        self.module = nn.ModuleDict({"line": nn.Linear(1, 1)})
        self.train_rows = torch.arange(100, 100 + N_ROWS)
        self.losses = iter(losses)
        self.batches: list[list[int]] = []
        self.weights: list[float] = []
        """At each validation, epoch -1 first."""

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.batches.append(rows.tolist())
        return self.module["line"].weight.sum(), {"rows": torch.tensor(float(len(rows)))}

    def validate(self) -> tuple[float, dict[str, float]]:
        self.weights.append(float(self.module["line"].weight.detach()))
        loss = next(self.losses)
        return loss, {"val_loss": loss}

    def describe(self, rows: Tensor) -> str:
        return f"rows {int(rows.min())} to {int(rows.max())}"


class NoisyTask(ScriptedTask):
    """A small regression with dropout, noise of its own and noise in validation."""

    def __init__(self) -> None:
        super().__init__([])
        torch.manual_seed(1)
        self.module = nn.ModuleDict(
            {"line": nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))}
        )
        self.table = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        inputs = self.table[rows]
        noise = torch.randn(len(rows), 1, generator=generator)
        found = self.module["line"](inputs)
        error = (found - inputs.sum(dim=1, keepdim=True) - noise).square().mean()
        return error, {"size": found.abs().mean()}

    def validate(self) -> tuple[float, dict[str, float]]:
        inputs = self.table[:50] + 0.1 * torch.randn(50, 3)
        with torch.no_grad():
            found = self.module["line"](inputs)
        error = float((found - inputs.sum(dim=1, keepdim=True)).abs().mean())
        return error, {"val_error": error}


def fit(
    task: Task,
    *,
    run: RunState | None = None,
    stop: StopFlag | None = None,
    history: History | None = None,
    extra: dict[str, Any] | None = None,
    seen: list[Epoch] | None = None,
    **changes: Any,
) -> Fitted:
    """Run the loop; `seen` collects what each epoch measured."""
    return Fit(
        task,
        replace(SCHEDULE, **changes),
        run,
        seed=5,
        stop=stop or StopFlag(),
        world=World.alone(CPU),
        history=history,
        on_epoch=None if seen is None else seen.append,
        extra=extra,
    ).run()


def test_the_best_epoch_is_restored() -> None:
    task = ScriptedTask([1.0, 0.9, 0.7, 0.8, 0.75, 0.9, 0.8])
    fitted = fit(task, patience=6)
    assert (fitted.best_epoch, fitted.best_loss, fitted.epochs) == (1, 0.7, 6)
    assert float(task.module["line"].weight.detach()) == task.weights[2]  # epoch -1 is the first
    assert task.weights[2] != task.weights[-1]
    assert not task.module.training


def test_a_task_that_learns_nothing_returns_the_untrained_module() -> None:
    task, history = ScriptedTask([1.0, 1.1, 1.2, 1.3]), History()
    fitted = fit(task, history=history)
    assert (fitted.best_epoch, fitted.best_loss) == (-1, 1.0)
    assert float(task.module["line"].weight.detach()) == task.weights[0]
    assert history.rows[0] == {"step": -1, "val_loss": 1.0}


def test_without_a_first_validation_the_first_epoch_counts_whatever_it_gives() -> None:
    task = ScriptedTask([9.0, 9.5, 9.5])
    fitted = fit(task, validate_first=False)
    assert (fitted.best_epoch, fitted.best_loss, fitted.epochs) == (0, 9.0, 3)


@pytest.mark.parametrize(
    ("losses", "last_epoch"),
    [
        # patience 2: no improvement for 2 epochs after the best one ends the run
        ([1.0, 0.9, 1.0, 1.0, 0.0, 0.0, 0.0], 2),
        ([1.0, 1.1, 1.1, 0.0, 0.0, 0.0, 0.0], 1),
        ([1.0, 0.9, 1.0, 0.8, 1.0, 1.0, 0.0], 4),
    ],
)
def test_patience_counts_epochs_since_the_best(losses: list[float], last_epoch: int) -> None:
    history = History()
    fit(ScriptedTask(losses), history=history)
    assert history.rows[-1]["step"] == last_epoch


@pytest.mark.parametrize("losses", [[5.0, 1.0, 2.0, 2.0], [2.0, 2.0, 2.0], [1.0, 2.0, 2.0]])
def test_a_run_that_patience_ends_says_so(losses: list[float]) -> None:
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), format="{message}")
    try:
        fitted = fit(ScriptedTask(losses))
        fit(ScriptedTask([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))  # ends with its epochs
    finally:
        logger.remove(sink)
    best = "untrained" if fitted.best_epoch < 0 else f"epoch {fitted.best_epoch}"
    line = (
        f"scripted: stopped early after epoch {fitted.epochs - 1}: no better than {best} in 2 "
        "epochs\n"
    )
    assert [text for text in said if "stopped early" in text] == [line]


def test_counts_become_measures_once_an_epoch_is_over() -> None:
    class Counting(ScriptedTask):
        def summarise(self, terms: dict[str, float]) -> dict[str, float]:
            return {"total_loss": terms["total_loss"], "train_rows": terms["rows"] / 2}

    history, seen = History(), list[Epoch]()
    fit(Counting([5.0, 1.0]), history=history, seen=seen, epochs=1)
    # batches of 8, 8 and 4 rows: (8 x 8 + 8 x 8 + 4 x 4) / 20 = 7.2
    assert history.rows[1]["train_rows"] == pytest.approx(3.6)
    assert set(seen[0].terms) == {"total_loss", "train_rows"}


def test_a_gain_below_min_delta_does_not_count() -> None:
    fitted = fit(ScriptedTask([1.0, 0.95, 0.85, 0.84, 0.83]), min_delta=0.1)
    assert (fitted.best_epoch, fitted.epochs) == (1, 4)


def test_every_epoch_sees_each_row_once_in_a_new_order() -> None:
    task, history = ScriptedTask([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), History()
    fit(task, history=history)
    assert [len(batch) for batch in task.batches[:3]] == [8, 8, 4]
    epochs = [list(itertools.chain(*task.batches[i : i + 3])) for i in range(0, 18, 3)]
    assert len(epochs) == 6
    assert all(sorted(rows) == list(range(100, 100 + N_ROWS)) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 6
    # terms are means over rows: (8 x 8 + 8 x 8 + 4 x 4) / 20
    assert history.rows[1]["rows"] == pytest.approx(7.2)


def test_an_incomplete_batch_may_be_dropped() -> None:
    task, history = ScriptedTask([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), History()
    fit(task, history=history, drop_last=True)
    assert [len(batch) for batch in task.batches] == [8, 8] * 6
    assert history.rows[1]["rows"] == 8.0
    assert {row for batch in task.batches for row in batch} == set(range(100, 100 + N_ROWS))


def test_the_rate_falls_along_a_cosine() -> None:
    history = History()
    fit(ScriptedTask([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), history=history)
    # 0.1 x (1 + cos(pi e / 6)) / 2 in epochs e = 0 .. 5
    expected = [0.1, 0.0933013, 0.075, 0.05, 0.025, 0.0066987]
    assert [row["lr"] for row in history.rows[1:]] == pytest.approx(expected, abs=1e-7)


def test_the_rate_rises_linearly_to_its_peak_and_falls_to_its_last_share() -> None:
    schedule = replace(SCHEDULE, peak_epoch=4, low_epoch=8, final_share=0.1, learning_rate=1e-3)
    rates = [schedule.rate(epoch) for epoch in range(9)]
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    # half way down the cosine (epoch 6 of 4 .. 8) is the middle of 1 and 0.1
    assert (rates[6], rates[8]) == pytest.approx((0.55e-3, 0.1e-3))
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("changes", [{"peak_epoch": 4, "low_epoch": 1}, {"peak_epoch": 1}])
def test_a_course_that_ends_within_the_rise_has_a_rate(changes: dict[str, int]) -> None:
    schedule = replace(SCHEDULE, final_share=0.1, **changes)
    peak = changes["peak_epoch"]
    assert schedule.rate(1) == pytest.approx(0.1 * 2 / (peak + 1))


def test_a_constant_rate_is_the_default() -> None:
    schedule = replace(SCHEDULE, final_share=1.0, low_epoch=1)
    assert {schedule.rate(epoch) for epoch in range(50)} == {0.1}


def test_gradients_are_those_of_the_first_batch_before_they_were_shortened() -> None:
    seen: list[Epoch] = []
    fit(ScriptedTask([1.0, 0.9]), seen=seen, epochs=1, max_grad_norm=0.25)
    # the loss is the weight itself; nothing depends on the bias
    assert seen[0].gradients == {"line.weight": 1.0}
    assert seen[0].terms["grad_norm"] == seen[0].terms["clipped"] == 1.0


def test_an_epoch_tells_what_it_measured() -> None:
    seen: list[Epoch] = []
    fitted = fit(ScriptedTask([1.0, 0.9, 0.95]), seen=seen, epochs=2)
    assert [(epoch.number, epoch.loss, epoch.is_best) for epoch in seen] == [
        (0, 0.9, True),
        (1, 0.95, False),
    ]
    assert seen[1].measures == {"val_loss": 0.95}
    assert fitted.seconds == [epoch.seconds for epoch in seen]


def test_no_rows_are_refused() -> None:
    task = ScriptedTask([1.0])
    task.train_rows = task.train_rows[:0]
    with pytest.raises(DataError, match="scripted: expected rows to train on, found none"):
        fit(task)


def test_more_processes_than_rows_of_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match="8 rows cannot be shared by 9 processes"):
        Fit(ScriptedTask([]), SCHEDULE, None, 1, StopFlag(), World(0, 9, CPU))


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_batch(tmp_path: Path) -> None:
    class BreaksLater(ScriptedTask):
        """Gives NaN in the fifth batch: epoch 1, batch 1."""

        def loss(
            self, rows: Tensor, generator: torch.Generator
        ) -> tuple[Tensor, Mapping[str, Tensor]]:
            loss, terms = super().loss(rows, generator)
            return loss * (math.nan if len(self.batches) == 5 else 1.0), terms

    with pytest.raises(TrainingDivergedError, match=r"nan at epoch 1, batch 1, of rows 1\d\d to"):
        fit(BreaksLater([1.0, 0.9]), run=state(tmp_path))
    kept = state(tmp_path).load()
    assert kept is not None
    assert (kept["progress"]["epoch"], kept["progress"]["batch"]) == (1, 1)
    assert all(torch.isfinite(weights).all() for weights in kept["module"].values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_validation_loss_that_is_no_number_ends_the_run(value: float) -> None:
    with pytest.raises(TrainingDivergedError, match=r"validation loss is .* at epoch 1"):
        fit(ScriptedTask([1.0, 0.9, value]))


# Resuming


def state(folder: Path, *, resume: bool = True) -> RunState:
    return RunState(folder, "scripted", {"seed": 5}, resume=resume)


def noisy_run(folder: Path, *, resume: bool, stop: StopFlag | None = None) -> None:
    """Train the noisy task and write what it came to."""
    folder.mkdir(exist_ok=True)
    task, history = NoisyTask(), History()
    torch.manual_seed(hash(folder) % 1000)  # whatever was drawn before must not matter
    extra: dict[str, Any] = {}
    fitted = Fit(
        task,
        replace(SCHEDULE, patience=6, epochs=3),
        state(folder, resume=resume),
        5,
        stop or StopFlag(),
        World.alone(CPU),
        history=history,
        on_epoch=lambda epoch: extra.update({str(epoch.number): epoch.gradients}),
        extra=extra,
    ).run()
    torch.save(
        {
            "weights": task.module.state_dict(),
            "history": history.rows,
            "extra": extra,
            "best": [fitted.best_epoch, fitted.best_loss, fitted.epochs],
        },
        folder / "outcome.pt",
    )


def noisy_outcome(folder: Path) -> Any:
    return torch.load(folder / "outcome.pt", weights_only=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_run_killed_within_epochs_ends_as_one_left_alone(seed: int, tmp_path: Path) -> None:
    assert_kills_change_nothing(noisy_run, noisy_outcome, tmp_path, seed)


@pytest.mark.parametrize("looks", [1, 2, 3, 4, 8])
def test_a_run_that_is_stopped_at_a_batch_continues_there(looks: int, tmp_path: Path) -> None:
    noisy_run(tmp_path / "whole", resume=False)
    with pytest.raises(StoppedEarly):
        noisy_run(tmp_path / "stopped", resume=False, stop=StopAfter(looks))
    kept = state(tmp_path / "stopped").load()
    assert kept is not None
    # the stop comes after so many batches of 3 an epoch; the last one is not validated yet
    epoch, batch = divmod(looks - 1, 3)
    assert (kept["progress"]["epoch"], kept["progress"]["batch"]) == (epoch, batch + 1)
    noisy_run(tmp_path / "stopped", resume=True)
    assert_same(noisy_outcome(tmp_path / "stopped"), noisy_outcome(tmp_path / "whole"))


def test_a_stop_within_validation_keeps_the_epoch(tmp_path: Path) -> None:
    class Interrupted(NoisyTask):
        """Asks for a stop in the validation of epoch 1."""

        def validate(self) -> tuple[float, dict[str, float]]:
            self.weights.append(0.0)
            if len(self.weights) == 3:
                raise StoppedEarly
            return super().validate()

    noisy_run(tmp_path / "whole", resume=False)
    (tmp_path / "stopped").mkdir()
    run = state(tmp_path / "stopped", resume=False)
    with pytest.raises(StoppedEarly):
        fit(Interrupted(), run=run, patience=6, epochs=3)
    kept = state(tmp_path / "stopped").load()
    assert kept is not None
    assert (kept["progress"]["epoch"], kept["progress"]["batch"]) == (1, 3)
    assert kept["progress"]["sums"]


def test_a_finished_run_that_is_resumed_trains_nothing(tmp_path: Path) -> None:
    fit(ScriptedTask([1.0, 0.9, 0.8]), run=state(tmp_path), epochs=2)
    task = ScriptedTask([])
    fitted = fit(task, run=state(tmp_path), epochs=2)
    assert (fitted.best_epoch, fitted.best_loss, task.batches) == (1, 0.8, [])


def test_another_number_of_threads_is_refused(tmp_path: Path) -> None:
    fit(ScriptedTask([1.0, 0.9]), run=state(tmp_path), epochs=1)
    kept = state(tmp_path).load()
    assert kept is not None
    state(tmp_path).save({**kept, "threads": torch.get_num_threads() + 1})
    with pytest.raises(CheckpointError, match="threads"):
        fit(ScriptedTask([]), run=state(tmp_path), epochs=1)


def test_checkpoints_within_an_epoch_wait_for_their_time(tmp_path: Path) -> None:
    class Counted(RunState):
        """Counts what is written."""

        saved: list[tuple[int, int]] = []  # noqa: RUF012 -- shared on purpose

        def save(self, payload: Mapping[str, Any]) -> None:
            self.saved.append((payload["progress"]["epoch"], payload["progress"]["batch"]))

    run = Counted(tmp_path, "scripted", {}, resume=False)
    fit(ScriptedTask([1.0, 0.9, 0.8]), run=run, epochs=2, checkpoint_seconds=1e9)
    assert run.saved == [(1, 0), (2, 0)]  # an end of an epoch is always kept
