"""Checkpoints of tensors and plain values, and the random state. Opening one runs no code."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.run.damage import UNREADABLE, require_intact
from hrl_sarp.run.files import atomic_path, unwritable

LONGEST_REASON = 200
"""Characters of another library's message that our errors quote."""


def save_payload(path: Path, payload: dict[str, Any]) -> Path:
    """Write tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        try:
            torch.save(payload, temporary)
        except RuntimeError as error:  # PyTorch raises it when the disk refuses a write
            raise unwritable(path, "only a part of it could be written") from error
    return path


def load_payload(path: Path) -> dict[str, Any]:
    """Read what `save_payload` wrote; a truncated file, or one that holds code, is refused."""
    payload = load_plain(path)
    if not isinstance(payload, dict) or "kind" not in payload:
        found = type(payload).__name__
        raise CheckpointError(
            f"{path}: expected a dictionary with `kind`, found {found}; train again"
        )
    return payload


def load_plain(path: Path) -> Any:
    """Read tensors and plain values of any layout; refuses what `load_payload` refuses."""
    if not path.is_file():
        raise MissingArtifactError(f"no checkpoint at {path}")
    try:
        require_intact(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = (str(error).split("\n")[0] or type(error).__name__)[:LONGEST_REASON]
        raise CheckpointError(
            f"{path} is not a checkpoint of this package (truncated, or holding code): {reason}; "
            "train again or restore the file"
        ) from error


def load_module(path: Path, module: nn.Module, state: dict[str, Any]) -> None:
    """Fill a network; a mismatch of shapes becomes an error of one line."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(f"{path}: networks of other shapes: {' '.join(lines)}") from error


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn errors from restoring a checkpoint of another version into one line."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(
            f"{path}: does not fit this version of the package: expected what it saves itself, "
            f"found {type(error).__name__}: {reason}; begin the phase anew with --overwrite"
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


def require_same_threads(n_threads: int) -> None:
    """Refuse to continue a run with another number of threads: sums would round differently."""
    if n_threads != torch.get_num_threads():
        raise CheckpointError(
            f"the run used {n_threads} threads, this one {torch.get_num_threads()}: "
            "an exact continuation needs the same number (`threads` in data_config.yaml)"
        )


def restore_rng(state: dict[str, Any]) -> None:
    """Restore the global generators from what `rng_state` returned."""
    require_same_threads(state["threads"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
