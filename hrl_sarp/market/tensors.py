"""The tables of a market as tensors on one device, read by day.

Agents do not move prices, so the tables never change. Deep copies (target networks) share them.
"""

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market, RiskTables, session_growth

DAYS_OF_WEEK = 7
FRIDAY = 4
SMALLEST_PREFERENCE = 0.005
"""Least share of a stock inside its sector, where the classical portfolio holds none of it.

A full sector can then pass weight on, and the micro agent can choose the stock."""
DAYS_AT_ONCE = 256
"""Days whose features are gathered at once."""


class MarketTensors:
    """Tables of a market on one device, indexed by day.

    Accounting tables have `dtype` (float64 for reports, float32 for training). Inputs of networks
    are always float32. The N slots are ordered by sector. Empty slots hold asset 0, and masks hide
    them.
    """

    overnight: Float[Tensor, "T A"]
    intraday: Float[Tensor, "T A"]
    overnight_relative: Float[Tensor, "T A"]
    """Overnight return less the mean of the sector's tradable stocks; 0 without a bar."""
    intraday_relative: Float[Tensor, "T A"]
    tradable: Bool[Tensor, "T A"]
    listed: Bool[Tensor, "T A"]
    eligible: Bool[Tensor, "T A"]
    halted: Float[Tensor, "T A"]
    """1 where a listed stock has no bar."""
    dollar_volume: Float[Tensor, "T A"]
    risk_free: Float[Tensor, " T"]
    reward_benchmark: Float[Tensor, " T"]
    """As the function `reward_benchmark` computes it."""
    sector_of: Int[Tensor, " A"]
    sector_member: Float[Tensor, "A S"]
    """1 where a stock belongs to a sector."""
    slots: Int[Tensor, "T N"]
    """Asset in each slot; 0 in empty ones."""
    slot_filled: Bool[Tensor, "T N"]
    slot_tradable: Bool[Tensor, "T N"]
    """The slot holds a stock with a bar on the day."""
    slot_held: Float[Tensor, "T N"]
    """`slot_filled` as numbers, because a product with a bool is several times slower."""
    slot_open: Float[Tensor, "T N"]
    """`slot_tradable` as numbers."""
    sector_listed: Bool[Tensor, "T S"]
    """Sectors with a filled slot."""
    sector_shares: Float[Tensor, "T S"]
    """Share of each sector in all filled slots; 0 if no slot is filled."""
    slot_features: Float[Tensor, "T N F"]
    """Stock features, then stock embeddings; 0 in empty slots."""
    macro_features: Float[Tensor, "T M"]
    filtered_regime: Float[Tensor, "T R"]
    week_end: Bool[Tensor, " T"]
    week_left: Float[Tensor, " T"]
    """Share of the ISO week that is still to come; 0 at its last session."""
    sector_embeddings: Float[Tensor, "T S E"] | None
    risk_inputs: Float[Tensor, "T C"]
    """Risk of the whole market; no column in a market without risk tables."""
    sector_risk: Float[Tensor, "T S D"]
    """Risk of each sector, likewise."""
    sector_prior: Float[Tensor, "T S"]
    """Sector shares of the classical portfolio; 1/N without risk tables."""
    stock_prior: Float[Tensor, "T N"]
    """Shares inside each sector; equal without risk tables."""
    slot_preference: Float[Tensor, "T N"]
    """How policies start to spread a sector: the stock prior, with a least share; 1 without."""
    prior_exposure: Float[Tensor, " T"]
    """Neutral exposure; 1 without risk tables."""
    normal_variance: Float[Tensor, " T"]
    """Annual; 0 without risk tables."""
    prior_return: Float[Tensor, "T S"]
    """Return of each sector held by the stock prior of the day before, without costs; row 0 is 0.
    """

    def __init__(self, market: Market, dtype: torch.dtype, device: torch.device | str) -> None:
        self.market = market
        self.dtype = dtype
        self.device = torch.device(device)
        self.n_days, self.n_assets = market.n_days, market.n_assets
        self.n_sectors, self.n_slots = market.n_sectors, market.n_slots
        self.slots_per_sector = market.n_slots // market.n_sectors
        place = self._place
        self.overnight = place(market.overnight_return, dtype)
        self.intraday = place(market.intraday_return, dtype)
        self.overnight_relative = place(_minus_sector_mean(market.overnight_return, market), dtype)
        self.intraday_relative = place(_minus_sector_mean(market.intraday_return, market), dtype)
        self.tradable = place(market.tradable, torch.bool)
        self.listed = place(market.listed, torch.bool)
        self.eligible = place(market.eligible, torch.bool)
        self.halted = place(market.listed & ~market.tradable, dtype)
        self.dollar_volume = place(market.dollar_volume, dtype)
        self.risk_free = place(market.risk_free, dtype)
        self.reward_benchmark = place(reward_benchmark(market), dtype)
        self.sector_of = place(market.sector_of, torch.int64)
        self.sector_member = place(market.sector_member(), dtype)
        self.slots = place(np.maximum(market.slots, 0), torch.int64)
        self.slot_filled = place(market.slots >= 0, torch.bool)
        self.slot_tradable = place(market.slot_tradable(), torch.bool)
        self.slot_held = self.slot_filled.to(dtype)
        self.slot_open = self.slot_tradable.to(dtype)
        counts = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1).sum(axis=2)
        self.sector_listed = place(counts > 0, torch.bool)
        self.sector_shares = place(counts / np.maximum(counts.sum(axis=1)[:, None], 1), dtype)
        self.slot_features = place(_slot_features(market), torch.float32)
        self.macro_features = place(market.macro_features, torch.float32)
        self.filtered_regime = place(market.filtered_regime, torch.float32)
        self.week_end = place(market.is_week_end, torch.bool)
        self.week_left = place(_weekdays_left(market), dtype)
        self.sector_embeddings = self._sector_table(market)
        self._place_risk(market)

    def _place_risk(self, market: Market) -> None:
        risk = market.risk if market.risk is not None else _without_risk(market)
        place, dtype = self._place, self.dtype
        self.risk_inputs = place(risk.inputs, torch.float32)
        self.sector_risk = place(risk.sector_inputs, torch.float32)
        self.sector_prior = place(risk.sector_prior, dtype)
        self.stock_prior = place(risk.stock_prior, dtype)
        self.prior_exposure = place(risk.prior_exposure, dtype)
        self.normal_variance = place(risk.normal_variance, dtype)
        # of a market without risk tables exactly 1, so that rules spread evenly to the last digit
        preferred = self.stock_prior.clamp(min=SMALLEST_PREFERENCE) * self.slot_held
        self.slot_preference = self.slot_held if market.risk is None else preferred
        self.prior_return = self._prior_return()

    def _prior_return(self) -> Float[Tensor, "T S"]:
        """Compute what each sector earned by the preferences of the tradable slots the day before.

        It is what a rule earns that follows a goal, before costs. Row 0 is 0.
        """
        wanted = self.by_sector(self.slot_preference * self.slot_open)
        shares = wanted / wanted.sum(dim=2, keepdim=True).clamp(min=1e-12)
        earned = (1 + self.overnight[1:]) * (1 + self.intraday[1:]) - 1
        in_slots = self.by_sector(earned.gather(1, self.slots[:-1]))
        found = torch.zeros_like(self.sector_shares)
        found[1:] = (shares[:-1] * in_slots).sum(dim=2)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> "MarketTensors":
        """Return itself, so that a copied network reads the same market."""
        return self

    def _place(self, array: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=self.device)

    def _sector_table(self, market: Market) -> Tensor | None:
        table = market.sector_embeddings
        return None if table is None else self._place(table, torch.float32)

    def with_sector_table(self, market: Market) -> "MarketTensors":
        """Return the tensors of a market that differs in its sector embeddings only.

        All other tables are shared, because they are the largest ones in memory.
        """
        changed = copy.copy(self)
        changed.market = market
        changed.sector_embeddings = self._sector_table(market)
        return changed

    def to_slots(self, values: Tensor, day: Int[Tensor, " B"]) -> Tensor:
        """Pick each day's slots from values of assets: (B, A) to (B, N); 0 in empty slots."""
        held = self.slot_held.index_select(0, day).to(values.dtype)
        return values.gather(1, self.slots.index_select(0, day)) * held

    def to_assets(self, slot_values: Tensor, day: Int[Tensor, " B"]) -> Tensor:
        """Write values of slots into rows of assets: (B, N) to (B, A); 0 for assets in no slot."""
        assets = torch.zeros(
            slot_values.shape[0], self.n_assets, dtype=slot_values.dtype, device=slot_values.device
        )
        held = self.slot_held.index_select(0, day).to(slot_values.dtype)
        return assets.scatter_add(1, self.slots.index_select(0, day), slot_values * held)

    def by_sector(self, slot_values: Tensor) -> Tensor:
        """Split the slots by sector: a view (B, S, K, ...) of (B, N, ...)."""
        return slot_values.unflatten(1, (self.n_sectors, self.slots_per_sector))


