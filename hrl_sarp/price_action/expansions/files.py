"""The folder of a fine-tuning run: the model, its tables, and the state to resume from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.errors import CheckpointError
from hrl_sarp.price_action.expansions.model import JadeMultiTask
from hrl_sarp.price_action.expansions.tables import (
    COLUMNS,
    Rows,
    empty_rows,
    losses_figure,
    write_tables,
)
from hrl_sarp.price_action.expansions.training import MultiTaskTrainer
from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.checkpoints import load_payload, restoring, save_payload
from hrl_sarp.run.files import read_json, write_json

KIND = "jade multitask"
BEST, RUNNING, METADATA, FIGURE = "best_model.pt", "running.pt", "metadata.json", "convergence.png"
WRITER = "python main.py finetune-encoder"


@dataclass(frozen=True)
class FinetuningFolder:
    """Where a run writes, and what it must share with the run that it resumes."""

    path: Path
    identity: dict[str, Any]
    """Plain values: configuration, data, variant, seed, ..."""
    resume: bool

    def finished(self) -> dict[str, Any] | None:
        """Return the metadata if the run to resume has come to its end.

        Raises:
            CheckpointError: if the folder is of another run.
        """
        file = self.path / METADATA
        if not self.resume or not file.is_file() or (self.path / RUNNING).is_file():
            return None
        metadata: dict[str, Any] = read_json(file, WRITER)
        self._require_same_run(file, metadata.get("identity", {}))
        return metadata

    def begin(self, trainer: MultiTaskTrainer) -> Rows:
        """Restore a run that was stopped, or forget what an earlier one left; returns its tables.

        Raises:
            CheckpointError: if the state is of another run.
        """
        file = self.path / RUNNING
        if not self.resume:
            for name in (BEST, RUNNING, METADATA, FIGURE, *(f"{name}.csv" for name in COLUMNS)):
                (self.path / name).unlink(missing_ok=True)
        if not file.is_file():
            return empty_rows()
        payload = load_payload(file)
        if payload["kind"] != KIND:
            raise CheckpointError(
                f"{file}: expected the state of {KIND}, found {payload['kind']}; choose another "
                "--output or start again without --resume"
            )
        self._require_same_run(file, payload.get("identity", {}))
        with restoring(file):
            trainer.restore(payload["state"])
            rows: Rows = payload["rows"]
        return rows

    def keep(self, trainer: MultiTaskTrainer, rows: Rows, facts: dict[str, Any]) -> None:
        """Write the tables, the model if this epoch is the best, and the state to resume from."""
        standing = trainer.standing
        write_tables(self.path, rows)
        if standing.best_epoch == standing.epoch:
            best = {"epoch": standing.best_epoch, "val_loss": standing.best_loss}
            state = {name: weights.cpu() for name, weights in standing.best_state.items()}
            save_payload(
                self.path / BEST, {"kind": KIND, "model_state_dict": state, **best, **facts}
            )
        running = {"identity": self.identity, "state": trainer.state(), "rows": rows}
        save_payload(self.path / RUNNING, {"kind": KIND, **running})

    def finish(self, rows: Rows, metadata: dict[str, Any]) -> None:
        """Write the figure and the metadata, and remove the state to resume from."""
        save_png(self.path / FIGURE, losses_figure(rows))
        write_json(self.path / METADATA, {**metadata, "identity": self.identity})
        (self.path / RUNNING).unlink(missing_ok=True)

    def _require_same_run(self, file: Path, there: dict[str, Any]) -> None:
        for key, here in self.identity.items():
            if there.get(key) != here:
                raise CheckpointError(
                    f"{file} is of a run with another {key}: {there.get(key)} there, {here} here; "
                    "resume with the same options, start again without --resume, or choose "
                    "another --output"
                )


@dataclass(frozen=True)
class Finetuned:
    """A model as it was saved, ready to be asked."""

    model: JadeMultiTask
    """Eats windows of `columns`, less `mean`, over `std`."""
    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window_length: int


def load_finetuned(path: Path) -> Finetuned:
    """Read `best_model.pt`.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if it is truncated, hostile, or no such model.
    """
    payload = load_payload(path)
    if payload["kind"] != KIND:
        raise CheckpointError(
            f"{path}: expected a {KIND} model, found {payload['kind']}; `{WRITER}` writes one"
        )
    with restoring(path):
        columns = tuple(payload["columns"])
        sizes = JadeConfig(**payload["sizes"])
        model = JadeMultiTask(len(columns), sizes, payload["tasks"], dropout=0.0)
        model.load_state_dict(payload["model_state_dict"])
        mean, std = (tuple(payload["scaling"][name]) for name in ("mean", "std"))
        return Finetuned(model.eval(), columns, mean, std, payload["window_length"])
