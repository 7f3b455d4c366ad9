"""Reads and writes the weights of forecasters: safetensors under their published names, and JSON.

A folder holds `model.safetensors` and `config.json`, as the makers publish them. A file of parts
(`model.safetensors.index.json`) and a `.pt` file of plain tensors are read, too. No code in a file
is run.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.run.checkpoints import load_plain
from hrl_sarp.run.damage import UNREADABLE, UNREADABLE_TENSORS
from hrl_sarp.run.files import to_plain, write_bytes, write_text

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
BARE_STATE = "model_state_dict"
SHOWN_KEYS = 3
"""Names of weights that a message shows."""
Count = Annotated[int, Field(ge=1)]
"""Of layers, heads, channels."""
Sizes = TypeVar("Sizes", bound=BaseModel)


@dataclass(frozen=True)
class WeightFile:
    """Weights under the names of their file, and the settings beside them."""

    path: Path
    """File or folder, for messages."""
    state: dict[str, Tensor]
    config: dict[str, Any] | None
    """Content of `config.json`; None where there is none."""


def read_weights(path: Path) -> WeightFile:
    """Read the weights of a folder, a safetensors file or a `.pt` file.

    Args:
        path: folder of `model.safetensors`, that file, its index, or a `.pt` file of tensors by
            name (alone, or below `model_state_dict`).

    Returns:
        All tensors, and `config.json` of the same folder if there is one.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if a file is truncated, holds code, is no dictionary of tensors, or holds a
            value that is not finite.
    """
    if not path.exists():
        raise MissingArtifactError(
            f"no weights at {path}; name a folder with {WEIGHTS} and {CONFIG}"
        )
    folder = path if path.is_dir() else path.parent
    state = _read_folder(folder) if path.is_dir() else _read_file(path)
    for name, weights in state.items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise CheckpointError(
                f"{path}: {name} holds values that are not finite; restore the file"
            )
    return WeightFile(path, state, _read_config(folder / CONFIG))


def files_of_weights(path: Path) -> list[Path]:
    """List the files that `read_weights` reads.

    Args:
        path: as there; a file is not opened unless it is an index.

    Returns:
        Weights or index, the parts that it names, and `config.json` if there is one.

    Raises:
        MissingArtifactError: if a file of weights is not there.
    """
    main = path
    if path.is_dir():
        main = path / (INDEX if (path / INDEX).is_file() else WEIGHTS)
    if not main.is_file():
        raise MissingArtifactError(
            f"no weights at {main}; name a folder with {WEIGHTS} and {CONFIG}"
        )
    parts = _parts_of(main) if main.name == INDEX else []
    config = main.parent / CONFIG
    return [main, *parts, *([config] if config.is_file() else [])]


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill a module with tensors of the same names and shapes.

    Args:
        module: gets the values in its own precision.
        state: tensors by the names of the module.
        path: file of the tensors, for messages.

    Raises:
        CheckpointError: names each kind of difference: the tensor, what was expected and what was
            found. The module then stays unchanged.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name}: expected shape {tuple(own[name].shape)}, found "
                f"{tuple(state[name].shape)}; use the {CONFIG} that belongs to these weights"
            )
    if missing or unknown:
        raise CheckpointError(
            f"{path}: expected the tensor{'s' * (len(missing) != 1)} {_listed(missing)}, found "
            f"{_listed(unknown)} instead; use the {CONFIG} that belongs to these weights"
        )
    module.load_state_dict(dict(state))


def read_sizes(
    kind: type[Sizes],
    config: Mapping[str, object],
    path: Path,
    *,
    only: Mapping[str, object] | None = None,
    ignored: Collection[str] = (),
) -> Sizes:
    """Fill a section of sizes from the constructor arguments of a published model.

    Args:
        kind: has a field for each argument that may vary.
        config: content of `config.json`.
        path: file of the weights, for messages.
        only: arguments whose one value here is all that is implemented; they may be absent.
        ignored: arguments without an effect on what is computed.

    Returns:
        The sizes.

    Raises:
        CheckpointError: names each argument that is missing, unknown, impossible or not
            implemented.
    """
    fixed = only or {}
    for name, ours in fixed.items():
        if config.get(name, ours) != ours:
            raise CheckpointError(
                f"{path}: {name}: expected {ours}, found {config[name]!r}; only that is implemented"
            )
    sizes = {name: config[name] for name in config.keys() - fixed.keys() - set(ignored)}
    try:
        return kind.model_validate(sizes)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, found['loc'])) or 'sizes'}: {found['msg']}"
            for found in error.errors()[:SHOWN_KEYS]
        )
        raise CheckpointError(
            f"{path}: expected the sizes of a {kind.__name__}, found {problems}; use the {CONFIG} "
            "that belongs to these weights"
        ) from error


def write_weights(folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """Write `model.safetensors` and `config.json`.

    Args:
        folder: made if needed.
        state: tensors under their published names.
        config: constructor names of the published model and their values.

    Returns:
        The file of the weights.

    Raises:
        CheckpointError: if a weight is not finite.
    """
    path = folder / WEIGHTS
    require_finite(state, path)
    plain = {name: weights.detach().cpu().contiguous() for name, weights in state.items()}
    write_bytes(path, save_safetensors(plain, {"format": "pt"}))
    # without our checksum: the makers' own loaders pass every key to a constructor
    write_text(
        folder / CONFIG, json.dumps(to_plain(dict(config)), indent=2, allow_nan=False) + "\n"
    )
    return path


def require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights before anything is written.

    Args:
        state: tensors by their names.
        path: where they would be written, for messages.

    Raises:
        CheckpointError: if a weight is not finite.
    """
    for name, weights in state.items():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise CheckpointError(f"{path}: {name} is not finite; it was not written")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    if (folder / INDEX).is_file():
        return _read_parts(folder / INDEX)
    if not (folder / WEIGHTS).is_file():
        raise MissingArtifactError(
            f"no weights in {folder}: expected {WEIGHTS} or {INDEX}; name the folder that holds it"
        )
    return _read_file(folder / WEIGHTS)


