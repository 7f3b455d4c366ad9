"""What every phase is given and what it hands on: context, folders and results."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import config_hash, find_changes
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import CheckpointError, MissingArtifactError, TrainingDivergedError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.session import StopFlag


@dataclass(frozen=True)
class PhaseFiles:
    """Where a phase writes below the log folder."""

    number: int
    folder: str
    best: tuple[str, ...]
    metrics: str
    title: str


PHASES = (
    PhaseFiles(
        1,
        "pretrain_macro",
        ("best_pretrain_macro.pt", "sector_graph.pt"),
        "pretrain_macro_metrics.json",
        "supervised macro",
    ),
    PhaseFiles(
        2,
        "pretrain_micro",
        ("best_pretrain_micro.pt",),
        "pretrain_micro_metrics.json",
        "supervised micro",
    ),
    PhaseFiles(3, "phase3_macro", ("best_macro.pt",), "phase3_macro_metrics.json", "PPO macro"),
    PhaseFiles(4, "phase4_micro", ("best_micro.pt",), "phase4_micro_metrics.json", "TD3 micro"),
    PhaseFiles(
        5,
        "phase5_joint",
        ("best_joint_macro.pt", "best_joint_micro.pt"),
        "phase5_joint_metrics.json",
        "joint",
    ),
)
"""In the order of the curriculum."""

SECTOR_TABLE = "sector table"
"""Kind of the file that holds the embeddings of phase 1."""

RUNNING = "running.pt"
"""Checkpoint of an unfinished phase; removed when the phase ends."""

CONFIG = "config.yaml"
"""The merged configuration that a phase ran with."""

SHOWN_DIGITS = 12
"""Of a hash in a message."""


@dataclass(frozen=True)
class PhaseContext:
    """Everything a phase may use."""

    config: RunConfig
    market: Market
    """With the sector table of phase 1, except in phase 1 itself."""
    tensors: MarketTensors
    log_dir: Path
    resume: bool
    stop: StopFlag
    fingerprint: str
    """Hash of the market's content: dates, stocks, returns, features, stock embeddings."""

    def folder(self, number: int) -> Path:
        """Folder of a phase."""
        return self.log_dir / PHASES[number - 1].folder

    def has(self, number: int) -> bool:
        """Say whether a phase has finished."""
        files = PHASES[number - 1].best
        return all((self.folder(number) / name).is_file() for name in files)

    def best(self, number: int, which: int = 0) -> Path:
        """File of a phase's best agent.

        Raises:
            MissingArtifactError: naming the phase to run first.
        """
        path = self.folder(number) / PHASES[number - 1].best[which]
        if not path.is_file():
            raise MissingArtifactError(
                f"phase {number} has not finished ({path} does not exist): "
                f"run `python main.py train --phase {number}` first"
            )
        return path

    def with_market(self, market: Market) -> "PhaseContext":
        """Return the context over another market."""
        tensors = MarketTensors(market, self.tensors.dtype, self.tensors.device)
        return replace(self, market=market, tensors=tensors)

    def with_sector_embeddings(self, table: Float[np.ndarray, "T S E"]) -> "PhaseContext":
        """Return the context over the same market with this sector table."""
        market = replace(self.market, sector_embeddings=table)
        return replace(self, market=market, tensors=self.tensors.with_sector_table(market))

    def micro_settings(self) -> MicroSettings:
        """Settings of the micro networks on this market."""
        return MicroSettings(self.tensors, self.config)

    def load_macro(self, number: int) -> MacroAgent:
        """Load the macro agent that a phase left."""
        return MacroAgent.load(self.best(number), self.tensors, self.config.macro_agent)

    def load_micro(self, number: int, which: int = 0) -> MicroAgent:
        """Load the micro agent that a phase left."""
        return MicroAgent.load(self.best(number, which), self.micro_settings())

    def run_identity(self) -> dict[str, Any]:
        """Return what a checkpoint of an unfinished phase must agree with."""
        return {
            "config_hash": config_hash(self.config),
            "market": self.fingerprint,
            "seed": self.config.seed,
        }

    def load_running(self, number: int) -> dict[str, Any] | None:
        """Return the checkpoint of an unfinished phase when resuming, else None.

        Raises:
            CheckpointError: if it belongs to another configuration or other data.
        """
        if not self.resume:
            self._forget_results(number)
        return self.require_same_run(number)

    def require_same_run(self, number: int) -> dict[str, Any] | None:
        """Return the checkpoint that a resumed phase continues, None if it begins anew.

        Raises:
            CheckpointError: if it belongs to another configuration or other data.
        """
        path = self.folder(number) / RUNNING
        if not self.resume or not path.is_file():
            return None
        payload = load_payload(path)
        kind = self._running_kind(number)
        if payload["kind"] != kind:
            raise CheckpointError(
                f"{path}: expected the checkpoint of {kind}, found {payload['kind']}; "
                "remove the file or start again without --resume"
            )
        self.require_identity(number, payload.get("identity", {}), str(path))
        return payload

    def require_identity(self, number: int, found: dict[str, Any], what: str) -> None:
        """Refuse what another run left.

        Raises:
            CheckpointError: naming what differs; the values, where the phase's folder tells them.
        """
        for key, value in self.run_identity().items():
            if found.get(key) != value:
                raise CheckpointError(
                    f"{what} is of a run with another {self._difference(number, key, found)}; "
                    "resume with the same options, start again without --resume, or choose "
                    "another --log-dir"
                )

    def _difference(self, number: int, key: str, found: dict[str, Any]) -> str:
        """Describe one difference: there, then here."""
        dumped = self.folder(number) / CONFIG
        if key != "market" and dumped.is_file():
            changes = find_changes(dumped.read_text(encoding="utf-8"), self.config)
            if changes:
                return f"configuration: {', '.join(changes)}"
        there, here = str(found.get(key))[:SHOWN_DIGITS], str(self.run_identity()[key])
        return f"{key}: {there} there, {here[:SHOWN_DIGITS]} here"

    @staticmethod
    def _running_kind(number: int) -> str:
        return f"phase {number}"

    def _forget_results(self, number: int) -> None:
        """Remove what an earlier run of the phase left: a fresh start must not mix with it."""
        folder, files = self.folder(number), PHASES[number - 1]
        for name in (*files.best, files.metrics, RUNNING):
            (folder / name).unlink(missing_ok=True)

    def save_running(self, number: int, payload: dict[str, Any]) -> None:
        """Write the checkpoint of an unfinished phase."""
        identity = self.run_identity()
        save_payload(
            self.folder(number) / RUNNING,
            {"kind": self._running_kind(number), "identity": identity, **payload},
        )

    def forget_running(self, number: int) -> None:
        """Remove the checkpoint of a phase that has finished."""
        (self.folder(number) / RUNNING).unlink(missing_ok=True)


