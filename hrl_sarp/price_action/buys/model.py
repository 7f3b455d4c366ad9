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


@dataclass(frozen=True)
class PriceAction:
    """A trained transformer with what scales its inputs."""

    network: PriceActionTransformer
    scaling: CandleScaling
    window_length: int

    @torch.no_grad()
    def probabilities(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, " B"]:
        """Rate the buy after each window."""
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
    """Read what `save_price_action` wrote."""
    path, columns = folder / MODEL, list(candles.COLUMNS)
    payload = load_plain(path)
    expected = {"feature_columns": columns, "input_dim": len(columns)}
    expected |= {"window_size": config.window_length}
    _require(path, payload, {"model_state_dict": dict}, expected)
    network = PriceActionTransformer(len(columns), config)
    load_module(path, network, payload["model_state_dict"])
    for name, weight in network.state_dict().items():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite; train again")
    path = folder / SCALER
    try:
        found = read_json(path, WRITER)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    _require(path, found, {"levels": str}, {"feature_columns": columns})
    if found["levels"] not in ("relative", "raw"):
        raise CheckpointError(
            f"{path}: levels must be relative or raw, found {found['levels']!r}; run `{WRITER}` "
            "again"
        )
    scaler = Scaler.from_plain(found, len(columns), str(path), WRITER)
    scaling = CandleScaling(found["levels"], scaler)
    return PriceAction(network.eval(), scaling, config.window_length)


def _require(path: Path, found: Any, types: Mapping[str, type], values: Mapping[str, Any]) -> None:
    """Refuse what is no dictionary with entries of these types and values."""
    parts = found if isinstance(found, dict) else {}
    wrong = {
        name: f"a {kind.__name__}"
        for name, kind in types.items()
        if not isinstance(parts.get(name), kind)
    }
    wrong |= {name: str(value) for name, value in values.items() if parts.get(name) != value}
    for name, expected in wrong.items():
        raise CheckpointError(
            f"{path}: {name}: expected {expected}, found {str(parts.get(name, 'nothing'))[:60]}; "
            f"use the configuration of its run or run `{WRITER}` again"
        )
