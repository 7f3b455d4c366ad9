"""Writes and reads an encoder as two files: weights (safetensors) and their description (JSON)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from hrl_sarp.encoders.networks.whole_models import PREFIX
from hrl_sarp.errors import CheckpointError, DataError, MissingArtifactError
from hrl_sarp.run.checkpoints import load_payload, load_plain
from hrl_sarp.run.damage import UNREADABLE_TENSORS
from hrl_sarp.run.files import read_json, sha256_file, write_bytes, write_json

WEIGHTS, DESCRIPTION = "encoder.safetensors", "encoder.json"
WRITER = "hrl-sarp pretrain-encoder"
DESCRIPTION_KEYS: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "n_features": int,
    "columns": list,
    "window_length": int,
    "sizes": dict,
    "scaler": (dict, type(None)),
    "fitted_from": str,
    "fitted_to": str,
    "data_hash": str,
    "config_hash": str,
    "code_version": str,
    "seed": int,
}
"""Required keys of a description -> their types.

`kind` is jade or transformer. `sizes` is its configuration section. `scaler` holds `mean` and `std`
per column; null means that inputs are not scaled. `fitted_from` and `fitted_to` are the ISO
timestamps of the first and the last training bar.
"""
CODE_FOLDERS = ("encoders", "features", "fitting")
"""Folders of the package whose code the inputs and weights of every encoder depend on."""
SHOWN_KEYS = 3
"""Names of weights that a message shows."""


@dataclass(frozen=True)
class LoadReport:
    """The weights that did not match when an encoder was loaded from a file.

    Examples:
        >>> report = LoadReport(missing=(), unexpected=("decoder.bias",))
        >>> bool(report.missing)  # the encoder is complete
        False
    """

    missing: tuple[str, ...]
    """Weights of the module that the file lacks; they stay unchanged."""
    unexpected: tuple[str, ...]
    """Weights of the file that the module lacks."""


def export_encoder(folder: Path, encoder: nn.Module, description: dict[str, Any]) -> Path:
    """Write `encoder.safetensors` and `encoder.json`.

    Args:
        folder: folder of both files; made if needed.
        encoder: the encoder alone, without mask token, decoder and heads.
        description: the keys of `DESCRIPTION_KEYS`, and any others.

    Returns:
        The file of the weights.

    Raises:
        CheckpointError: if the description lacks a key or a weight is not finite.
    """
    _require_description(description, f"description for {folder / DESCRIPTION}")
    state = {name: weights.detach().cpu() for name, weights in encoder.state_dict().items()}
    path = folder / WEIGHTS
    _require_finite(path, state)
    write_bytes(path, save_safetensors({name: w.contiguous() for name, w in state.items()}))
    write_json(folder / DESCRIPTION, {**description, "weights_sha256": sha256_file(path)})
    return path


def load_encoder(path: Path, module: nn.Module) -> LoadReport:
    """Load an encoder from an export or from a checkpoint of `pretrain-encoder`.

    Args:
        path: folder of the export, either file of it, or a `.pt` file: a checkpoint, or the
            weights of one alone, with or without `encoder.` before their names.
        module: the encoder; weights that the file lacks stay unchanged.

    Returns:
        The weights that the file lacks, and those that the module lacks.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if the file is damaged or holds code, if no weight matches, or if a weight
            of the same name has another shape. The module then stays unchanged.
    """
    found = _read_weights(path)
    own = module.state_dict()
    matched = {name: weights for name, weights in found.items() if name in own}
    if not matched:
        raise CheckpointError(
            f"{path}: no weight matches the encoder: expected names like {_listed(own)}, "
            f"found {_listed(found)}; name the export of an encoder of the same kind"
        )
    for name, weights in matched.items():
        if weights.shape != own[name].shape:
            raise CheckpointError(
                f"{path}: {name} has another shape: expected {tuple(own[name].shape)}, found "
                f"{tuple(weights.shape)}; use the sizes and columns that {DESCRIPTION} names"
            )
    _require_finite(path, matched)
    module.load_state_dict(matched, strict=False)
    return LoadReport(tuple(sorted(own.keys() - found)), tuple(sorted(found.keys() - own)))


def read_description(path: Path) -> dict[str, Any]:
    """Read the description of an encoder: its kind, sizes and training data.

    Args:
        path: as for `load_encoder`.

    Returns:
        The keys of `DESCRIPTION_KEYS`, and any others in the file.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if the file cannot be read, lacks a key or describes other weights.
    """
    if path.suffix == ".pt":
        if holds_weights_alone(path):
            raise CheckpointError(
                f"{path}: holds weights alone, which say neither columns nor scaling; name the "
                f"checkpoint that they were taken from, or the folder that `{WRITER}` wrote"
            )
        description = load_payload(path).get("encoder")
        _require_description(description, str(path))
        return dict(description or {})
    weights = _weights_file(path)
    file = weights.with_name(DESCRIPTION)
    try:
        description = read_json(file, WRITER)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    _require_description(description, str(file))
    if description.get("weights_sha256") != sha256_file(weights):
        raise CheckpointError(
            f"{file}: describes other weights than {weights.name} beside it holds; "
            f"restore both files or run `{WRITER}` again"
        )
    return dict(description)


def holds_weights_alone(path: Path) -> bool:
    """Say whether a `.pt` file holds tensors by name and nothing else, as `torch.save` of weights.

    Args:
        path: any path that `load_encoder` takes.

    Returns:
        False for every other file.
    """
    return path.suffix == ".pt" and _is_bare(load_plain(path))


def _is_bare(content: Any) -> bool:
    return bool(_dict(content)) and all(isinstance(part, Tensor) for part in content.values())


def _dict(content: Any) -> dict[Any, Any]:
    return content if isinstance(content, dict) else {}


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".pt":
        content = load_plain(path)
        state = content if _is_bare(content) else _dict(content).get("model_state_dict")
        if not isinstance(state, dict):
            raise CheckpointError(
                f"{path}: expected the checkpoint of an encoder with `model_state_dict`, found "
                f"none; name {WEIGHTS} or a checkpoint that `{WRITER}` wrote"
            )
        weights = {
            name: values
            for name, values in state.items()
            if isinstance(name, str) and isinstance(values, Tensor)
        }
        inside = {
            name.removeprefix(PREFIX): values
            for name, values in weights.items()
            if name.startswith(PREFIX)
        }
        return inside or (weights if _is_bare(content) else {})
    file = _weights_file(path)
    if file.with_name(DESCRIPTION).is_file():
        read_description(file)  # knows the hash of the weights
    try:
        return load_safetensors(file.read_bytes())
    except UNREADABLE_TENSORS as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{file}: expected weights as safetensors, found an unreadable file ({reason}); "
            f"restore it or run `{WRITER}` again"
        ) from error


def _weights_file(path: Path) -> Path:
    """Return the file of the weights, given itself, its folder or its description."""
    file = path / WEIGHTS if path.is_dir() else path
    file = file.with_name(WEIGHTS) if file.name == DESCRIPTION else file
    if not file.is_file():
        raise MissingArtifactError(f"no encoder at {file}; run `{WRITER}` to write it")
    return file


def _require_description(description: Any, where: str) -> None:
    if not isinstance(description, dict):
        found = type(description).__name__
        raise CheckpointError(
            f"{where}: expected the description of an encoder, found {found}; run `{WRITER}` again"
        )
    for key, kind in DESCRIPTION_KEYS.items():
        if key not in description or not isinstance(description[key], kind):
            found = repr(description.get(key, "nothing"))
            raise CheckpointError(
                f"{where}: `{key}` of the encoder's description is not usable, found {found}; "
                f"run `{WRITER}` again"
            )


def _require_finite(path: Path, state: dict[str, Tensor]) -> None:
    for name, weights in state.items():
        if not bool(torch.isfinite(weights).all()):
            raise CheckpointError(
                f"{path}: {name} holds values that are not finite; run `{WRITER}` again"
            )


def _listed(state: dict[str, Tensor]) -> str:
    return ", ".join(sorted(state)[:SHOWN_KEYS]) or "nothing"
