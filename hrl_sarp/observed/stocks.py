"""Shows agents and the sector graph more of each stock: one table of embeddings and forecasts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.embedding_table import (
    facts_beside,
    finished_hash,
    read_table,
    write_blocks,
)
from hrl_sarp.encoders.networks.projection import PROJECTION
from hrl_sarp.encoders.stock_embeddings import (
    EMBEDDINGS,
    OBSERVED,
    ORIGINS,
    EncoderTable,
    encoder_folder,
    encoder_tables,
    kept_encoders,
    pretraining_command,
    read_frozen,
    require_hash,
)
from hrl_sarp.encoders.transfer import WEIGHTS
from hrl_sarp.encoders.windows.panel import NONE, read_panel_bars
from hrl_sarp.errors import MarketError, MissingArtifactError
from hrl_sarp.observed.forecast_source import (
    STORED,
    ObservedForecaster,
    forecaster_hash,
    read_observed,
    table_path,
    write_forecasts,
)
from hrl_sarp.observed.forecasts import ForecastPlan, Standard
from hrl_sarp.observed.volatility_head import (
    VolatilityHead,
    fit_head,
    head_columns,
    past_volatility,
)
from hrl_sarp.run.files import sha256_file, sha256_plain, source_hash

NO = "none"
"""Value of `encoders.observe` and of `forecasters.observe`."""
VOLATILITY = "volatility"
"""Value of `encoders.shows` that puts a head's forecast in the place of an embedding."""
FORECASTS, HEADS, NAMES = "forecasts", "heads", "names"
"""Entries of the facts in the manifest: payload of the forecaster, payloads of the heads by the
kind of their encoder, names of the columns."""
HEAD_CODE = ("observed/volatility_head.py", "features/labels.py")
"""Source files that the columns of a head depend on beside those of the embeddings."""
HEAD_SHAPING = {"head_penalties", "val_share", "clip"}
"""Keys of `encoders.panel` that a head depends on beside those of the embeddings."""
DAYS_AT_ONCE = 64
"""Days in memory at once while tables are joined."""


@dataclass(frozen=True)
class _Part:
    """Columns of the table that agents see."""

    width: int
    rows: Callable[[slice], np.ndarray]
    """Makes the rows of some days, (D, A, E)."""


def observed_words(config: RunConfig) -> str:
    """Name what agents observe beside features, for example `jade+toto`; `none` for nothing."""
    ending = f"-{VOLATILITY}" if config.encoders.shows == VOLATILITY else ""
    both = (config.encoders.observe + ending, config.forecasters.observe)
    return "+".join(word for word in both if word != NO) or NO


def with_stock_embeddings(
    market: Market, data_dir: Path, config: RunConfig, device: torch.device
) -> Market:
    """Return the market with `stock_embeddings` (T, A, E): what agents observe of each stock.

    The columns are those of the encoders in `encoders.observe`, or of heads on them as
    `encoders.shows` says, then those of the forecaster in `forecasters.observe`. Both, and their
    tables, lie beside `data_dir` (`data/raw`). Missing tables are made first, which takes minutes
    on a large market; a missing head is fitted on the training span, which takes seconds.

    Raises:
        MissingArtifactError: if an encoder or a forecaster was not trained; names the command.
        CheckpointError: if one is damaged, does not fit market and configuration, or was fitted
            past the training span.
        MarketError: if the market was not loaded from a data folder, no forecast can be made in
            its training span, or it is too short for a head.
    """
    words = observed_words(config)
    if words == NO:
        return market
    # read once and only if a table is missing, because it takes a minute on a large market
    bars = cache(partial(read_panel_bars, data_dir, market, config))
    forecaster = read_observed(market, data_dir, config)
    tables = encoder_tables(market, data_dir, config, device, bars)
    facts: dict[str, Any] = {
        "observe": words,
        "fitted_to": {table.frozen.kind: table.frozen.fitted_to for table in tables},
        ORIGINS: {t.frozen.kind: [str(t.folder), t.frozen.identity] for t in tables},
    }
    has_heads = config.encoders.shows == VOLATILITY
    if len(tables) == 1 and forecaster is None and not has_heads:
        path, content = tables[0].path, tables[0].content
    else:
        job = _Joining(market, config, data_dir.parent / EMBEDDINGS, forecaster, tables)
        path = job.path
        content = finished_hash(path) or job.write(device, bars)
    if has_heads:
        facts[HEADS] = facts_beside(path)[HEADS]
        facts[NAMES] = [name for t in tables for name in head_columns(t.frozen.kind)]
        facts["fitted_to"] |= {f"{k} head": head["fitted_to"] for k, head in facts[HEADS].items()}
    else:
        width = sum(read_table(table.path).shape[2] for table in tables)
        facts[NAMES] = [f"embedding {i}" for i in range(width)]
    if forecaster is not None:
        facts[FORECASTS] = facts_beside(path)[FORECASTS]
        facts[NAMES] += forecaster.names
        if forecaster.fitted_to is not None:
            facts["fitted_to"][forecaster.kind] = forecaster.fitted_to
    manifest = {**market.manifest, STOCK_EMBEDDINGS: {**facts, "content": content}}
    return replace(market, stock_embeddings=read_table(path), manifest=manifest)


