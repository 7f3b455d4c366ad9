"""Chooses once a year, from past data, which stocks may be bought, and gives each a slot."""

from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Shaped

from hrl_sarp.config.market_schema import UniverseConfig
from hrl_sarp.features.prices import PricePanel

EMPTY = -1


def year_starts(dates: Shaped[np.ndarray, " T"]) -> Int[np.ndarray, " Y"]:
    """Find the first session of each calendar year except the first year of the data."""
    years = dates.astype("datetime64[Y]")
    return np.flatnonzero(years[1:] != years[:-1]) + 1


def choose_slots(
    panel: PricePanel,
    member: Bool[np.ndarray, "T A"],
    config: UniverseConfig,
) -> Int[np.ndarray, "T N"]:
    """Fill the slots of every session, sector by sector, with columns of the panel; -1 is empty.

    At the first session of a year each sector gets the stocks with the largest median dollar volume
    of the sessions before. Where the data have no volume, it gets those with enough bars, in symbol
    order. A stock that is chosen again keeps its slot. A stock that ends or leaves the index leaves
    an empty slot until the next choice. Before the first choice all slots are empty.
    """
    n_days, n_sectors = len(panel.dates), panel.n_sectors
    per_sector = config.stocks_per_sector
    slots = np.full((n_days, n_sectors * per_sector), EMPTY, dtype=np.int64)
    starts = [row for row in year_starts(panel.dates).tolist() if row >= config.lookback_days]
    current = np.full(n_sectors * per_sector, EMPTY, dtype=np.int64)
    for start, stop in pairwise([*starts, n_days]):
        ranking = _rank(panel, member[start], start, config)
        for sector in range(n_sectors):
            span = slice(sector * per_sector, (sector + 1) * per_sector)
            chosen = ranking[panel.sector_of[ranking] == sector][:per_sector]
            current[span] = _keep_places(current[span], chosen)
        slots[start:stop] = current
    filled = slots >= 0
    safe = np.maximum(slots, 0)
    alive = np.take_along_axis(panel.listed & member, safe, axis=1)
    return np.where(filled & alive, slots, EMPTY)


def eligible_stocks(slots: Int[np.ndarray, "T N"], n_assets: int) -> Bool[np.ndarray, "T A"]:
    """Mark the stocks that have a slot."""
    marked = np.zeros((len(slots), n_assets + 1), dtype=bool)  # the last column: empty slots
    marked[np.arange(len(slots))[:, None], slots] = True
    return np.ascontiguousarray(marked[:, :n_assets])


def membership_mask(
    panel: PricePanel,
    membership: pl.DataFrame | None,
) -> Bool[np.ndarray, "T A"]:
    """Mark the sessions on which each stock belonged to the index; all True without memberships.

    Memberships are `symbol, start, end`. Both days are inclusive; null is an open end.
    """
    shape = (len(panel.dates), len(panel.symbols))
    if membership is None:
        return np.ones(shape, dtype=bool)
    mask = np.zeros(shape, dtype=bool)
    column = {symbol: index for index, symbol in enumerate(panel.symbols)}
    for symbol, start, end in membership.select("symbol", "start", "end").iter_rows():
        if symbol not in column:
            continue
        after_start = panel.dates >= np.datetime64(start) if start else True
        before_end = panel.dates <= np.datetime64(end) if end else True
        mask[:, column[symbol]] |= after_start & before_end
    return mask


def _rank(
    panel: PricePanel, member: Bool[np.ndarray, " A"], start: int, config: UniverseConfig
) -> Int[np.ndarray, " C"]:
    """Return the candidates, most traded first; equal ones in symbol order."""
    past = slice(start - config.lookback_days, start)
    bars = panel.tradable[past].sum(axis=0)
    candidates = np.flatnonzero((bars >= config.min_bars) & panel.listed[start] & member)
    if "volume" not in panel.columns:
        return candidates
    traded = np.nanmedian(panel.dollar_volume[past][:, candidates], axis=0)  # NaN is no bar
    return candidates[np.argsort(-traded, kind="stable")]


def _keep_places(
    places: Int[np.ndarray, " K"], chosen: Int[np.ndarray, " C"]
) -> Int[np.ndarray, " K"]:
    """Keep the places of stocks that are chosen again; newcomers fill the free places in order."""
    kept = np.where(np.isin(places, chosen), places, EMPTY)
    newcomers = [stock for stock in chosen if stock not in kept]
    free = np.flatnonzero(kept == EMPTY)
    kept[free[: len(newcomers)]] = newcomers
    return kept
