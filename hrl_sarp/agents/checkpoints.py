"""Agents and running algorithms as files of tensors and plain values; opening one runs no code."""

import hashlib
import math
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import nn

from hrl_sarp.artifacts import atomic_path, unwritable
from hrl_sarp.errors import CheckpointError, MissingArtifactError, TrainingDivergedError
from hrl_sarp.market.tensors import MarketTensors

LONGEST_REASON = 200
"""Characters of another library's message that a line of ours repeats."""


@runtime_checkable
class Saveable(Protocol):
    """An agent made of an actor and a critic for one market."""

    kind: str
    tensors: MarketTensors

    @property
    def actor(self) -> nn.Module:
        """The network that acts."""

    @property
    def critic(self) -> nn.Module:
        """The network that judges."""


Agent = TypeVar("Agent", bound=Saveable)


def save_payload(path: Path, payload: dict[str, Any]) -> Path:
    """Write tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        try:
            torch.save(payload, temporary)
        except RuntimeError as error:  # what PyTorch makes of a write that the disk refused
            raise unwritable(path, "only a part of it could be written") from error
    return path


def load_payload(path: Path) -> dict[str, Any]:
    """Read what `save_payload` wrote.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if it is truncated, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise MissingArtifactError(f"no checkpoint at {path}")
    try:
        _require_intact(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, BadZipFile, EOFError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is not a checkpoint of this package (truncated, or holding code): {reason}; "
            "train again or restore the file"
        ) from error
    if not isinstance(payload, dict) or "kind" not in payload:
        found = type(payload).__name__
        raise CheckpointError(
            f"{path}: expected a dictionary with `kind`, found {found}; train again"
        )
    return payload


def _require_intact(path: Path) -> None:
    """Read every byte against its checksum: PyTorch itself loads flipped bits without a word."""
    with ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise BadZipFile(f"{damaged} does not match its checksum")


def market_identity(tensors: MarketTensors) -> dict[str, Any]:
    """Return what must agree between an agent and its market (any number of stocks is fine)."""
    market = tensors.market
    width = tensors.slot_features.shape[2]
    return {
        "sectors": list(market.sector_names),
        "stock_features": list(market.feature_names),
        "macro_features": list(market.macro_names),
        "stock_columns": int(width),
    }


def sector_table_hash(tensors: MarketTensors) -> str:
    """Hash the sector table that a macro agent reads; empty where there is none."""
    table = tensors.sector_embeddings
    return "" if table is None else hashlib.sha256(table.cpu().numpy().tobytes()).hexdigest()


def save_agent(path: Path, agent: Saveable) -> Path:
    """Write an agent's networks and the market they are for."""
    payload = {
        "kind": agent.kind,
        "market": market_identity(agent.tensors),
        "sector_table": sector_table_hash(agent.tensors) if agent.kind == "macro" else "",
        "actor": agent.actor.state_dict(),
        "critic": agent.critic.state_dict(),
    }
    return save_payload(path, payload)


def load_agent(path: Path, agent: Agent) -> Agent:
    """Fill `agent` from a file that `save_agent` wrote for a market like its own."""
    payload = load_payload(path)
    if payload["kind"] != agent.kind:
        raise CheckpointError(f"{path}: expected a {agent.kind} agent, found {payload['kind']}")
    missing = [name for name in ("market", "actor", "critic") if name not in payload]
    if missing:
        raise CheckpointError(f"{path}: expected {', '.join(missing)}, found none; train again")
    here = market_identity(agent.tensors)
    for key, found in payload["market"].items():
        if found != here[key]:
            raise CheckpointError(
                f"{path}: was trained for another market: expected {key} {here[key]}, found {found}"
            )
    if agent.kind == "macro" and payload["sector_table"] != sector_table_hash(agent.tensors):
        raise CheckpointError(
            f"{path}: was trained on another sector table: phase 1 has run again since; run the "
            "phases after it again"
        )
    for name in ("actor", "critic"):
        load_module(path, getattr(agent, name), payload[name])
    return agent


def load_module(path: Path, module: nn.Module, state: dict[str, Any]) -> None:
    """Fill a network, turning a mismatch into one clear line."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(f"{path}: networks of other shapes: {' '.join(lines)}") from error


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn what breaks while a checkpoint of other code is put back into one clear line.

    Raises:
        CheckpointError: if keys, shapes or values are not those that this code saves.
    """
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(
            f"{path}: does not fit this version of the package: expected what it saves itself, "
            f"found {type(error).__name__}: {reason}; start the phase again without --resume"
        ) from error


def rng_state() -> dict[str, Any]:
    """Return the state of the global generators as plain values and tensors."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  (SB3 draws from it)
    name, keys, position, has_gauss, cached = numpy_state
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
        "threads": torch.get_num_threads(),
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Restore `rng_state`.

    Raises:
        CheckpointError: if another number of threads is in use, so that sums would round otherwise.
    """
    if state["threads"] != torch.get_num_threads():
        raise CheckpointError(
            f"the run used {state['threads']} threads, this one {torch.get_num_threads()}: "
            "an exact continuation needs the same number (`threads` in data_config.yaml)"
        )
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def require_finite(
    name: str, value: float, step: int, days: tuple[int, int], tensors: MarketTensors
) -> None:
    """Stop a phase at the first loss that is not a number.

    Raises:
        TrainingDivergedError: naming the step, the market rows of the batch and their dates.
    """
    if not math.isfinite(value):
        first, last = (tensors.market.dates[day] for day in days)
        raise TrainingDivergedError(
            f"{name} is {value} at step {step}, batch of market rows {days[0]} to {days[1]} "
            f"({first} to {last}): lower the learning rate; the last good checkpoint "
            "(running.pt of the phase) is kept"
        )
