"""Where the curves of a run go: TensorBoard always, MLflow and Weights & Biases where asked for.

All of them get the same names, values and steps, and all of them write files: nothing is sent. Each
shows a point once, because it is written anew when a run resumes.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hrl_sarp.reporting.curves import meaning
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


@runtime_checkable
class Tracker(Protocol):
    """Takes the curves of one phase.

    Examples:
        >>> class Printed:
        ...     def show(self, step, values):
        ...         print(step, values)
        ...
        ...     def flush(self): ...
        ...     def close(self): ...
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

    def close(self) -> None:
        """End the phase."""
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


def trackers_of(folder: Path, names: Sequence[str]) -> list[Tracker]:
    """Begin the trackers of a phase; what they held of it is removed.

    Args:
        folder: of the phase, below that of the run.
        names: of the configuration, beside TensorBoard.

    Returns:
        Trackers without a point.
    """
    kinds: dict[str, type[MlflowTracker] | type[WandbTracker]] = {
        "mlflow": MlflowTracker,
        "wandb": WandbTracker,
    }
    return [TensorBoardTracker(folder), *(kinds[name](folder) for name in names)]


def _go_silent() -> None:
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)


class TensorBoardTracker:
    """Files of TensorBoard in the folder of the phase; they say what each curve means."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import FileWriter

        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        self._writer = FileWriter(str(folder / TENSORBOARD))

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

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class MlflowTracker:
    """A run of MLflow for each phase, in a SQLite file of the run's folder."""

    def __init__(self, folder: Path) -> None:
        _go_silent()
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        home = folder.parent.resolve()
        home.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{home / MLFLOW}")
        known = self._client.get_experiment_by_name(home.name)
        where = known.experiment_id if known else self._client.create_experiment(home.name)
        for run in self._client.search_runs([where]):
            if run.info.run_name == folder.name:
                self._client.delete_run(run.info.run_id)
        self._run: str = self._client.create_run(where, run_name=folder.name).info.run_id

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        from mlflow.entities import Metric

        # a time of 0: two runs with the same seed have the same rows
        rows = [Metric(name, value, 0, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=rows)

    def flush(self) -> None:
        """Do nothing: every row is in the file when it was shown."""

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


class WandbTracker:
    """An offline run of Weights & Biases for each phase, in the folder of the phase."""

    def __init__(self, folder: Path) -> None:
        _go_silent()
        import wandb

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
            settings=settings,
        )
        # steps of a phase need not rise, so they are a curve that the others are drawn over
        self._run.define_metric("*", step_metric=STEPS)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the curves of one step."""
        self._run.log({STEPS: step, **values})

    def flush(self) -> None:
        """Do nothing: its own process writes as it goes."""

    def close(self) -> None:
        """End the run and wait until its file is whole."""
        self._run.finish()


STEPS = "decisions"
"""Name of the axis in Weights & Biases."""
