"""Why a decision is as it is: exposure, limits, the classical portfolio, and what the agents saw.

What a group of inputs contributes is measured by occlusion: its values of the day are replaced by
their means over the training span, and the agents decide again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import DayRange, Market, RiskTables, Split
from hrl_sarp.daily.decision.decide import Decided, account_clocks, decide, deployed
from hrl_sarp.daily.market import Today
from hrl_sarp.daily.portfolio import Standing
from hrl_sarp.evaluation.attribution import CLASSICAL_PRIOR
from hrl_sarp.market.tensors import is_embedding, slot_feature_names
from hrl_sarp.risk.priors import variance_forecast

KEPT_ROWS = 2
"""Rows of the market on which occlusion decides: the day, and the one before it."""
NEAR = 1e-6
"""Share of wealth within which a weight lies at its limit."""
LARGEST = 10
"""Positions whose reasons are told."""
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "stock risk": ("volatility", "beta", "skewness", "atr", "residual"),
    "stock momentum": ("return", "momentum", "distance", "macd", "rsi", "bb_"),
    "stock liquidity": ("volume", "amihud"),
    "stock against its sector": ("sector",),
}
"""Group -> parts of the names of its stock features; the last group that fits has a feature."""
OTHER = "other stock features"
PER_STOCK = ("stock_features", "stock_embeddings")
"""Tables with a mean of 0: over the stocks of each day, or over the windows of the training."""


@dataclass(frozen=True)
class Exposure:
    """How much is invested, and why.

    Examples:
        >>> Exposure(0.9, 0.95, 0.12, 0.10).agent
        0.9
    """

    agent: float
    """Largest share of wealth in stocks that the decision allows."""
    prior: float
    """Of the classical portfolio: normal over forecast variance, at most the invested share."""
    forecast_volatility: float | None
    """Annual, of the classical portfolio; None in a market without risk tables."""
    normal_volatility: float | None
    """Annual, of 1/N in the past: what counts as normal."""


@dataclass(frozen=True)
class Effect:
    """What a group of inputs moved: the decision less the one without it, as shares of wealth.

    Examples:
        >>> Effect("regime", 0.01, {"Energy": 0.01}, {"XOM": 0.01}).sectors["Energy"]
        0.01
    """

    group: str
    size: float
    """Share of wealth that lies elsewhere because of it."""
    sectors: Mapping[str, float]
    stocks: Mapping[str, float]
    """Of the largest positions."""


@dataclass(frozen=True)
class Reasons:
    """Everything that explains a decision.

    Examples:
        >>> [field for field in Reasons.__dataclass_fields__][:3]
        ['exposure', 'limits', 'prior']
    """

    exposure: Exposure
    limits: tuple[str, ...]
    """What bound the decision, a sentence each."""
    prior: Mapping[str, float]
    """Target weights of the classical portfolio for the same account."""
    distance: float
    """Share of wealth that the decision holds elsewhere than the classical portfolio."""
    effects: tuple[Effect, ...]
    """The largest first."""
    filtered_regime: tuple[float, ...]


def explain(todays: Sequence[Today], decided: Decided) -> Reasons:
    """Explain a decision.

    Args:
        todays: the market of each run, at the close of the decision.
        decided: by what is deployed of these runs.

    Returns:
        The reasons. On a day that keeps an earlier goal, only what moves stocks inside their
        sectors has an effect.
    """
    today, standing = todays[0], decided.standing
    market, risk = today.market, today.run.config.risk
    # the goal in force is the agents'; the classical portfolio has one of its own
    own_goal = replace(standing, memory=replace(standing.memory, goal=None, goal_day=None))
    prior = _decide_on(todays, last_rows, own_goal, CLASSICAL_PRIOR).targets
    largest = sorted(decided.targets, key=lambda s: (-decided.targets[s], s))[:LARGEST]
    effects = [
        _effect(market, group, decided, _decide_on(todays, change, standing), largest)
        for group, change in occlusions(market).items()
    ]
    return Reasons(
        exposure=_exposure(market, decided, today.run.config.risk_model.exposure_decay),
        limits=tuple(_binding(market, decided, risk)),
        prior=prior,
        distance=distance(decided.targets, prior),
        effects=tuple(sorted(effects, key=lambda effect: (-effect.size, effect.group))),
        filtered_regime=tuple(market.filtered_regime[-1].tolist()),
    )


def distance(first: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the share of wealth that two portfolios hold differently, cash included."""
    moved = [first.get(s, 0.0) - other.get(s, 0.0) for s in {*first, *other}]
    return 0.5 * (sum(map(abs, moved)) + abs(sum(moved)))


