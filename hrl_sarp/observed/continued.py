"""Goes on with what the agents of a run observe: rows that it had stay, later days get theirs.

The encoders are those that the run keeps, the forecaster is the one that it names. Each later day
is embedded and forecast by itself, because products of matrices round by their size: a day has the
same bits however many days follow it.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.embedding_table import (
    EmbeddingJob,
    embed_windows,
    find_table,
    read_table,
)
from hrl_sarp.encoders.stock_embeddings import CODE, EMBEDDINGS, FrozenEncoder, embedding_job
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.encoders.windows.panel import NONE
from hrl_sarp.errors import CheckpointError
from hrl_sarp.observed.forecast_source import ObservedForecaster
from hrl_sarp.observed.forecasts import ForecastPlan, Standard, forecast_day
from hrl_sarp.observed.stocks import FORECASTS, HEADS, NAMES
from hrl_sarp.observed.volatility_head import VolatilityHead, head_columns, past_volatility
from hrl_sarp.run.damage import UNREADABLE, read_arrays
from hrl_sarp.run.files import atomic_path, source_hash
from hrl_sarp.run.session import one_thread

LATER_DAYS = "later"
"""In the name of the files that keep the rows of later days."""


@dataclass(frozen=True)
class RunTable:
    """What the agents of a run observe of each stock.

    Examples:
        >>> [field for field in RunTable.__dataclass_fields__]
        ['path', 'dates', 'symbols', 'kept']
    """

    path: Path
    """The file in which the run keeps its encoders and names its forecaster."""
    dates: Shaped[np.ndarray, " T"]
    """Sessions of the table, datetime64[D]."""
    symbols: tuple[str, ...]
    """Stocks of the table."""
    kept: Mapping[str, Any]
    """As `kept_sources` returns it."""


def continue_embeddings(
    market: Market, bars: Bars, table: RunTable, data_dir: Path, config: RunConfig
) -> Market:
    """Return the market with what the agents of a run observe, which goes on after its data.

    Args:
        market: up to any day.
        bars: of the market.
        table: of the run.
        data_dir: `data/raw`; the run's table lies beside it, and the rows of later days are kept
            there.
        config: of the run.

    Returns:
        The market with `stock_embeddings`, whose hash is that of the run's table.

    Raises:
        MissingArtifactError: if the folder of its forecaster is gone.
        CheckpointError: if the run's table is not there, its encoders do not fit, or its
            forecaster is another one by now.
    """
    folder = data_dir.parent / EMBEDDINGS
    known = _known_rows(table, folder)
    place = np.minimum(np.searchsorted(table.dates, market.dates), len(table.dates) - 1)
    is_known = table.dates[place] == market.dates
    whole = np.zeros((market.n_days, market.n_assets, known.shape[2]), dtype=np.float32)
    column = {symbol: number for number, symbol in enumerate(table.symbols)}
    shared = [number for number, symbol in enumerate(market.symbols) if symbol in column]
    there = [column[market.symbols[number]] for number in shared]
    whole[np.ix_(is_known, shared)] = known[place[is_known]][:, there]
    later, first = np.flatnonzero(~is_known), 0
    heads = table.kept.get(HEADS) or {}  # runs of earlier versions have none
    for kind, payload in table.kept["encoders"].items():
        frozen = FrozenEncoder.from_payload(kind, payload, config, table.path)
        width = frozen.projection.components.shape[1]
        columns = slice(first, first + (len(head_columns(kind)) if kind in heads else width))
        first = columns.stop
        if len(later):
            job = embedding_job(frozen, bars, market, config, torch.device("cpu"))
            name = f"{market.name}-{kind}-{LATER_DAYS}-{frozen.identity[:16]}.npz"
            embedded = np.zeros((*market.tradable.shape, width), dtype=np.float32)
            _embed_later(embedded, later, job, folder / name)
            shown = embedded[later]
            if kind in heads:
                head = VolatilityHead.from_payload(heads[kind])
                shown = head(shown, past_volatility(market)[later])
            whole[later, :, columns] = shown
    facts = {name: table.kept[name] for name in ("observe", "content", NAMES) if name in table.kept}
    facts["fitted_to"] = {
        kind: payload["fitted_to"] for kind, payload in table.kept["encoders"].items()
    }
    facts["fitted_to"] |= {f"{kind} head": payload["fitted_to"] for kind, payload in heads.items()}
    forecasts = table.kept.get(FORECASTS)  # runs of earlier versions observe none
    if forecasts is not None:
        found, standard = ObservedForecaster.from_payload(forecasts, config, table.path)
        plan = ForecastPlan.of(bars, market, config, found.forecaster.least_rows)
        _forecast_later(whole[:, :, first:], later, found, plan, standard)
        facts["fitted_to"] |= {found.kind: found.fitted_to} if found.fitted_to else {}
    return replace(
        market, stock_embeddings=whole, manifest={**market.manifest, STOCK_EMBEDDINGS: facts}
    )


def _known_rows(table: RunTable, folder: Path) -> Float[np.ndarray, "T A E"]:
    """Find the run's table by its content."""
    content = table.kept["content"]
    path = find_table(folder, content)
    if path is not None:
        return read_table(path)
    raise CheckpointError(
        f"{table.path}: its agents observe embeddings, and their table ({content[:12]}) is not in "
        f"{folder}: give the data folder of the training, or copy its folder {EMBEDDINGS} there"
    )