def slot_feature_names(market: Market) -> tuple[str, ...]:
    """Name the columns of `MarketTensors.slot_features`: stock features, embeddings, forecasts."""
    embeddings = market.stock_embeddings
    width = 0 if embeddings is None else embeddings.shape[2]
    unnamed = [f"embedding {i}" for i in range(width)]
    return (*market.feature_names, *market.manifest.get(STOCK_EMBEDDINGS, {}).get("names", unnamed))


def is_embedding(name: str) -> bool:
    """Tell embeddings from forecasts of forecasters and heads, by names of `slot_feature_names`."""
    return name.startswith("embedding ")


def _slot_features(market: Market) -> Float[np.ndarray, "T N F"]:
    """Gather the features, then the embeddings, of each day's slots; 0 in empty slots.

    The table is filled some days at a time, because it is the largest of all, and the market's
    embeddings may be mapped from a file.
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
    weekday = (market.dates.astype("datetime64[D]").astype(np.int64) + 3) % DAYS_OF_WEEK
    return np.clip(FRIDAY - weekday, 0, None) * ~market.is_week_end / DAYS_OF_WEEK


def _without_risk(market: Market) -> RiskTables:
    """Return the tables of a market that has none: 1/N, fully invested, nothing to see."""
    filled = (market.slots >= 0).astype(np.float64)
    counts = filled.reshape(market.n_days, market.n_sectors, -1).sum(axis=2)
    per_sector = market.n_slots // market.n_sectors
    return RiskTables(
        inputs=np.zeros((market.n_days, 0)),
        input_names=(),
        sector_inputs=np.zeros((market.n_days, market.n_sectors, 0)),
        sector_input_names=(),
        sector_prior=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        stock_prior=filled / np.maximum(np.repeat(counts, per_sector, axis=1), 1),
        prior_exposure=np.ones(market.n_days),
        normal_variance=np.zeros(market.n_days),
    )


def reward_benchmark(market: Market) -> Float[np.ndarray, " T"]:
    """Compute the daily gross return of 1/N over the stocks eligible the day before.

    It does not depend on any policy. Row t is earned by a decision at the close of t-1, as for the
    agents. Row 0 is 0.
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
    """Subtract the mean over the sector's tradable stocks in the universe of the day before.

    Later members of the universe do not count, because they joined it after they grew. The result
    is 0 where a stock is not tradable. Nothing is subtracted where a sector has no such stock.
    """
    counted = np.zeros_like(market.tradable)
    counted[1:] = market.eligible[:-1] & market.tradable[1:]
    mean = np.nan_to_num(market.sector_mean(returns, counted))
    return np.where(market.tradable, returns - mean[:, market.sector_of], 0.0)
