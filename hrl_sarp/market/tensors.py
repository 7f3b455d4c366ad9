"""A market on one device: the exogenous tensors that everything else only points into by day.

The agents are price takers, so these tables are never changed or copied; deep copies (target
networks) share them.
"""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.contracts import Market, session_growth

DAYS_OF_WEEK = 7
FRIDAY = 4
DAYS_AT_ONCE = 256
"""Whose features are gathered together."""


class MarketTensors:
    """Tables of a market, indexed by day.

    Accounting tables have `dtype`; what networks see is always float32.
    """

    def __init__(self, market: Market, dtype: torch.dtype, device: torch.device | str) -> None:
        self.market = market
        self.dtype = dtype
        self.device = torch.device(device)
        self.n_days, self.n_assets = market.n_days, market.n_assets
        self.n_sectors, self.n_slots = market.n_sectors, market.n_slots
        self.slots_per_sector = market.n_slots // market.n_sectors
        self._load_accounting(market)
        self._load_slots(market)
        self._load_features(market)

    def __deepcopy__(self, memo: dict[int, Any]) -> "MarketTensors":
        """Return itself: a copied network keeps looking at the same market."""
        return self

    def _number(self, array: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=self.device)

    def _load_accounting(self, market: Market) -> None:
        self.overnight: Float[Tensor, "T A"] = self._number(market.overnight_return, self.dtype)
        self.intraday: Float[Tensor, "T A"] = self._number(market.intraday_return, self.dtype)
        self.tradable: Bool[Tensor, "T A"] = self._number(market.tradable, torch.bool)
        self.listed: Bool[Tensor, "T A"] = self._number(market.listed, torch.bool)
        self.eligible: Bool[Tensor, "T A"] = self._number(market.eligible, torch.bool)
        halted = market.listed & ~market.tradable
        self.halted: Float[Tensor, "T A"] = self._number(halted, self.dtype)
        self.sector_of: Int[Tensor, " A"] = self._number(market.sector_of, torch.int64)
        self.sector_member: Float[Tensor, "A S"] = self._number(market.sector_member(), self.dtype)
        self.risk_free: Float[Tensor, " T"] = self._number(market.risk_free, self.dtype)
        self.dollar_volume: Float[Tensor, "T A"] = self._number(market.dollar_volume, self.dtype)
        self.reward_benchmark: Float[Tensor, " T"] = self._number(
            reward_benchmark(market), self.dtype
        )
        self.overnight_relative: Float[Tensor, "T A"] = self._number(
            _minus_sector_mean(market.overnight_return, market), self.dtype
        )
        self.intraday_relative: Float[Tensor, "T A"] = self._number(
            _minus_sector_mean(market.intraday_return, market), self.dtype
        )

    def _load_slots(self, market: Market) -> None:
        filled = market.slots >= 0
        safe = np.where(filled, market.slots, 0)
        rows = np.arange(market.n_days)[:, None]
        self.slots: Int[Tensor, "T N"] = self._number(safe, torch.int64)
        self.slot_filled: Bool[Tensor, "T N"] = self._number(filled, torch.bool)
        self.slot_tradable: Bool[Tensor, "T N"] = self._number(
            filled & market.tradable[rows, safe], torch.bool
        )
        # the same masks as numbers: to multiply by a bool costs several times more
        self.slot_held: Float[Tensor, "T N"] = self.slot_filled.to(self.dtype)
        self.slot_open: Float[Tensor, "T N"] = self.slot_tradable.to(self.dtype)
        by_sector = filled.reshape(market.n_days, market.n_sectors, -1)
        is_listed = np.logical_or.reduce(by_sector, axis=2)
        self.sector_listed: Bool[Tensor, "T S"] = self._number(is_listed, torch.bool)
        counts = by_sector.sum(axis=2).astype(np.float64)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self.sector_shares: Float[Tensor, "T S"] = self._number(shares, self.dtype)

    def _load_features(self, market: Market) -> None:
        self.slot_features: Float[Tensor, "T N F"] = self._number(
            _slot_features(market), torch.float32
        )
        self.macro_features: Float[Tensor, "T M"] = self._number(
            market.macro_features, torch.float32
        )
        self.filtered_regime: Float[Tensor, "T R"] = self._number(
            market.filtered_regime, torch.float32
        )
        self.week_end: Bool[Tensor, " T"] = self._number(market.is_week_end, torch.bool)
        self.week_left: Float[Tensor, " T"] = self._number(_weekdays_left(market), self.dtype)
        embeddings = market.sector_embeddings
        self.sector_embeddings: Float[Tensor, "T S E"] | None = (
            None if embeddings is None else self._number(embeddings, torch.float32)
        )

    def with_sector_table(self, market: Market) -> "MarketTensors":
        """Return the tensors of a market that differs in its sector embeddings only.

        All other tables are shared, not copied: they are the largest thing in memory.
        """
        changed = copy.copy(self)
        changed.market = market
        table = market.sector_embeddings
        changed.sector_embeddings = None if table is None else self._number(table, torch.float32)
        return changed

    def to_slots(self, values: Tensor, day: Int[Tensor, " B"]) -> Tensor:
        """Pick each day's slots from (B, A) values; 0 in empty slots. Returns (B, N)."""
        held = self.slot_held.index_select(0, day).to(values.dtype)
        return values.gather(1, self.slots.index_select(0, day)) * held

    def to_assets(self, slot_values: Tensor, day: Int[Tensor, " B"]) -> Tensor:
        """Write (B, N) slot values into rows of assets, 0 elsewhere. Returns (B, A)."""
        assets = torch.zeros(
            slot_values.shape[0], self.n_assets, dtype=slot_values.dtype, device=slot_values.device
        )
        held = self.slot_held.index_select(0, day).to(slot_values.dtype)
        return assets.scatter_add(1, self.slots.index_select(0, day), slot_values * held)

    def by_sector(self, slot_values: Tensor) -> Tensor:
        """View (B, N, ...) slot values as (B, S, K, ...)."""
        return slot_values.unflatten(1, (self.n_sectors, self.slots_per_sector))


