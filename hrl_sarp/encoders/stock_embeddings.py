"""Frozen encoders of a market, and the tables of their embeddings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.embedding_table import (
    EmbeddingJob,
    finished_hash,
    write_table,
)
from hrl_sarp.encoders.networks import EncoderKind, PanelEncoder, build_encoder
from hrl_sarp.encoders.networks.projection import PROJECTION, Projection, load_projection
from hrl_sarp.encoders.transfer import WEIGHTS, load_encoder, read_description
from hrl_sarp.encoders.windows.panel import (
    panel_columns,
    panel_features,
    window_table,
)
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, MarketError, MissingArtifactError
from hrl_sarp.features.relativity import described
from hrl_sarp.run.checkpoints import load_module, restoring
from hrl_sarp.run.files import sha256_file, sha256_plain, source_hash

OBSERVED: dict[str, tuple[EncoderKind, ...]] = {
    "none": (),
    "jade": ("jade",),
    "transformer": ("transformer",),
    "both": ("jade", "transformer"),
}
"""Value of `encoders.observe` -> encoders, in the order of their columns."""
EMBEDDINGS = "embeddings"
"""Folder of the tables, beside `data/raw`."""
ORIGINS = "origins"
"""Entry of the embeddings' facts: kind -> folder and identity of the encoder."""
PHASE_1 = "hrl-sarp train --phase 1"
SHAPING = {"window_length", "max_missing_sessions", "clip", "block_windows", "dtype"}
"""Keys of `encoders.panel` that a table of embeddings depends on."""
CODE = (
    "encoders/stock_embeddings.py",
    "encoders/embedding_table.py",
    "encoders/networks",
    "encoders/windows",
)
"""Source files that a table of embeddings depends on."""


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that was pretrained on a panel, with its scaler and projection."""

    kind: EncoderKind
    encoder: PanelEncoder
    """In evaluation mode."""
    scaler: Scaler
    projection: Projection
    fitted_to: str
    """Last day of the data that encoder and projection were fitted to."""
    identity: str
    """Hash of weights, scaler and projection."""

    def to_payload(self) -> dict[str, Any]:
        """Return tensors and plain values, from which `from_payload` makes the same encoder."""
        return {
            "weights": {name: value.cpu() for name, value in self.encoder.state_dict().items()},
            "scaler": self.scaler.as_plain(),
            "projection": {
                "mean": self.projection.mean.cpu(),
                "components": self.projection.components.cpu(),
                "explained": self.projection.explained,
            },
            "fitted_to": self.fitted_to,
            "identity": self.identity,
        }

    @classmethod
    def from_payload(
        cls, kind: EncoderKind, payload: Mapping[str, Any], config: RunConfig, path: Path
    ) -> "FrozenEncoder":
        """Read `to_payload`; the file is for messages.

        Raises:
            CheckpointError: if it is not what `to_payload` writes, or has networks of other sizes.
        """
        n_features = len(panel_columns(kind, config.windowed.feature_config))
        encoder = build_encoder(kind, n_features, config.encoders)
        with restoring(path):
            load_module(path, encoder, payload["weights"])
            scaler = Scaler.from_plain(payload["scaler"], n_features, str(path), PHASE_1)
            projection = Projection(**payload["projection"])
            fitted_to, identity = payload["fitted_to"], payload["identity"]
        return cls(kind, encoder.eval(), scaler, projection, fitted_to, identity)


@dataclass(frozen=True)
class EncoderTable:
    """The finished table of an encoder's embeddings of a market."""

    frozen: FrozenEncoder
    folder: Path
    """Of the encoder."""
    path: Path
    content: str
    """Hash of the file."""


def encoder_tables(
    market: Market,
    data_dir: Path,
    config: RunConfig,
    device: torch.device,
    bars: Callable[[], Bars],
) -> list[EncoderTable]:
    """Return the tables of the encoders in `encoders.observe`, in the order of their columns.

    Encoders and tables lie beside `data_dir` (`data/raw`). Missing tables are made first, which
    takes minutes on a large market; `bars` reads its bars for that.

    Raises:
        MissingArtifactError: if an encoder was not pretrained; names the command.
        CheckpointError: if an encoder is damaged, has other columns or windows, belongs to another
            market, or was fitted past the training span.
        MarketError: if the market was not loaded from a data folder.
    """
    folder = data_dir.parent / EMBEDDINGS
    found = []
    # all are read before any is used: a refusal must not come after the minutes of a table
    encoders = [
        read_frozen(kind, market, data_dir, config) for kind in OBSERVED[config.encoders.observe]
    ]
    for frozen in encoders:
        path = folder / f"{market.name}-{frozen.kind}-{_key(frozen, market, config)[:16]}.npy"
        content = finished_hash(path)
        if content is None:
            job = embedding_job(frozen, bars(), market, config, device)
            content = write_table(job, path, f"{frozen.kind} embeddings")
        where = encoder_folder(data_dir, market.name, frozen.kind)
        found.append(EncoderTable(frozen, where, path, content))
    return found


def kept_encoders(market: Market, config: RunConfig) -> dict[str, Any]:
    """Return the encoders of a market's embeddings, for a run that decides on days to come.

    Returns:
        Tensors and plain values by the kind of the encoder; empty where agents observe none.

    Raises:
        CheckpointError: if an encoder is another one than that of the embeddings by now.
    """
    kept = {}
    for kind, (folder, identity) in market.manifest[STOCK_EMBEDDINGS][ORIGINS].items():
        frozen = _read(kind, Path(folder), market, config, f"hrl-sarp pretrain-encoder {kind}")
        if frozen.identity != identity:
            raise CheckpointError(
                f"{folder}: the {kind} encoder was pretrained again while agents were trained on "
                "its embeddings; begin the run again with --overwrite"
            )
        kept[kind] = frozen.to_payload()
    return kept


