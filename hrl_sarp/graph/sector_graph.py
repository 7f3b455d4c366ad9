"""Sectors as a graph: node features and correlation edges of each day, from rows <= day only."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

from hrl_sarp.config.schema import GraphConfig
from hrl_sarp.contracts import Market
from hrl_sarp.features.technical import fitted_scale

STATISTICS = ("mean", "std", "total", "sharpe", "min", "max", "share_positive", "median")
CLIP = 5.0
"""Bound of a standardised node feature, in training deviations."""


def sector_returns(market: Market) -> Float[np.ndarray, "T S"]:
    """Compute the close-to-close simple return of each sector's stocks held since the day before.

    Equal weights over the stocks eligible on t-1 and listed on t; 0 for an empty sector and on the
    first row.
    """
    held = np.zeros_like(market.eligible)
    held[1:] = market.eligible[:-1]
    held &= market.listed
    return np.nan_to_num(market.sector_mean(market.session_return(), held))


def adjacency(market: Market, config: GraphConfig) -> Float[np.ndarray, "T S S"]:
    """Compute |trailing correlation| of sector returns, kept when large, with self-loops.

    Recomputed every `update_days` rows and held in between; identity before a full window.
    """
    returns = sector_returns(market)
    table = np.empty((market.n_days, market.n_sectors, market.n_sectors))
    current = np.eye(market.n_sectors)
    for day in range(market.n_days):
        if day % config.update_days == 0 and day >= config.correlation_days:
            window = returns[day - config.correlation_days + 1 : day + 1]
            current = _edges(window, config.min_correlation)
        table[day] = current
    return table.astype(np.float32)


def _edges(window: np.ndarray, min_correlation: float) -> np.ndarray:
    centred = window - window.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    unit = centred / np.where(scale > 0, scale, 1.0)
    strength = np.abs(unit.T @ unit)
    edges = np.where(strength >= min_correlation, strength, 0.0)
    np.fill_diagonal(edges, 1.0)
    return edges


def node_features(market: Market, config: GraphConfig) -> Float[np.ndarray, "T S D"]:
    """Compute what a sector's node knows: pooled stock features and trailing return statistics.

    Stock features (and embeddings) are averaged over the day's slots; the eight statistics cover
    `correlation_days` of sector returns. Columns are standardised with the mean and deviation of
    the training span, so a table serves one fold only. 0 in empty sectors.
    """
    pooled = _pool_slots(market)
    statistics = _return_statistics(sector_returns(market), config.correlation_days)
    raw = np.concatenate([pooled, statistics], axis=2)
    by_sector = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1)
    filled = np.logical_or.reduce(by_sector, axis=2)
    train = slice(market.split.train.start, market.split.train.stop)
    mean, deviation = fitted_scale(raw[train][filled[train]])
    return (np.clip((raw - mean) / deviation, -CLIP, CLIP) * filled[..., None]).astype(np.float32)


def _pool_slots(market: Market) -> np.ndarray:
    filled = market.slots >= 0
    safe = np.where(filled, market.slots, 0)
    rows = np.arange(market.n_days)[:, None]
    tables = [market.stock_features]
    if market.stock_embeddings is not None:
        tables.append(market.stock_embeddings)
    shape = (market.n_days, market.n_sectors, -1)
    present = filled & market.tradable[rows, safe]
    count = np.maximum(present.reshape(shape).sum(axis=2), 1)[..., None]
    pooled = []
    for table in tables:
        chosen = table[rows, safe] * present[..., None]
        by_sector = chosen.reshape(*shape, table.shape[2]).sum(axis=2)
        pooled.append(by_sector / count)
    return np.concatenate(pooled, axis=2)


def _return_statistics(returns: np.ndarray, window: int) -> np.ndarray:
    """Stack `STATISTICS` over the trailing window; rows before day 0 count as zero returns."""
    padded = np.concatenate([np.zeros((window - 1, returns.shape[1])), returns])
    view = sliding_window_view(padded, window, axis=0)  # (T, S, window)
    mean, deviation = view.mean(axis=2), view.std(axis=2)
    columns = [
        mean,
        deviation,
        view.sum(axis=2),
        mean / np.maximum(deviation, 1e-8),
        view.min(axis=2),
        view.max(axis=2),
        (view > 0).mean(axis=2),
        np.median(view, axis=2),
    ]
    return np.stack(columns, axis=2)


def with_node_features(market: Market, config: GraphConfig) -> Market:
    """Return the market with raw node features as its sector table (a graph without a network)."""
    return replace(market, sector_embeddings=node_features(market, config))
