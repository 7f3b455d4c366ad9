"""Small markets for tests: random ones with every kind of gap, and hand-made ones.

Only markets are made here; numbers come from a generator that is passed in.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import DayRange, Market, RiskTables, Split

N_FEATURES = 5
N_MACRO = 4


def random_market(
    rng: np.random.Generator,
    n_days: int = 60,
    n_sectors: int = 3,
    slots_per_sector: int = 4,
    *,
    halts: bool = True,
    delistings: bool = True,
    closes_only: bool = False,
) -> Market:
    """Draw a market whose universe is chosen anew three times, so that stocks join and leave.

    Each sector has one stock more than slots. With halts 5 % of the bars are missing; with
    delistings a quarter of the stocks end early and a few start late.
    """
    sector_of = np.repeat(np.arange(n_sectors), slots_per_sector + 1)
    listed = _draw_listed(rng, n_days, len(sector_of), delistings=delistings)
    tradable = listed.copy()
    if halts:
        tradable &= rng.random(listed.shape) > 0.05
        tradable |= _end_rows(listed)  # listed means: between the first and the last bar
    eligible = _draw_universe(rng, listed, sector_of, slots_per_sector)
    returns = rng.normal(0.0, 0.02, (2, *listed.shape))
    started = np.cumsum(tradable, axis=0) > 1  # the first bar has no close before it
    overnight = np.where(tradable & started, returns[0], 0.0)
    intraday = np.zeros_like(overnight) if closes_only else np.where(tradable, returns[1], 0.0)
    return market_with(
        overnight,
        intraday,
        sector_of,
        tradable=tradable,
        listed=listed,
        eligible=eligible,
        slots_per_sector=slots_per_sector,
        risk_free=rng.uniform(0.0, 2e-4, n_days),
        benchmark_return=rng.normal(0.0, 0.01, n_days),
        dollar_volume=np.where(tradable, rng.lognormal(16.0, 1.0, listed.shape), 0.0),
        stock_features=np.clip(rng.normal(size=(*listed.shape, N_FEATURES)), -3, 3)
        * tradable[:, :, None],
        macro_features=rng.normal(size=(n_days, N_MACRO)),
        filtered_regime=rng.dirichlet(np.ones(3), n_days),
    )


def market_with(
    overnight: Any,
    intraday: Any,
    sector_of: Any,
    *,
    slots_per_sector: int | None = None,
    **given: Any,
) -> Market:
    """Build a market from a few hand-written (T, A) arrays; the other fields are neutral.

    Every stock is listed, tradable and eligible unless masks are given; slots follow `eligible`.
    """
    overnight, intraday = np.asarray(overnight, dtype=float), np.asarray(intraday, dtype=float)
    sector_of = np.asarray(sector_of)
    n_days, n_assets = overnight.shape
    n_sectors = int(sector_of.max()) + 1
    everything = np.ones((n_days, n_assets), dtype=bool)
    listed = np.asarray(given.pop("listed", everything))
    eligible = np.asarray(given.pop("eligible", listed))
    if slots_per_sector is None:
        slots_per_sector = int(np.bincount(sector_of).max())
    macro = np.asarray(given.pop("macro_features", np.zeros((n_days, N_MACRO))))
    fields: dict[str, Any] = {
        "name": "toy",
        "dates": _weekdays(n_days),
        "symbols": tuple(f"S{sector}N{i}" for i, sector in enumerate(sector_of)),
        "sector_names": tuple(f"Sector{i}" for i in range(n_sectors)),
        "sector_of": sector_of,
        "overnight_return": overnight,
        "intraday_return": intraday,
        "tradable": listed.copy(),
        "listed": listed,
        "eligible": eligible,
        "slots": _fill_slots(eligible, sector_of, n_sectors, slots_per_sector),
        "risk_free": np.zeros(n_days),
        "benchmark_return": np.zeros(n_days),
        "benchmark_name": "toy index",
        "dollar_volume": np.zeros((n_days, n_assets)),
        "stock_features": np.zeros((n_days, n_assets, N_FEATURES)),
        "feature_names": tuple(f"feature_{i}" for i in range(N_FEATURES)),
        "macro_features": macro,
        "macro_names": tuple(f"macro_{i}" for i in range(macro.shape[1])),
        "filtered_regime": np.full((n_days, 3), 1 / 3),
        "is_week_end": _week_ends(_weekdays(n_days)),
        "split": three_way_split(n_days),
    }
    return Market(**{**fields, **given})


def with_risk(market: Market, seed: int = 0, names: tuple[str, ...] = ("level", "rise")) -> Market:
    """Draw risk tables whose classical portfolio is unlike 1/N and above every floor."""
    rng = np.random.default_rng(seed)
    shape = (market.n_days, market.n_sectors, -1)
    filled = (market.slots >= 0).reshape(shape)
    stocks = rng.uniform(0.5, 1.5, filled.shape) * filled
    sectors = rng.uniform(0.5, 1.5, filled.shape[:2]) * filled.any(axis=2)
    stocks /= np.maximum(stocks.sum(axis=2, keepdims=True), 1e-12)
    sectors /= np.maximum(sectors.sum(axis=1, keepdims=True), 1e-12)
    risk = RiskTables(
        inputs=rng.normal(size=(market.n_days, len(names))),
        input_names=names,
        sector_inputs=rng.normal(size=(*filled.shape[:2], 1)),
        sector_input_names=("log_share",),
        sector_prior=sectors,
        stock_prior=stocks.reshape(market.n_days, -1),
        prior_exposure=rng.uniform(0.4, 0.9, market.n_days),
        normal_variance=rng.uniform(0.01, 0.05, market.n_days),
    )
    return replace(market, risk=risk)


def cost_config(**changes: Any) -> CostConfig:
    """Return unlike rates for both sides and no impact, so that a mix-up shows."""
    values = {
        "buy_bps": 8.0,
        "sell_bps": 4.0,
        "slippage_bps": 5.0,
        "impact_coefficient": 0.0,
        "capital": 1e6,
        "delisting_return": 0.0,
    }
    return CostConfig(**{**values, **changes})


def risk_config(**changes: Any) -> RiskConfig:
    """Return wide limits that still bind in a market of three sectors; gates and seats are off."""
    values = {
        "stock_cap": 0.2,
        "sector_cap": 0.4,
        "min_cash": 0.02,
        "turnover_cap": 1.0,
        "max_positions": 0,
        "drawdown_gate": False,
        "gate_drawdown": 0.07,
        "gate_exposure": 0.5,
        "gate_days": 20,
    }
    return RiskConfig(**{**values, **changes})


def three_way_split(n_days: int) -> Split:
    """Cut 60 %, 20 % and 20 % of the days, one day apart."""
    first, second = int(0.6 * n_days), int(0.8 * n_days)
    return Split(DayRange(0, first), DayRange(first + 1, second), DayRange(second + 1, n_days))


def _weekdays(n_days: int) -> np.ndarray:
    start = np.datetime64("2001-01-01")  # a Monday
    return np.busday_offset(start, np.arange(n_days))


def _week_ends(dates: np.ndarray) -> np.ndarray:
    return np.is_busday(dates, weekmask="Fri")


def _draw_listed(
    rng: np.random.Generator, n_days: int, n_assets: int, *, delistings: bool
) -> np.ndarray:
    first = np.zeros(n_assets, dtype=int)
    last = np.full(n_assets, n_days - 1)
    if delistings:
        early, late = rng.random(n_assets) < 0.25, rng.random(n_assets) < 0.1
        last[early] = rng.integers(n_days // 3, n_days, early.sum())
        first[late] = rng.integers(1, max(2, n_days // 4), late.sum())
    days = np.arange(n_days)[:, None]
    return (days >= first) & (days <= last)


def _end_rows(listed: np.ndarray) -> np.ndarray:
    """Mark the first and the last listed day of each stock."""
    padded = np.pad(listed, ((1, 1), (0, 0)))
    return listed & ~(padded[:-2] & padded[2:])


def _draw_universe(
    rng: np.random.Generator, listed: np.ndarray, sector_of: np.ndarray, slots_per_sector: int
) -> np.ndarray:
    """Choose at most `slots_per_sector` listed stocks of each sector at three dates."""
    chosen = np.zeros_like(listed)
    for block in np.array_split(np.arange(len(listed)), 3):
        rank = np.where(listed[block[0]], rng.random(len(sector_of)), 2.0)
        for sector in np.unique(sector_of):
            members = np.flatnonzero((sector_of == sector) & listed[block[0]])
            best = members[np.argsort(rank[members])][:slots_per_sector]
            chosen[np.ix_(block, best)] = True
    return chosen & listed


def _fill_slots(
    eligible: np.ndarray, sector_of: np.ndarray, n_sectors: int, slots_per_sector: int
) -> np.ndarray:
    slots = np.full((len(eligible), n_sectors, slots_per_sector), -1)
    for t, sector in np.ndindex(len(eligible), n_sectors):
        members = np.flatnonzero(eligible[t] & (sector_of == sector))[:slots_per_sector]
        slots[t, sector, : len(members)] = members
    return slots.reshape(len(eligible), -1)