@dataclass(frozen=True)
class PhaseResult:
    """What a phase leaves behind."""

    number: int
    metrics: Path
    summary: dict[str, Any]
    """The numbers of the phase's closing line."""


def require_finite_weights(number: int, networks: nn.Module, step: int) -> None:
    """Keep weights that are not numbers out of checkpoints and selection.

    Raises:
        TrainingDivergedError: naming the phase and the step.
    """
    for name, weights in networks.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise TrainingDivergedError(
                f"phase {number}: weights {name} are not finite after step {step}: "
                "lower the learning rate; the last good checkpoint is kept"
            )


def market_fingerprint(market: Market) -> str:
    """Hash what agents and their checkpoints depend on; sector embeddings are derived from it."""
    digest = hashlib.sha256(repr((market.symbols, market.sector_names, market.split)).encode())
    digest.update(market.embeddings_hash.encode())
    tables = (market.dates, market.slots, market.overnight_return, market.intraday_return)
    for table in (*tables, market.stock_features, market.macro_features, market.filtered_regime):
        digest.update(table.tobytes())
    return digest.hexdigest()


def save_sector_table(path: Path, context: PhaseContext, table: np.ndarray) -> Path:
    """Write the sector embeddings of phase 1 with the span they were fitted on."""
    split = context.market.split
    payload = {
        "kind": SECTOR_TABLE,
        "identity": {"market": context.fingerprint},
        "fitted_rows": [split.train.start, split.train.stop],
        "table": torch.from_numpy(table),
    }
    return save_payload(path, payload)


def with_sector_table(context: PhaseContext) -> PhaseContext:
    """Return the context whose market carries the sector embeddings of phase 1.

    Raises:
        MissingArtifactError: if phase 1 has not finished.
        CheckpointError: if the table is of other data or was fitted past this training span.
    """
    path = context.best(1, which=1)
    payload = load_payload(path)
    if payload["kind"] != SECTOR_TABLE:
        raise CheckpointError(
            f"{path}: expected a {SECTOR_TABLE}, found {payload['kind']}: "
            "run `python main.py train --phase 1` again"
        )
    if payload["identity"]["market"] != context.fingerprint:
        raise CheckpointError(
            f"{path} belongs to another market: run `python main.py train --phase 1` again"
        )
    if payload["fitted_rows"][1] > context.market.split.train.stop:
        raise CheckpointError(
            f"{path} was fitted on rows to {payload['fitted_rows'][1]}, past the training span's "
            f"end {context.market.split.train.stop}: it has seen the future of this fold"
        )
    return context.with_sector_embeddings(payload["table"].numpy())