def _slot_features(market: Market) -> Float[np.ndarray, "T N F"]:
    """Gather what networks see of each day's slots: features, then embeddings; 0 in empty slots.

    Written in place, some days at a time: with embeddings this is the largest table of all, and
    those of the market may be mapped from a file.
    """
    tables = [market.stock_features]
    if market.stock_embeddings is not None:
        tables.append(market.stock_embeddings)
    width = sum(table.shape[2] for table in tables)
    gathered = np.zeros((*market.slots.shape, width), dtype=np.float32)
    for first in range(0, market.n_days, DAYS_AT_ONCE):
        days = slice(first, first + DAYS_AT_ONCE)
        day, slot = np.nonzero(market.slots[days] >= 0)
        asset = market.slots[days][day, slot]
        column = 0
        for table in tables:
            columns = slice(column, column + table.shape[2])
            gathered[first + day, slot, columns] = table[first + day, asset]
            column = columns.stop
    return gathered


def _weekdays_left(market: Market) -> Float[np.ndarray, " T"]:
    """Share of the ISO week still to come: by the calendar alone, 0 at its last session."""
    weekday = (market.dates.astype("datetime64[D]").astype(np.int64) + 3) % DAYS_OF_WEEK
    return np.clip(FRIDAY - weekday, 0, None) * ~market.is_week_end / DAYS_OF_WEEK


def reward_benchmark(market: Market) -> Float[np.ndarray, " T"]:
    """Compute the daily gross return of 1/N over the stocks eligible the day before.

    Row t is earned by a decision at the close of t-1, on the clock of the agents; row 0 is 0.
    Exogenous: no policy moves it. Source: spec of the rewards.
    """
    held = np.zeros_like(market.eligible)
    held[1:] = market.eligible[:-1]
    night = held & market.listed
    day = held & market.tradable
    overnight = _masked_mean(market.overnight_return, night)
    intraday = _masked_mean(market.intraday_return, day)
    return session_growth(overnight, intraday) - 1


def _masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, values, 0.0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)


def _minus_sector_mean(returns: np.ndarray, market: Market) -> np.ndarray:
    """Subtract the mean over the sector's tradable stocks of the day before's universe.

    Later members of the universe do not count: they are in it because they grew. 0 where a stock
    is not tradable, no subtraction where its sector has no such stock.
    """
    counted = np.zeros_like(market.tradable)
    counted[1:] = market.eligible[:-1] & market.tradable[1:]
    mean = np.nan_to_num(market.sector_mean(returns, counted))
    return np.where(market.tradable, returns - mean[:, market.sector_of], 0.0)
