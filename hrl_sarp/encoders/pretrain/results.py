"""The folder of a pretraining run: checkpoints, results, loss curve."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hrl_sarp.encoders.pretrain.reconstruction import BASELINES, as_plain, best_baseline
from hrl_sarp.encoders.pretrain.run import PretrainingResult
from hrl_sarp.encoders.transfer import DESCRIPTION, WEIGHTS
from hrl_sarp.errors import CheckpointError
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.files import atomic_path, write_json

KIND = "encoder pretraining"
BEST, LATEST = "checkpoint_best.pt", "checkpoint_latest.pt"
EPOCHS = "checkpoint_epoch_*_loss_*.pt"
RESULTS, CURVE = "training_results.json", "loss_curve.png"
SHOWN_CHARACTERS = 60
"""Of a value in a message."""
BLUE, VERMILION = "#0072b2", "#d55e00"
BASELINE_LINES = (":", "--", "-.")


@dataclass(frozen=True)
class PretrainingFolder:
    """Where a run writes, and what its checkpoints say of it."""

    path: Path
    identity: dict[str, Any]
    """Plain values that a resumed run must share: configuration, data, seed, ..."""
    facts: dict[str, Any]
    """What every checkpoint also says: config, windowed_config, seed, encoder (its description)."""
    save_top_k: int
    resume: bool

    @property
    def state_file(self) -> Path:
        """The state to continue from."""
        return self.path / LATEST

    def load(self) -> dict[str, Any] | None:
        """Return the state of the run to resume; a run that begins anew forgets an earlier one.

        Raises:
            CheckpointError: if the state is of another run.
        """
        if not self.resume:
            self._forget()
            return None
        if not self.state_file.is_file():
            return None
        payload = load_payload(self.state_file)
        self._require_same_run(self.state_file, payload)
        return payload

    def save_latest(self, payload: dict[str, Any]) -> None:
        """Write the state to continue from."""
        save_payload(self.state_file, self._completed(payload))

    def save_epoch(
        self, payload: dict[str, Any], val_losses: list[float], *, is_best: bool
    ) -> None:
        """Write an epoch that is among the best, and remove those that no longer are."""
        content = self._completed(payload)
        if is_best:
            save_payload(self.path / BEST, content)
        ranked = sorted(range(len(val_losses)), key=lambda epoch: (val_losses[epoch], epoch))
        names = {
            epoch: f"checkpoint_epoch_{epoch}_loss_{val_losses[epoch]:.6f}.pt"
            for epoch in ranked[: self.save_top_k]
        }
        if payload["epoch"] in names:
            save_payload(self.path / names[payload["epoch"]], content)
        for old in self.path.glob(EPOCHS):
            if old.name not in names.values():
                old.unlink()

    def write_results(self, result: PretrainingResult, facts: dict[str, Any]) -> Path:
        """Write `training_results.json` and `loss_curve.png`.

        Args:
            result: of the run.
            facts: what to add, `columns` among it.
        """
        columns = facts["columns"]
        judged = result.judged
        content = {
            "best_val_loss": result.best_val_loss,
            "best_epoch": result.best_epoch,
            "total_time": result.seconds,
            "config": self.facts["config"],
            "windowed_config": self.facts["windowed_config"],
            "train_metrics": result.train_metrics,
            "val_metrics": result.val_metrics,
            "test_metrics": as_plain(result.test, columns),
            "best_epoch_val_metrics": as_plain(result.validation, columns),
            "best_baseline": best_baseline(judged),
            "beats_best_baseline": result.beats_baselines,
            "seed": self.facts["seed"],
            **facts,
        }
        write_json(self.path / RESULTS, content)
        with atomic_path(self.path / CURVE) as temporary:
            loss_curve(result).savefig(temporary, dpi=150)
        return self.path / RESULTS

    def _completed(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"kind": KIND, "identity": self.identity, **self.facts, **payload}

    def _forget(self) -> None:
        for name in (BEST, LATEST, RESULTS, CURVE, WEIGHTS, DESCRIPTION):
            (self.path / name).unlink(missing_ok=True)
        for old in self.path.glob(EPOCHS):
            old.unlink()

    def _require_same_run(self, file: Path, payload: dict[str, Any]) -> None:
        if payload["kind"] != KIND:
            raise CheckpointError(
                f"{file}: expected the checkpoint of {KIND}, found {payload['kind']}; choose "
                "another --output or start again without --resume"
            )
        there = payload.get("identity", {})
        for key, here in self.identity.items():
            if there.get(key) != here:
                raise CheckpointError(
                    f"{file} is of a run with another {_difference(key, there.get(key), here)}; "
                    "resume with the same options, start again without --resume, or choose "
                    "another --output"
                )


def loss_curve(result: PretrainingResult) -> Figure:
    """Draw training and validation loss per epoch beside what the baselines reach."""
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.2, 4.4), layout="constrained")
        axes = figure.subplots()
        epochs = range(len(result.val_metrics))
        train = [row["train_loss"] for row in result.train_metrics]
        validation = [row["val_loss"] for row in result.val_metrics]
        axes.plot(epochs, train, "o-", markersize=3, color=BLUE, label="training")
        axes.plot(epochs, validation, "o-", markersize=3, color=VERMILION, label="validation")
        for name, line in zip(BASELINES, BASELINE_LINES, strict=True):
            loss = result.validation[name].loss
            axes.axhline(loss, color="#555555", linestyle=line, linewidth=1, label=name)
        axes.axvline(result.best_epoch, color="#bbbbbb", linewidth=1, zorder=0, label="best epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("Huber loss per hidden value, in standard deviations")
        axes.set_title("Rebuilding hidden bars; baselines on the validation windows", loc="left")
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _difference(key: str, there: Any, here: Any) -> str:
    """Name what differs: for sections only the values that do."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [name for name in here if there.get(name) != here[name]]
        return f"{key}: " + ", ".join(
            f"{name} {_shown(there.get(name))} there, {_shown(here[name])} here" for name in names
        )
    return f"{key}: {_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