def last_rows(market: Market, n_rows: int = KEPT_ROWS) -> Market:
    """Return the last rows of a market; what was fitted stays in its features."""
    spans = DayRange(0, n_rows)
    cut = _last(market, market.n_days, n_rows)
    risk = market.risk
    if risk is not None:
        cut["risk"] = replace(risk, **_last(risk, market.n_days, n_rows))
    return replace(market, **cut, split=Split(spans, spans, spans))


def occlusions(market: Market) -> dict[str, Callable[[Market], Market]]:
    """Return, by group of inputs, what replaces its values of the last row.

    Args:
        market: the whole one, whose training span gives the means.

    Returns:
        Group -> a function from the whole market, with a sector table, to its last rows without
        the group.
    """
    groups: dict[str, Callable[[Market], Market]] = {
        "market features": _means("macro_features"),
        "filtered regime": _means("filtered_regime"),
        "sector graph": _means("sector_embeddings"),
    }
    if market.risk is not None:
        groups["risk of the market"] = _risk_means("inputs")
        groups["risk of the sectors"] = _risk_means("sector_inputs")
        groups["classical prior"] = _equal_prior
    for group, columns in _families(market.feature_names).items():
        groups[group] = _means("stock_features", columns)
    if market.stock_embeddings is not None:
        names = slot_feature_names(market)[len(market.feature_names) :]
        for group, wanted in (("encoders", True), ("forecasts", False)):
            columns = [i for i, name in enumerate(names) if is_embedding(name) is wanted]
            if columns:
                groups[group] = _means("stock_embeddings", columns)
    return groups


def _last(holder: Market | RiskTables, n_days: int, n_rows: int) -> dict[str, Any]:
    tables = {field.name: getattr(holder, field.name) for field in fields(holder)}
    return {
        name: table[n_days - n_rows :]
        for name, table in tables.items()
        if isinstance(table, np.ndarray) and name != "sector_of"
    }


def _families(names: Sequence[str]) -> dict[str, list[int]]:
    """Sort the columns of stock features into families."""
    found: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        fitting = [group for group, parts in FAMILIES.items() if any(p in name for p in parts)]
        found.setdefault(fitting[-1] if fitting else OTHER, []).append(column)
    return found


def _means(table: str, columns: Sequence[int] | None = None) -> Callable[[Market], Market]:
    """Replace a table's last row by the mean of its training span; 0 is that of every stock's."""

    def change(market: Market) -> Market:
        small, whole = last_rows(market), getattr(market, table)
        if whole is None:
            return small
        chosen: Any = slice(None) if columns is None else list(columns)
        values = getattr(small, table).copy()
        if table in PER_STOCK:
            values[-1][:, chosen] = 0.0
        else:
            train = slice(market.split.train.start, market.split.train.stop)
            values[-1] = whole[train].mean(axis=0)
        return replace(small, **{table: values})

    return change


def _risk_means(table: str) -> Callable[[Market], Market]:
    def change(market: Market) -> Market:
        small = last_rows(market)
        if market.risk is None or small.risk is None:
            return small
        train = slice(market.split.train.start, market.split.train.stop)
        values = getattr(small.risk, table).copy()
        values[-1] = getattr(market.risk, table)[train].mean(axis=0)
        return replace(small, risk=replace(small.risk, **{table: values}))

    return change


