"""Baselines that decide from prices and features.

A rule returns one row of slot weights for each of its decision days, from rows up to that day. The
same limits and costs apply as to every other policy.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.agents import measures
from hrl_sarp.config.schema import EvaluationConfig, RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import MarketError
from hrl_sarp.evaluation.baselines.risk import IMPLIED, RISK_NAMES, risk_rules
from hrl_sarp.evaluation.baselines.schedule import (
    Days,
    ScheduledPolicy,
    WeightRule,
    Weights,
    equal_shares,
    n_selected,
    normalise,
    slot_values,
    top_slots,
    trailing,
    usable_slots,
)
from hrl_sarp.features.labels import centre_features, standardise_cross_section, stock_label
from hrl_sarp.metrics import ROUNDING

EQUAL_WEIGHT = "1/N"


def equal_weight(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold 1/N of the usable stocks."""
    return equal_shares(usable_slots(market, days))


def inverse_volatility(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold stocks with half a window of bars in proportion to 1 / trailing volatility."""
    window, session_return, rows = config.evaluation.volatility_days, market.session_return(), []
    for day in days.tolist():
        returns = trailing(session_return, day, window)
        tradable = trailing(market.tradable, day, window)
        count = tradable.sum(axis=0)
        mean = np.where(tradable, returns, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = np.where(tradable, (returns - mean) ** 2, 0.0).sum(axis=0)
        is_enough = count >= max(2, len(returns) // 2)
        rows.append(np.where(is_enough, np.sqrt(squares / np.maximum(count - 1, 1)), 0.0))
    volatility = slot_values(market, days, np.array(rows))
    known = usable_slots(market, days) & (volatility > ROUNDING)
    return normalise(np.where(known, 1.0 / np.where(known, volatility, 1.0), 0.0))


def momentum(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold the stocks with the best 12-1 momentum, equally; cash until a year of bars exists."""
    scores, known = _momentum(market, days, config)
    count = n_selected(config, config.evaluation.momentum_positions, market, days)
    return equal_shares(top_slots(scores, known, count))


def sector_momentum(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold all stocks of the sectors with the best mean 12-1 momentum, equally."""
    scores, known = _momentum(market, days, config)
    shape = (len(days), market.n_sectors, -1)
    by_sector, is_known = scores.reshape(shape), known.reshape(shape)
    counts = is_known.sum(axis=2)
    mean = np.where(is_known, by_sector, 0.0).sum(axis=2) / np.maximum(counts, 1)
    best = top_slots(mean, counts > 0, config.evaluation.momentum_sectors)
    return equal_shares((is_known & best[:, :, None]).reshape(len(days), -1))


def ridge(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold the best stocks by a ridge regression fitted on the training span, equally."""
    return _best_by_ridge(market, days, config, rng=None)


def ridge_shuffled(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold the best stocks by the scores of `ridge`, shuffled among the day's stocks."""
    return _best_by_ridge(market, days, config, np.random.default_rng([config.seed, len(days)]))


def ridge_in_sectors(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold the best stocks of each sector by a ridge fitted inside the sectors, equally.

    A sector gets its share of the usable stocks, as in 1/N, so only the choice inside it differs.
    """
    coefficients = fit_ridge(market, market.split.train, config.evaluation, in_sectors=True)
    scores = slot_values(market, days, market.stock_features[days] @ coefficients)
    usable = usable_slots(market, days)
    wanted = n_selected(config, config.evaluation.ridge_positions, market, days)
    by_sector = (len(days) * market.n_sectors, -1)
    rows = usable.reshape(by_sector)
    best = top_slots(scores.reshape(by_sector), rows, math.ceil(wanted / market.n_sectors))
    weights = equal_shares(best) * rows.sum(axis=1, keepdims=True)
    return normalise(weights.reshape(usable.shape))


def random_policy(market: Market, days: Days, config: RunConfig) -> Weights:
    """Redraw all weights from Dirichlet(1) at every decision: trading without information."""
    rng = np.random.default_rng([config.seed, len(days)])
    usable = usable_slots(market, days)
    return normalise(np.where(usable, rng.exponential(size=usable.shape), 0.0))


def least_traded(market: Market, days: Days, config: RunConfig) -> Weights:
    """Hold the stocks of lowest dollar volume. If it beats 1/N by far, the universe is biased."""
    window = config.evaluation.covariance_days
    rows = [np.median(trailing(market.dollar_volume, day, window), axis=0) for day in days.tolist()]
    volume = slot_values(market, days, np.array(rows))
    known = usable_slots(market, days) & (volume > 0)
    count = n_selected(config, config.evaluation.random_positions, market, days)
    return equal_shares(top_slots(-volume, known, count))


RULES: dict[str, tuple[str, WeightRule]] = {
    "equal_weight": (EQUAL_WEIGHT, equal_weight),
    "inverse_volatility": ("inverse volatility", inverse_volatility),
    "momentum": ("12-1 momentum", momentum),
    "sector_momentum": ("sector momentum", sector_momentum),
    "ridge": ("ridge", ridge),
    "ridge_shuffled": ("ridge, shuffled", ridge_shuffled),
    "ridge_in_sectors": ("ridge inside sectors", ridge_in_sectors),
    "random_policy": ("random policy", random_policy),
    "least_traded": ("least traded", least_traded),
}
"""Name in the configuration -> name in tables, rule."""


def make_baselines(
    market: Market, config: RunConfig, knows_until: int | None = None
) -> list[ScheduledPolicy]:
    """Build the configured baselines. 1/N is always included, because all are compared with it.

    `least_traded` is left out where volumes are unknown, a target of implied volatility where there
    is none, and the baselines that skfolio optimises in a universe larger than
    `optimised_max_slots`.

    Args:
        market: says which baselines are possible.
        config: says which are wanted.
        knows_until: last row that a rule looks at; all rows if None.

    Returns:
        Policies, 1/N first.
    """
    names: Sequence[str] = ["equal_weight", *config.evaluation.baselines]
    if not market.dollar_volume.any():
        names = [name for name in names if name != "least_traded"]
    if market.implied_volatility is None:
        names = [name for name in names if name != IMPLIED]
    if market.n_slots > config.evaluation.optimised_max_slots:
        names = [name for name in names if name in RULES or name in RISK_NAMES]
    rules = RULES
    if not {*rules, *RISK_NAMES} >= set(names):  # skfolio takes seconds to import
        from hrl_sarp.evaluation.baselines.optimised import OPTIMISED_RULES

        rules = RULES | OPTIMISED_RULES
    chosen: dict[str, WeightRule] = {}
    for name in names:
        chosen |= risk_rules(name, config) if name in RISK_NAMES else dict([rules[name]])
    return [ScheduledPolicy(title, rule, config, knows_until) for title, rule in chosen.items()]


def make_random_portfolios(config: RunConfig) -> list[ScheduledPolicy]:
    """Build the portfolios of random stocks, which show the range of results by luck alone.

    Args:
        config: how many, and of how many stocks.

    Returns:
        Policies that buy once; the same draw for the same seed and day.
    """
    count = config.evaluation.random_portfolios
    return [
        ScheduledPolicy(
            f"random {draw + 1}", partial(random_stocks, draw=draw), config, only_once=True
        )
        for draw in range(count)
    ]


def random_stocks(market: Market, days: Days, config: RunConfig, draw: int) -> Weights:
    """Hold randomly drawn stocks, equally. Each `draw` is another portfolio."""
    rng = np.random.default_rng([config.seed, draw])
    usable = usable_slots(market, days)
    count = n_selected(config, config.evaluation.random_positions, market, days)
    return equal_shares(top_slots(rng.random(usable.shape), usable, count))


def _momentum(
    market: Market, days: Days, config: RunConfig
) -> tuple[Float[np.ndarray, "D N"], Bool[np.ndarray, "D N"]]:
    """Compute the formation return, and which stocks were listed over all of it."""
    section = config.evaluation
    growth = np.cumprod(1.0 + market.session_return(), axis=0)
    first, last = days - section.momentum_days, days - section.momentum_skip_days
    scores = growth[np.maximum(last, 0)] / growth[np.maximum(first, 0)] - 1.0
    was_listed = market.listed[np.maximum(first, 0)] & (first >= 0)[:, None]
    known = usable_slots(market, days) & slot_values(market, days, was_listed)
    return slot_values(market, days, scores), known


def _best_by_ridge(
    market: Market, days: Days, config: RunConfig, rng: np.random.Generator | None
) -> Weights:
    coefficients = fit_ridge(market, market.split.train, config.evaluation)
    scores = slot_values(market, days, market.stock_features[days] @ coefficients)
    usable = usable_slots(market, days)
    if rng is not None:
        for row, mask in zip(scores, usable, strict=True):
            where: Int[np.ndarray, " n"] = np.flatnonzero(mask)
            row[where] = row[rng.permutation(where)]
    count = n_selected(config, config.evaluation.ridge_positions, market, days)
    return equal_shares(top_slots(scores, usable, count))


def fit_ridge(
    market: Market, span: DayRange, section: EvaluationConfig, *, in_sectors: bool = False
) -> Float[np.ndarray, " F"]:
    """Fit next-`ridge_label_days` returns, standardised across each day's stocks, in closed form.

    Only rows whose label ends inside the span are used. Both sides are centred by day, so there is
    no intercept. The penalty is times rows x mean feature variance. With `in_sectors` the stocks
    of a sector are compared with each other only.
    """
    labels, complete = stock_label(market, section.ridge_label_days)
    rows = np.arange(span.start, max(span.start, span.stop - 1 - section.ridge_label_days))
    rows = rows[complete[rows]]
    features = market.stock_features[rows]
    mask = (market.eligible & market.tradable)[rows] & np.isfinite(labels[rows])
    if not features[mask].any():
        raise MarketError(
            f"ridge baseline: rows [{span.start}, {span.stop}) hold no stock with features and a "
            f"label of {section.ridge_label_days} sessions; lengthen the training span or leave "
            "the ridges out of evaluation.baselines"
        )
    groups = market.sector_of if in_sectors else None
    if in_sectors:
        features = centre_features(features, mask, market.sector_of)
    target = standardise_cross_section(labels[rows], mask, groups)
    return measures.fit_ridge(features, target, mask, section.ridge_penalty)
