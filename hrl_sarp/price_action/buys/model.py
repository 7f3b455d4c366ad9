"""The price-action transformer as files: `best_model.pth` and `scaler.json`, plain values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.encoder_schema import TransformerConfig
from hrl_sarp.encoders.networks.transformer import PriceActionTransformer
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, DataError
from hrl_sarp.features import candles
from hrl_sarp.price_action.buys.windows import CandleScaling
from hrl_sarp.run.checkpoints import load_module, load_plain, save_payload
from hrl_sarp.run.files import read_json, write_json

MODEL, SCALER = "best_model.pth", "scaler.json"
WRITER = "hrl-sarp finetune-encoder --variant price-action"
_MODEL_KEYS = {
    "model_state_dict": dict,
    "feature_columns": list,
    "window_size": int,
    "input_dim": int,
}
_SCALER_KEYS = {"feature_columns": list, "levels": str}


@dataclass(frozen=True)
class PriceAction:
    """A trained transformer with what scales its inputs."""

    network: PriceActionTransformer
    scaling: CandleScaling
    window_length: int

    @torch.no_grad()
    def probabilities(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, " B"]:
        """Return how likely a buy after each window is worth it.

        Args:
            windows: candles with the columns `candles.COLUMNS`, as they are.
        """
        self.network.eval()
        logits: Tensor = self.network(self.scaling.apply(windows))
        return torch.sigmoid(logits)


def save_price_action(folder: Path, model: PriceAction) -> None:
    """Write both files."""
    columns = list(candles.COLUMNS)
    state = {name: weight.detach().cpu() for name, weight in model.network.state_dict().items()}
    payload = {
        "model_state_dict": state,
        "feature_columns": columns,
        "window_size": model.window_length,
        "input_dim": len(columns),
    }
    scaling = model.scaling
    scaler = {
        **scaling.scaler.as_plain(),
        "feature_columns": columns,
        "levels": scaling.levels,
    }
    save_payload(folder / MODEL, payload)
    write_json(folder / SCALER, scaler)


def load_price_action(folder: Path, config: TransformerConfig) -> PriceAction:
    """Read what `save_price_action` wrote.

    Raises:
        MissingArtifactError: if either file is not there.
        CheckpointError: if a file is truncated, holds code, or is of other columns or sizes.
    """
    path = folder / MODEL
    payload = load_plain(path)
    _require_keys(path, payload, _MODEL_KEYS)
    network = PriceActionTransformer(len(candles.COLUMNS), config)
    _require_equal(path, "feature_columns", payload["feature_columns"], list(candles.COLUMNS))
    _require_equal(path, "input_dim", payload["input_dim"], len(candles.COLUMNS))
    _require_equal(path, "window_size", payload["window_size"], config.window_length)
    load_module(path, network, payload["model_state_dict"])
    for name, weight in network.state_dict().items():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite; train again")
    return PriceAction(network.eval(), _read_scaling(folder / SCALER), payload["window_size"])


def _read_scaling(path: Path) -> CandleScaling:
    try:
        scaler = read_json(path, WRITER)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    _require_keys(path, scaler, _SCALER_KEYS)
    _require_equal(path, "feature_columns", scaler["feature_columns"], list(candles.COLUMNS))
    if scaler["levels"] not in ("relative", "raw"):
        raise CheckpointError(
            f"{path}: levels must be relative or raw, found {scaler['levels']!r}; run `{WRITER}` "
            "again"
        )
    read = Scaler.from_plain(scaler, len(candles.COLUMNS), str(path), WRITER)
    return CandleScaling(scaler["levels"], read)


def _require_keys(path: Path, found: Any, expected: Mapping[str, type]) -> None:
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path}: expected {', '.join(expected)}, found {type(found).__name__}; run "
            f"`{WRITER}` again"
        )
    for name, kind in expected.items():
        if not isinstance(found.get(name), kind):
            raise CheckpointError(
                f"{path}: expected `{name}` of type {kind.__name__}, found "
                f"{type(found.get(name)).__name__}; run `{WRITER}` again"
            )


def _require_equal(path: Path, name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise CheckpointError(
            f"{path}: was made for another {name}: expected {expected}, found {found}; use the "
            f"configuration of its run or run `{WRITER}` again"
        )