@one_thread()
def _forecast_later(
    rows: Float[np.ndarray, "T A _E"],
    later: Int[np.ndarray, " D"],
    found: ObservedForecaster,
    plan: ForecastPlan,
    standard: Standard,
) -> None:
    """Fill the rows of later days: forecasts are made on them, or were made before and still hold.

    A forecast that was made on a day of the run stands in the row of that day.
    """
    for day in later:
        if plan.made[day].any():
            stocks, shown = forecast_day(found.forecaster, plan, int(day))
            rows[day, stocks] = standard(shown.astype(np.float32))
        seen = np.flatnonzero((plan.origin[day] != NONE) & ~plan.made[day])
        rows[day, seen] = rows[plan.origin[day, seen], seen]


@one_thread()
def _embed_later(
    rows: Float[np.ndarray, "T A _E"], later: Int[np.ndarray, " D"], job: EmbeddingJob, path: Path
) -> None:
    """Fill the rows of later days; windows that were embedded before are read from the file."""
    kept: dict[str, np.ndarray] = {}
    with suppress(*UNREADABLE):  # missing or damaged: the rows are made again
        kept = read_arrays(path)
    n_before, salt = len(kept), f"{source_hash(*CODE)}{job.dtype}".encode()
    for day in later:
        stocks = np.flatnonzero(job.starts[day] != NONE)
        if len(stocks):
            starts = job.starts[day, stocks]
            key = _windows_hash(job, starts, salt)
            if key not in kept:
                kept[key] = _one_day(job, starts)
            rows[day, stocks] = kept[key]
    if len(kept) > n_before:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **kept)


def _windows_hash(job: EmbeddingJob, starts: Int[np.ndarray, " W"], salt: bytes) -> str:
    """Hash the windows of a day: what is kept of other bars or of other code is never read."""
    windows = gather(job.features, torch.from_numpy(starts), job.length)
    return hashlib.sha256(salt + windows.numpy().tobytes()).hexdigest()


def _one_day(job: EmbeddingJob, starts: Int[np.ndarray, " W"]) -> Float[np.ndarray, "W E"]:
    """Embed the windows of a day, rounded as the table stores them."""
    embedded = embed_windows(job, starts).float()
    if job.dtype == "bfloat16":
        embedded = embedded.to(torch.bfloat16).float()
    return embedded.numpy()