def require_sources(market: Market, data_dir: Path, config: RunConfig) -> None:
    """Refuse encoders and forecasters as `with_stock_embeddings` does, without making any table.

    Raises:
        MissingArtifactError: if one was not trained; names the command.
        CheckpointError: if one does not fit, or was fitted past the training span.
    """
    for kind in OBSERVED[config.encoders.observe]:
        read_frozen(kind, market, data_dir, config)
    read_observed(market, data_dir, config)


def sources_key(data_dir: Path, config: RunConfig) -> str:
    """Hash the encoders and the forecaster that agents observe, whatever days they have seen.

    Raises:
        MissingArtifactError: if one of them has no files.
    """
    files = []
    for kind in OBSERVED[config.encoders.observe]:
        folder = encoder_folder(data_dir, config.market, kind)
        files += [folder / WEIGHTS, folder / PROJECTION]
        if not all(path.is_file() for path in files):
            raise MissingArtifactError(
                f"encoders.observe: {config.encoders.observe} needs the {kind} encoder of market "
                f"{config.market}, found none at {folder}; run "
                f"`{pretraining_command(kind, data_dir, config.market)}` first"
            )
    forecaster = forecaster_hash(data_dir, config)
    return sha256_plain([observed_words(config), *map(sha256_file, files), forecaster])


def kept_sources(market: Market, config: RunConfig) -> dict[str, Any] | None:
    """Return what embeds and forecasts for a market's agents, for a run that decides on later days.

    Returns:
        Tensors and plain values: `content` (hash of the table), `observe`, `encoders` by their
        kind, `heads` by the same kinds (None without), and `forecasts` (None without). None where
        agents observe neither, or where the market does not say where its encoders lie.

    Raises:
        CheckpointError: if an encoder is another one than that of the embeddings by now.
    """
    facts = market.manifest.get(STOCK_EMBEDDINGS, {})
    if ORIGINS not in facts:
        return None
    kept = {name: facts[name] for name in ("content", "observe", NAMES)}
    kept |= {name: facts.get(name) for name in (HEADS, FORECASTS)}
    return {**kept, "encoders": kept_encoders(market, config)}