def encoder_folder(data_dir: Path, market_name: str, kind: EncoderKind) -> Path:
    """Return the folder of a market's encoder, beside `data/raw`."""
    return data_dir.parent / "encoders" / market_name / kind


def pretraining_command(kind: EncoderKind, data_dir: Path, market_name: str) -> str:
    """Return the command that pretrains an encoder of a market."""
    return (
        f"hrl-sarp pretrain-encoder --encoder {kind} --panel --data-dir {data_dir} "
        f"--market {market_name}"
    )


def read_frozen(
    kind: EncoderKind, market: Market, data_dir: Path, config: RunConfig
) -> FrozenEncoder:
    """Read an encoder and its projection; refuse them if they do not fit market and configuration.

    Raises:
        MissingArtifactError: if there is none; names the command that writes it.
        CheckpointError: as `with_stock_embeddings`.
    """
    folder = encoder_folder(data_dir, market.name, kind)
    command = pretraining_command(kind, data_dir, market.name)
    if not (folder / WEIGHTS).is_file():
        raise MissingArtifactError(
            f"encoders.observe: {config.encoders.observe} needs the {kind} encoder of market "
            f"{market.name}, found none at {folder}; run `{command}` first"
        )
    _require_past(folder, read_description(folder)["fitted_to"], market, command)
    _, facts = load_projection(folder / PROJECTION, command)
    _require_past(folder / PROJECTION, facts["fitted_to"], market, command)
    return _read(kind, folder, market, config, command)


def _read(
    kind: EncoderKind, folder: Path, market: Market, config: RunConfig, command: str
) -> FrozenEncoder:
    """Read encoder and projection, which may have seen any day."""
    description = read_description(folder)
    _require_fit(folder, description, market, config, kind, command)
    projection, facts = load_projection(folder / PROJECTION, command)
    hashes = [sha256_file(folder / name) for name in (WEIGHTS, PROJECTION)]
    if facts["encoder_hash"] != hashes[0]:
        raise CheckpointError(
            f"{folder / PROJECTION} belongs to another encoder than {WEIGHTS} beside it; "
            f"run `{command}` again"
        )
    encoder = build_encoder(kind, description["n_features"], config.encoders)
    report = load_encoder(folder, encoder)
    if report.missing or report.unexpected:
        names = ", ".join((*report.missing, *report.unexpected))
        raise CheckpointError(
            f"{folder}: expected the weights of encoders.{kind}, found others ({names}); run "
            f"`{command}` again"
        )
    plain = description["scaler"]
    scaler = Scaler.from_plain(plain, description["n_features"], str(folder), command)
    identity = sha256_plain([*hashes, plain])
    return FrozenEncoder(
        kind, encoder.eval(), scaler, projection, description["fitted_to"], identity
    )


def embedding_job(
    frozen: FrozenEncoder, bars: Bars, market: Market, config: RunConfig, device: torch.device
) -> EmbeddingJob:
    """Return the job that embeds every window of a market's slots."""
    panel = config.encoders.panel
    table = frozen.scaler.apply(panel_features(frozen.kind, bars, config))
    table = np.clip(table, -panel.clip, panel.clip)
    return EmbeddingJob(
        encoder=frozen.encoder.to(device),
        projection=frozen.projection.to(device),
        features=torch.from_numpy(table).to(device),
        starts=window_table(bars, np.isfinite(table).all(axis=1), market, panel),
        length=panel.window_length,
        block_windows=panel.block_windows,
        dtype=panel.dtype,
    )


def _key(frozen: FrozenEncoder, market: Market, config: RunConfig) -> str:
    """Hash everything that a table depends on: encoder, data, configuration and code."""
    sections = {
        "encoder": frozen.identity,
        "market": require_hash(market),
        "features": described(config.windowed.feature_config),
        "panel": config.encoders.panel.model_dump(mode="json", include=SHAPING),
        "code": source_hash(*CODE),
    }
    return sha256_plain(sections)


def require_hash(market: Market) -> str:
    """Return the hash of all that a market was assembled from.

    Raises:
        MarketError: if the market was not loaded from a data folder.
    """
    found: str | None = market.manifest.get("market_hash")
    if found is None:
        raise MarketError(
            f"market {market.name} does not say what it was assembled from (market_hash of its "
            "manifest): load it with hrl_sarp.load_market to give it embeddings"
        )
    return found


def _require_fit(
    folder: Path,
    found: dict[str, Any],
    market: Market,
    config: RunConfig,
    kind: EncoderKind,
    command: str,
) -> None:
    panel = config.encoders.panel
    expected = {
        "kind": kind,
        "market": market.name,
        "columns": list(panel_columns(kind, config.windowed.feature_config)),
        "window_length": panel.window_length,
        "sizes": getattr(config.encoders, kind).model_dump(),
        "embedding_size": panel.embedding_size,
        "features": described(config.windowed.feature_config),
    }
    for key, value in expected.items():
        if found.get(key) != value:
            raise CheckpointError(
                f"{folder}: this encoder does not fit market and configuration: expected {key} "
                f"{value}, found {found.get(key)}; run `{command}` again, or change the "
                "configuration"
            )


def _require_past(path: Path, fitted_to: str, market: Market, command: str) -> None:
    """Refuse a file that was fitted on bars after the training span."""
    end = market.dates[market.split.train.stop - 1]
    if np.datetime64(fitted_to, "D") > end:
        raise CheckpointError(
            f"{path} was fitted on bars to {fitted_to}, past the training span's end {end}: it has "
            f"seen the future of this fold; run `{command}` again",
            has_seen_future=True,
        )