def _weight_map(index: Path) -> dict[str, str]:
    names = _read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index}: expected `weight_map` from tensors to files, found none")
    return {name: str(file) for name, file in names.items()}


def _parts_of(index: Path) -> list[Path]:
    """Return the files that an index names."""
    parts = []
    for file in sorted(set(_weight_map(index).values())):
        part = index.parent / file
        if part.name != file or not part.is_file():
            raise MissingArtifactError(f"{index} names {file}, which is not beside it; restore it")
        parts.append(part)
    return parts


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Read the files that an index names."""
    names = _weight_map(index)
    state: dict[str, Tensor] = {}
    for part in _parts_of(index):
        state |= _read_file(part)
    lacking = sorted(names.keys() - state.keys())
    if lacking:
        raise CheckpointError(f"{index}: no file holds {_listed(lacking)}; restore the parts")
    return state


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.name == INDEX:
        return _read_parts(path)
    if path.suffix == ".pt":
        content = load_plain(path)
        state = content.get(BARE_STATE, content) if isinstance(content, dict) else content
        if not isinstance(state, dict) or not all(
            isinstance(part, Tensor) for part in state.values()
        ):
            raise CheckpointError(
                f"{path}: expected tensors by name, found {type(state).__name__} with other "
                f"values; name a {WEIGHTS}"
            )
        return {str(name): weights for name, weights in state.items()}
    try:
        return load_safetensors(path.read_bytes())
    except UNREADABLE_TENSORS as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: expected weights as safetensors, found an unreadable file ({reason}); "
            "download or restore it again"
        ) from error


def _read_config(path: Path) -> dict[str, Any] | None:
    return _read_object(path) if path.is_file() else None


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that others may have written, so without a checksum of ours."""
    try:
        content = json.loads(path.read_text())
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: expected JSON, found an unreadable file: {error}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    return ", ".join(names[:SHOWN_KEYS]) + more or "nothing"
