"""Where the curves of a run go: TensorBoard always, MLflow and Weights & Biases where asked for.

All of them get the same names, values and steps, and all of them write files: nothing is sent. Each
shows a point once: when a run resumes it is written anew, or goes on where it holds no other point.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hrl_sarp.errors import StoppedEarly
from hrl_sarp.reporting.curves import meaning
from hrl_sarp.run.files import sqlite_url
from hrl_sarp.run.session import require_extra

TENSORBOARD, MLFLOW, WANDB = "tensorboard", "mlflow.db", "wandb"
"""Where each writes: folders of the phase, and one database for all phases of a run."""
PROJECT = "hrl-sarp"
"""Name of the project in Weights & Biases."""
PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
"""Name of a tracker -> what it imports; an extra of that name brings it."""
SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
}
"""Environment variables with which both stay offline; they are read when the packages load."""


Shown = Sequence[tuple[int, Mapping[str, float]]]
"""Steps with their curves, in their order."""


class Ending(Enum):
    """How a phase ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """By the user: a signal or Ctrl-C. It can be resumed."""
    FAILED = "failed"

    @classmethod
    def of(cls, error: BaseException | None) -> "Ending":
        """Tell the ending from what left the phase.

        Args:
            error: that ended it; None where it came to its end.

        Returns:
            The ending.

        Examples:
            >>> Ending.of(KeyboardInterrupt()).value
            'stopped'
        """
        if error is None:
            return cls.FINISHED
        stopped = isinstance(error, StoppedEarly | KeyboardInterrupt)
        return cls.STOPPED if stopped else cls.FAILED


@runtime_checkable
class Tracker(Protocol):
    """Takes the curves of one phase.

    Examples:
        >>> class Printed:
        ...     def show(self, step, values):
        ...         print(step, values)
        ...
        ...     def flush(self): ...
        ...     def close(self, ending): ...
        >>> tracker: Tracker = Printed()
        >>> tracker.show(52, {"pretrain/loss": 0.5})
        52 {'pretrain/loss': 0.5}
    """

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        ...

    def flush(self) -> None:
        """Write all that was shown to the disk."""
        ...

    def close(self, ending: Ending) -> None:
        """End the phase, and mark how it ended where the tracker has a place for that."""
        ...


def require_trackers(names: Sequence[str]) -> None:
    """Refuse to train with a tracker whose package is missing.

    Args:
        names: of the configuration.

    Raises:
        HrlSarpError: naming what to install.
    """
    for name in names:
        for package in PACKAGES[name]:
            require_extra(package, name)


def trackers_of(folder: Path, names: Sequence[str], shown: Shown = ()) -> list[Tracker]:
    """Begin or go on with the trackers of a phase; they then hold what was shown and nothing else.

    Args:
        folder: of the phase, below that of the run.
        names: of the configuration, beside TensorBoard.
        shown: what the run that is resumed has shown up to its checkpoint.

    Returns:
        Trackers that hold these points.
    """
    kinds: dict[str, type[MlflowTracker] | type[WandbTracker]] = {
        "mlflow": MlflowTracker,
        "wandb": WandbTracker,
    }
    return [TensorBoardTracker(folder, shown), *(kinds[name](folder, shown) for name in names)]


def _show_all(tracker: Tracker, shown: Shown) -> None:
    for step, values in shown:
        tracker.show(step, values)


def _go_silent() -> None:
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


class TensorBoardTracker:
    """Files of TensorBoard in the folder of the phase; they say what each curve means."""

    def __init__(self, folder: Path, shown: Shown = ()) -> None:
        from torch.utils.tensorboard.writer import FileWriter

        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        self._writer = FileWriter(str(folder / TENSORBOARD))
        _show_all(self, shown)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.scalar.metadata import create_summary_metadata

        shown = Summary()
        for name, value in values.items():
            # PyTorch's own writer of scalars has no place for a description
            described = create_summary_metadata(display_name="", description=meaning(name))
            shown.value.add(tag=name, simple_value=value, metadata=described)
        self._writer.add_summary(shown, step)

    def flush(self) -> None:
        """Write all that was shown to the disk."""
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        """Close the files, which have no place for an ending."""
        self._writer.close()