def _equal_prior(market: Market) -> Market:
    """Replace the classical portfolio by 1/N at the largest exposure."""
    small = last_rows(market)
    if market.risk is None or small.risk is None:
        return small
    filled = (small.slots[-1] >= 0).reshape(market.n_sectors, -1)
    counts = filled.sum(axis=1)
    inside = filled / np.maximum(counts, 1)[:, None]
    sectors, stocks, exposure = (
        getattr(small.risk, name).copy()
        for name in ("sector_prior", "stock_prior", "prior_exposure")
    )
    sectors[-1], stocks[-1] = counts / max(counts.sum(), 1), inside.reshape(-1)
    exposure[-1] = market.risk.prior_exposure.max()
    risk = replace(small.risk, sector_prior=sectors, stock_prior=stocks, prior_exposure=exposure)
    return replace(small, risk=risk)


def _decide_on(
    todays: Sequence[Today],
    change: Callable[[Market], Market],
    standing: Standing,
    name: str | None = None,
) -> Decided:
    """Decide for the account once more, by agents that read a changed market."""
    policy = deployed(todays, change, name)
    small = last_rows(todays[0].market)
    return decide(policy, account_clocks(small, todays[0].run.config, standing), standing)


def _effect(
    market: Market, group: str, decided: Decided, without: Decided, largest: Sequence[str]
) -> Effect:
    moved = {
        s: decided.targets.get(s, 0.0) - without.targets.get(s, 0.0)
        for s in {*decided.targets, *without.targets}
    }
    sectors = sector_sums(market, moved)
    stocks = {symbol: moved.get(symbol, 0.0) for symbol in largest}
    return Effect(group, distance(decided.targets, without.targets), sectors, stocks)


def sector_sums(market: Market, weights: Mapping[str, float]) -> dict[str, float]:
    """Sum weights by sector, in the order of the market's sectors."""
    place = dict(zip(market.symbols, market.sector_of.tolist(), strict=True))
    totals = dict.fromkeys(market.sector_names, 0.0)
    for symbol, weight in sorted(weights.items()):
        totals[market.sector_names[place[symbol]]] += weight
    return totals


def _exposure(market: Market, decided: Decided, decay: float) -> Exposure:
    risk, last = market.risk, market.n_days - 1
    if risk is None:
        return Exposure(decided.exposure, 1.0, None, None)
    per_sector = market.n_slots // market.n_sectors
    whole = np.repeat(risk.sector_prior[last], per_sector) * risk.stock_prior[last]
    variance = variance_forecast(market, np.array([last]), whole[None], decay)[last]
    return Exposure(
        agent=decided.exposure,
        prior=float(risk.prior_exposure[last]),
        forecast_volatility=float(np.sqrt(variance)),
        normal_volatility=float(np.sqrt(risk.normal_variance[last])),
    )


def _binding(market: Market, decided: Decided, risk: RiskConfig) -> list[str]:
    """Say which limits the targets lie at."""
    targets, sectors = decided.targets, sector_sums(market, decided.targets)
    found = []
    at_cap = sorted(s for s, weight in targets.items() if weight >= risk.stock_cap - NEAR)
    if at_cap:
        found.append(f"stocks at their cap of {risk.stock_cap:.0%}: {', '.join(at_cap)}")
    full = [s for s, weight in sectors.items() if weight >= risk.sector_cap - NEAR]
    if full:
        found.append(f"sectors at their cap of {risk.sector_cap:.0%}: {', '.join(full)}")
    if sum(targets.values()) >= 1.0 - risk.min_cash - NEAR:
        found.append(f"the cash floor of {risk.min_cash:.0%}")
    if decided.memory.gate_days > 0 and risk.drawdown_gate:
        found.append(f"the drawdown gate, for {decided.memory.gate_days} more sessions")
    if decided.moved > NEAR:
        found.append(f"limits put {decided.moved:.1%} of wealth elsewhere than the agents asked")
    return found
