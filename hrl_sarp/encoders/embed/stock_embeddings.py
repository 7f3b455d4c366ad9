"""Puts the tables of frozen encoders into a market: what the agents and the sector graph see."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.embed.table import (
    EmbeddingJob,
    finished_hash,
    read_table,
    write_joined,
    write_table,
)
from hrl_sarp.encoders.networks.kinds import EncoderKind, PanelEncoder, build_encoder
from hrl_sarp.encoders.networks.projection import PROJECTION, Projection, load_projection
from hrl_sarp.encoders.transfer import WEIGHTS, load_encoder, read_description
from hrl_sarp.encoders.windows.panel import read_panel_bars, window_table
from hrl_sarp.encoders.windows.panel_features import panel_columns, panel_features
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, MarketError, MissingArtifactError
from hrl_sarp.run.files import sha256_file, sha256_plain, source_hash

OBSERVED: dict[str, tuple[EncoderKind, ...]] = {
    "none": (),
    "jade": ("jade",),
    "transformer": ("transformer",),
    "both": ("jade", "transformer"),
}
"""Choice of `encoders.observe` -> encoders, in the order of their columns."""
SHAPING = {"window_length", "max_missing_sessions", "clip", "block_windows", "dtype"}
"""Keys of `encoders.panel` that a table depends on beside its encoder."""
CODE_FOLDERS = ("encoders/embed", "encoders/networks", "encoders/windows")
"""What shapes a table, beside the market."""


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that was pretrained on a panel, as its folder describes it."""

    kind: EncoderKind
    description: dict[str, Any]
    encoder: PanelEncoder
    projection: Projection
    scaler: Scaler
    identity: str
    """Hash of weights, scaler and projection."""


def with_stock_embeddings(
    market: Market, data_dir: Path, config: RunConfig, device: torch.device
) -> Market:
    """Return the market with the embeddings that `encoders.observe` names.

    Tables that are not on disk yet are made first, which takes minutes on a large market.

    Args:
        market: of `data_dir`, loaded with this configuration.
        data_dir: `data/raw` as written by collect-data; encoders and tables lie beside it.
        config: the run's configuration.
        device: where windows are embedded.

    Raises:
        MissingArtifactError: if an encoder was not pretrained; names the command.
        CheckpointError: if an encoder is damaged, of other columns, windows or another market, or
            was fitted past the training span.
        MarketError: if the market was not loaded from a data folder.
    """
    kinds = OBSERVED[config.encoders.observe]
    if not kinds:
        return market
    encoders = [read_frozen(kind, market, data_dir, config) for kind in kinds]
    source = _Source(market, data_dir, config)
    paths = [_made_table(frozen, source, device) for frozen in encoders]
    path, content = paths[0]
    if len(paths) > 1:
        keys = sha256_plain([content for _, content in paths])
        path = source.path(config.encoders.observe, keys)
        content = finished_hash(path) or write_joined([read_table(p) for p, _ in paths], path)
    facts = {
        "observe": config.encoders.observe,
        "content": content,
        "fitted_to": {frozen.kind: frozen.description["fitted_to"] for frozen in encoders},
    }
    return replace(
        market,
        stock_embeddings=read_table(path),
        manifest={**market.manifest, STOCK_EMBEDDINGS: facts},
    )


def encoder_folder(data_dir: Path, market_name: str, kind: EncoderKind) -> Path:
    """Return where the encoder of a market's panel is kept."""
    return data_dir.parent / "encoders" / market_name / kind


def pretrain_command(kind: EncoderKind, data_dir: Path, market_name: str) -> str:
    """Return the command that writes an encoder."""
    return (
        f"hrl-sarp pretrain-encoder --encoder {kind} --panel --data-dir {data_dir} "
        f"--market {market_name}"
    )