Point = tuple[int, str, str]
"""Step, name and value of a point; the value as text, because NaN is equal to nothing."""


def _point(step: int, name: str, value: float) -> Point:
    return int(step), name, repr(float(value))


def _points(step: int, values: Mapping[str, float]) -> set[Point]:
    return {_point(step, name, value) for name, value in values.items()}


MLFLOW_STATUS = {
    Ending.FINISHED: "FINISHED",
    Ending.STOPPED: "KILLED",
    Ending.FAILED: "FAILED",
}
"""Names that MLflow has for an ending; a run in progress is RUNNING."""


class MlflowTracker:
    """A run of MLflow for each phase, in a SQLite file of the run's folder.

    A phase that is resumed goes on in its run. It begins another one, and the former is deleted,
    where that one holds points which the checkpoint does not: MLflow cannot take a point back.
    """

    def __init__(self, folder: Path, shown: Shown = ()) -> None:
        _go_silent()
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        home = folder.parent.resolve()
        home.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=sqlite_url(home / MLFLOW))
        known = self._client.get_experiment_by_name(home.name)
        where = known.experiment_id if known else self._client.create_experiment(home.name)
        expected, held = {point for row in shown for point in _points(*row)}, set[Point]()
        self._run = ""
        for run in self._client.search_runs([where]):
            if run.info.run_name != folder.name:
                continue
            found = self._points_of(run)
            if not self._run and found <= expected:
                self._run, held = run.info.run_id, found
            else:
                self._client.delete_run(run.info.run_id)
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(where, run_name=folder.name).info.run_id
        for step, values in shown:
            missing = _points(step, values) - held
            self.show(step, {k: v for k, v in values.items() if _point(step, k, v) in missing})

    def _points_of(self, run: Any) -> set[Point]:
        """Collect what a run of the database holds."""
        history = self._client.get_metric_history
        found = (point for name in run.data.metrics for point in history(run.info.run_id, name))
        return {_point(point.step, point.key, point.value) for point in found}

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        from mlflow.entities import Metric

        # a time of 0: two runs with the same seed have the same rows
        rows = [Metric(name, value, 0, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=rows)

    def flush(self) -> None:
        """Do nothing: every row is in the file when it was shown."""

    def close(self, ending: Ending) -> None:
        """Mark the run as finished, killed or failed."""
        self._client.set_terminated(self._run, MLFLOW_STATUS[ending])


WANDB_CODE = {Ending.FINISHED: 0, Ending.STOPPED: 255, Ending.FAILED: 1}
"""Codes that Weights & Biases has for an ending; 255 is its own for Ctrl-C."""


class WandbTracker:
    """An offline run of Weights & Biases for each phase, in the folder of the phase.

    A phase that is resumed writes its file anew, under the same identifier.
    """

    def __init__(self, folder: Path, shown: Shown = ()) -> None:
        _go_silent()
        import wandb

        known = sorted((folder / WANDB).glob("offline-run-*")) if shown else []
        shutil.rmtree(folder / WANDB, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True)
        self._run: Any = wandb.init(
            project=PROJECT,
            group=folder.parent.resolve().name,
            name=folder.name,
            dir=str(folder),
            mode="offline",
            reinit="create_new",
            id=known[-1].name.rpartition("-")[2] if known else None,
            settings=settings,
        )
        # steps of a phase need not rise, so they are a curve that the others are drawn over
        self._run.define_metric("*", step_metric=STEPS)
        _show_all(self, shown)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        self._run.log({STEPS: step, **values})

    def flush(self) -> None:
        """Do nothing: its own process writes as it goes."""

    def close(self, ending: Ending) -> None:
        """End the run with a code for how, and wait until its file is whole."""
        self._run.finish(exit_code=WANDB_CODE[ending])


STEPS = "decisions"
"""Name of the axis in Weights & Biases."""