@dataclass(frozen=True)
class _Joining:
    """Several sources, and the file that joins their columns."""

    market: Market
    config: RunConfig
    folder: Path
    forecaster: ObservedForecaster | None
    encoders: list[EncoderTable]

    @property
    def path(self) -> Path:
        """Named by all that the file depends on."""
        contents = [table.content for table in self.encoders]
        if self.config.encoders.shows == VOLATILITY:
            keys = self.config.encoders.panel.model_dump(mode="json", include=HEAD_SHAPING)
            code = source_hash(*HEAD_CODE)
            contents.append(sha256_plain([keys, require_hash(self.market), code]))
        if self.forecaster is not None:
            contents.append(self._path_of(self.forecaster).stem)
        words = observed_words(self.config)
        return self.folder / f"{self.market.name}-{words}-{sha256_plain(contents)[:16]}.npy"

    def _path_of(self, found: ObservedForecaster) -> Path:
        return table_path(found, self.market, self.config, self.folder)

    def write(self, device: torch.device, bars: Callable[[], Bars]) -> str:
        """Write all columns into one file, which a market can map; return its hash."""
        parts, facts = [_part_of_encoder(table) for table in self.encoders], dict[str, Any]()
        if self.config.encoders.shows == VOLATILITY:
            parts, facts[HEADS] = self._say_volatility(parts)
        if self.forecaster is not None:
            self.forecaster.to(device)
            part, standard = self._forecast(self.forecaster, bars())
            parts.append(part)
            facts[FORECASTS] = self.forecaster.to_payload(standard)

        def joined(days: slice) -> np.ndarray:
            return np.concatenate([part.rows(days) for part in parts], axis=2)

        width = sum(part.width for part in parts)
        shape = self.market.n_days, self.market.n_assets, width
        title = "what agents observe"
        return write_blocks(self.path, shape, STORED, DAYS_AT_ONCE, joined, title, facts)

    def _say_volatility(self, parts: list[_Part]) -> tuple[list[_Part], dict[str, Any]]:
        """Fit a head to the embeddings of each encoder, and put what it says in their place."""
        past, said, payloads = past_volatility(self.market), list[_Part](), dict[str, Any]()
        for table, part in zip(self.encoders, parts, strict=True):
            kind, embeddings = table.frozen.kind, read_table(table.path)
            panel = self.config.encoders.panel
            head = fit_head(kind, embeddings, self.market, panel, table.content)
            payloads[kind] = head.to_payload()
            said.append(_part_of_head(head, part, past))
        return said, payloads

    def _forecast(self, found: ObservedForecaster, bars: Bars) -> tuple[_Part, Standard]:
        """Make the forecasts that are missing, and measure those of the training span."""
        least, train = found.forecaster.least_rows, self.market.split.train
        plan = ForecastPlan.of(bars, self.market, self.config, least)
        if not plan.made[train.start : train.stop].any():
            raise MarketError(
                f"forecasters.observe: {found.kind}: no stock of {self.market.name} has {least} "
                "bars without a hole in the training span; collect a longer history or observe "
                "another forecaster"
            )
        path = self._path_of(found)
        if finished_hash(path) is None:
            write_forecasts(found, plan, path)
        raw, made = read_table(path), np.flatnonzero(plan.made.any(axis=1))
        known = raw[(made >= train.start) & (made < train.stop)].reshape(-1, raw.shape[2])
        standard = Standard.fit(known, self.config.encoders.panel.clip)

        def rows(days: slice) -> np.ndarray:
            return shown_rows(plan.origin[days], made, raw, standard)

        return _Part(raw.shape[2], rows), standard


def _part_of_encoder(table: EncoderTable) -> _Part:
    rows = read_table(table.path)
    return _Part(rows.shape[2], lambda days: rows[days])


def _part_of_head(head: VolatilityHead, embedded: _Part, past: Float[np.ndarray, "T A"]) -> _Part:
    return _Part(len(head.standard.mean), lambda days: head(embedded.rows(days), past[days]))


def shown_rows(
    origin: Int[np.ndarray, "D A"],
    made: Int[np.ndarray, " R"],
    raw: Float[np.ndarray, "R A E"],
    standard: Standard,
) -> Float[np.ndarray, "D A E"]:
    """Spread forecasts over the days on which they are seen; 0 where none is.

    Args:
        origin: day whose forecast is seen, as in `ForecastPlan`.
        made: day of each row of `raw`, ascending.
        raw: forecasts before they are standardised; NaN where none was made.
        standard: their unit.
    """
    shown = np.zeros((*origin.shape, raw.shape[2]), dtype=np.float32)
    day, stock = np.nonzero(origin != NONE)
    shown[day, stock] = standard(raw[np.searchsorted(made, origin[day, stock]), stock])
    return shown