def read_frozen(
    kind: EncoderKind, market: Market, data_dir: Path, config: RunConfig
) -> FrozenEncoder:
    """Read an encoder and its projection and refuse those that do not serve this fold.

    Raises:
        MissingArtifactError: naming the command that writes it.
        CheckpointError: as `with_stock_embeddings`.
    """
    folder = encoder_folder(data_dir, market.name, kind)
    command = pretrain_command(kind, data_dir, market.name)
    if not (folder / WEIGHTS).is_file():
        raise MissingArtifactError(
            f"encoders.observe: {config.encoders.observe} needs the {kind} encoder of market "
            f"{market.name}, found none at {folder}; run `{command}` first"
        )
    description = read_description(folder)
    _require_fit(folder, description, _expected(kind, market, config), command)
    _require_past(folder, description["fitted_to"], market, command)
    projection, facts = load_projection(folder / PROJECTION, command)
    _require_past(folder / PROJECTION, facts["fitted_to"], market, command)
    if facts["encoder_hash"] != sha256_file(folder / WEIGHTS):
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
    n_features = description["n_features"]
    scaler = Scaler.from_plain(description["scaler"], n_features, str(folder), command)
    identity = _identity(folder, description)
    return FrozenEncoder(kind, description, encoder.eval(), projection, scaler, identity)


def _expected(kind: EncoderKind, market: Market, config: RunConfig) -> dict[str, Any]:
    panel = config.encoders.panel
    return {
        "kind": kind,
        "market": market.name,
        "columns": list(panel_columns(kind)),
        "window_length": panel.window_length,
        "sizes": getattr(config.encoders, kind).model_dump(),
        "embedding_size": panel.embedding_size,
        "features": config.windowed.feature_config.model_dump(),
    }


def _require_fit(
    folder: Path, found: dict[str, Any], expected: dict[str, Any], command: str
) -> None:
    for key, value in expected.items():
        if found.get(key) != value:
            raise CheckpointError(
                f"{folder}: this encoder does not fit market and configuration: expected {key} "
                f"{value}, found {found.get(key)}; run `{command}` again, or change the "
                "configuration"
            )


def _require_past(path: Path, fitted_to: str, market: Market, command: str) -> None:
    """Refuse what has seen the future of the fold."""
    end = market.dates[market.split.train.stop - 1]
    if np.datetime64(fitted_to, "D") > end:
        raise CheckpointError(
            f"{path} was fitted on bars to {fitted_to}, past the training span's end {end}: it has "
            f"seen the future of this fold; run `{command}` again"
        )


class _Source:
    """A market and, once they are needed, its bars."""

    def __init__(self, market: Market, data_dir: Path, config: RunConfig) -> None:
        self.market, self.data_dir, self.config = market, data_dir, config
        self._bars: Bars | None = None

    @property
    def bars(self) -> Bars:
        """Read once, and only if a table has to be made: it takes a minute on a large market."""
        if self._bars is None:
            self._bars = read_panel_bars(self.data_dir, self.market, self.config)
        return self._bars

    def path(self, name: str, key: str) -> Path:
        """Return where a table is kept."""
        folder = self.data_dir.parent / "embeddings"
        return folder / f"{self.market.name}-{name}-{key[:16]}.npy"

    def key(self, frozen: FrozenEncoder) -> str:
        """Hash everything that a table depends on: encoder, data, configuration and code."""
        panel, market_hash = self.config.encoders.panel, self.market.manifest.get("market_hash")
        if market_hash is None:
            raise MarketError(
                f"market {self.market.name} does not say what it was assembled from (market_hash "
                "of its manifest): load it with hrl_sarp.load_market, which gives it embeddings"
            )
        sections = {
            "encoder": frozen.identity,
            "market": market_hash,
            "features": self.config.windowed.feature_config.model_dump(mode="json"),
            "panel": panel.model_dump(mode="json", include=SHAPING),
            "code": source_hash(*CODE_FOLDERS),
        }
        return sha256_plain(sections)


def _made_table(frozen: FrozenEncoder, source: _Source, device: torch.device) -> tuple[Path, str]:
    """Return a table's file and the hash of its content; make it if it is not there."""
    path = source.path(frozen.kind, source.key(frozen))
    content = finished_hash(path)
    if content is None:
        job = embedding_job(frozen, source.bars, source.market, source.config, device)
        content = write_table(job, path, f"{frozen.kind} embeddings")
    return path, content


def embedding_job(
    frozen: FrozenEncoder, bars: Bars, market: Market, config: RunConfig, device: torch.device
) -> EmbeddingJob:
    """Return what embeds every window of a market's slots."""
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


def _identity(folder: Path, description: dict[str, Any]) -> str:
    parts = [sha256_file(folder / WEIGHTS), sha256_file(folder / PROJECTION)]
    return sha256_plain([*parts, description["scaler"]])
