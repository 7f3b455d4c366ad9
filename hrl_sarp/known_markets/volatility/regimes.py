"""A market whose hidden states move risk only.

All stocks have the same mean return in all states, so nothing but risk can be learned. The state
changes every few months. It sets which sectors and which of their stocks are risky, how they move
together, and the level of risk. Agents see averages of returns and ranges. Oracles know the
process, and their belief about the state is that of the exact filter; `optimum` has the
best policies.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import lfilter

from hrl_sarp.contracts import Market
from hrl_sarp.features.technical import fitted_scale
from hrl_sarp.known_markets.small_market import market_of_returns
from hrl_sarp.known_markets.two_level import DAYS_PER_WEEK, FIRST_MONDAY, PathPlan
from hrl_sarp.metrics import SESSIONS_PER_YEAR

N_SECTORS, PER_SECTOR = 5, 4
N_ASSETS = N_SECTORS * PER_SECTOR
SECTOR_OF = np.repeat(np.arange(N_SECTORS), PER_SECTOR)
MEMBER = np.eye(N_SECTORS)[SECTOR_OF]
"""1 where a stock belongs to a sector."""
MEAN = 0.0003
"""Simple return of a session that every stock has on average in every state."""
NIGHT = 0.25
"""Part of a session's variance, and of its mean, that falls between close and open."""
STATES = ("early", "late", "split", "stress")
DWELL_DAYS = np.array([100.0, 100.0, 80.0, 60.0])
"""Mean sessions that a state lasts; the next one is any of the others alike."""
STATE_SHARES = DWELL_DAYS / DWELL_DAYS.sum()
"""Of all sessions; every state is visited equally often."""
MARKET_SD = np.array([0.10, 0.10, 0.16, 0.34])
"""Annual deviation of the market factor in each state."""
LOADING = np.array(
    [
        [1.2, 1.0, 1.0, 0.6, 0.5],
        [0.5, 0.6, 1.0, 1.0, 1.2],
        [1.0, 1.0, 0.5, -0.6, -1.0],
        [1.2, 1.1, 0.6, 1.1, 1.2],
    ]
)
"""Sensitivity of each sector to the market factor, by state: two sectors hedge the rest in one."""
SECTOR_SD = np.array(
    [
        [0.40, 0.35, 0.12, 0.06, 0.05],
        [0.05, 0.06, 0.12, 0.35, 0.40],
        [0.10, 0.10, 0.45, 0.10, 0.10],
        [0.20, 0.20, 0.05, 0.20, 0.20],
    ]
)
"""Annual deviation of each sector's own factor, by state."""
STOCK_SCALE = np.array([1.4, 1.2, 0.8, 0.6])
"""Factor on all that moves a stock of a sector; the order turns round in some states."""
OWN_SD = 0.20
"""Annual deviation of a stock around its sector, before the factor."""
IS_TURNED = np.array(
    [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 1, 1, 0], [1, 1, 0, 0, 1]], dtype=bool
)
"""States and sectors in which the last stock is the riskiest instead of the first."""
RANGE_DEGREES = 7.4
"""Degrees of freedom of a variance from a range: the precision of Garman and Klass's estimator, in
squared returns."""
HALF_LIVES = (2, 5, 20)
"""Sessions, of the moving averages that agents see."""
CLIP = 3.0


@cache
def covariances() -> Float[np.ndarray, "Z A A"]:
    """Compute the covariance of a session's log returns in each state.

    That of simple returns is larger by a part of about the daily variance, less than 0.001.
    """
    market = MARKET_SD[:, None] * LOADING[:, SECTOR_OF]
    same_sector = SECTOR_OF[:, None] == SECTOR_OF
    unscaled = (
        market[:, :, None] * market[:, None, :]
        + SECTOR_SD[:, SECTOR_OF, None] ** 2 * same_sector
        + OWN_SD**2 * np.eye(N_ASSETS)
    )
    turned = IS_TURNED[:, :, None]
    scale = np.where(turned, STOCK_SCALE[::-1], STOCK_SCALE).reshape(len(STATES), -1)
    covariance: np.ndarray = scale[:, :, None] * scale[:, None, :] * unscaled / SESSIONS_PER_YEAR
    return covariance


def transition_matrix() -> Float[np.ndarray, "Z Z"]:
    """Compute the probabilities of the next session's state (columns) by this one's (rows)."""
    leave, stay = 1 / DWELL_DAYS, np.eye(len(STATES))
    moves: np.ndarray = (leave * (1 - stay) / (len(STATES) - 1) + (1 - leave) * stay).T
    return moves


def normal_variance() -> float:
    """Compute the mean square of the daily returns of 1/N, for a year."""
    by_state = covariances().mean(axis=(1, 2)) + MEAN**2
    return float(STATE_SHARES @ by_state) * SESSIONS_PER_YEAR


def _variances() -> Float[np.ndarray, "Z A"]:
    return np.diagonal(covariances(), axis1=1, axis2=2)


@dataclass(frozen=True)
class Sessions:
    """What the states have drawn; row t is known at the close of t."""

    night: Float[np.ndarray, "T A"]
    """Log return from the close before to the open."""
    day: Float[np.ndarray, "T A"]
    """Log return from the open to the close."""
    range_variance: Float[np.ndarray, "T A"]
    """Variance of the day's part, estimated from its range."""


@dataclass(frozen=True)
class VolatilityMarket:
    """A market, with the hidden truth that only oracles read."""

    market: Market
    sessions: Sessions
    states: Int[np.ndarray, " T"]
    beliefs: Float[np.ndarray, "T Z"]
    """P(state of session t + 1 | rows up to t), of the exact filter."""


def volatility_market(plan: PathPlan, seed: int) -> VolatilityMarket:
    """Draw states and sessions, and compute what agents and oracles know of them."""
    rng = np.random.default_rng(seed)
    states = _draw_states(plan.n_days, rng)
    variance = (1 - NIGHT) * _variances()[states]
    sessions = Sessions(
        night=_draw_log_returns(states, NIGHT, rng),
        day=_draw_log_returns(states, 1 - NIGHT, rng),
        range_variance=variance * rng.chisquare(RANGE_DEGREES, variance.shape) / RANGE_DEGREES,
    )
    beliefs = filter_beliefs(sessions)
    return VolatilityMarket(market_of_sessions(sessions, plan), sessions, states, beliefs)


def _draw_states(n_days: int, rng: np.random.Generator) -> Int[np.ndarray, " T"]:
    """Draw whole visits: by how much each state differs from the one before, and its sessions."""
    n_visits = 10 + int(2 * n_days / DWELL_DAYS.min())
    visited = np.cumsum(rng.integers(1, len(STATES), n_visits)) % len(STATES)
    days = rng.geometric(1 / DWELL_DAYS[visited])
    states: np.ndarray = np.repeat(visited, days)[:n_days]
    return states


def _draw_log_returns(
    states: Int[np.ndarray, " T"], part: float, rng: np.random.Generator
) -> Float[np.ndarray, "T A"]:
    """Draw the part of each session whose simple return is (1 + MEAN)^part - 1 on average."""
    shocks = rng.standard_normal((len(states), N_ASSETS))
    for state, covariance in enumerate(part * covariances()):
        rows = states == state
        shocks[rows] = shocks[rows] @ np.linalg.cholesky(covariance).T - np.diag(covariance) / 2
    return part * np.log1p(MEAN) + shocks


def filter_beliefs(sessions: Sessions) -> Float[np.ndarray, "T Z"]:
    """Compute P(state of session t + 1 | rows up to t)."""
    ratio = sessions.range_variance[:, None] / ((1 - NIGHT) * _variances())
    density = (
        log_densities(sessions.night, NIGHT)
        + log_densities(sessions.day, 1 - NIGHT)
        + RANGE_DEGREES / 2 * (np.log(ratio) - ratio).sum(axis=2)  # up to what all states share
    )
    likelihood = np.exp(density - density.max(axis=1, keepdims=True))
    moves, belief = transition_matrix(), STATE_SHARES
    beliefs = np.empty_like(likelihood)
    for t, seen in enumerate(likelihood):
        posterior = belief * seen
        belief = posterior @ moves / posterior.sum()
        beliefs[t] = belief
    return beliefs


def log_densities(log_return: Float[np.ndarray, "T A"], part: float) -> Float[np.ndarray, "T Z"]:
    """Compute the log density of a part of each session in each state."""
    densities = []
    for covariance in part * covariances():
        root = np.linalg.cholesky(covariance)
        shocks = log_return - part * np.log1p(MEAN) + np.diag(covariance) / 2
        scaled = np.linalg.solve(root, shocks.T)
        constant = N_ASSETS * np.log(2 * np.pi) / 2 + np.log(np.diag(root)).sum()
        densities.append(-constant - (scaled**2).sum(axis=0) / 2)
    return np.stack(densities, axis=1)


def market_of_sessions(sessions: Sessions, plan: PathPlan) -> Market:
    """Show the sessions to agents, with features of rows <= t."""
    simple_return = np.expm1(sessions.night + sessions.day)
    stock, macro = _features(simple_return, sessions.range_variance, plan)
    name, weekly = "volatility_regimes", DAYS_PER_WEEK
    return replace(
        market_of_returns(name, simple_return, SECTOR_OF, plan.split(), weekly),
        dates=np.busday_offset(FIRST_MONDAY, np.arange(plan.n_days)),
        overnight_return=np.expm1(sessions.night),
        intraday_return=np.expm1(sessions.day),
        stock_features=np.stack(list(stock.values()), axis=2).astype(np.float32),
        feature_names=tuple(stock),
        macro_features=np.stack(list(macro.values()), axis=1).astype(np.float32),
        macro_names=tuple(macro),
        range_variance=sessions.range_variance,
        sector_embeddings=None,
    )


def _features(
    simple_return: Float[np.ndarray, "T A"], ranges: Float[np.ndarray, "T A"], plan: PathPlan
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Average variances and products of returns at several speeds, for each stock and for all.

    A stock's log variance is that of all, plus its sector's over that, plus its own over its
    sector's; each part is shown. A beta to 1/N shows what the stock, or its sector, adds to the
    risk of all, and one to the sector what the stock adds there. The macro columns are the variance
    of the mean stock and the part of it that 1/N keeps.
    """
    together, sector = simple_return.mean(axis=1, keepdims=True), sector_means(simple_return)
    stock: dict[str, np.ndarray] = {}
    macro: dict[str, np.ndarray] = {}
    for days in HALF_LIVES:
        variance = moving_average(ranges, days)
        own, whole = np.log(variance), moving_average(together**2, days)
        of_sector, mean = sector_means(own), np.log(variance.mean(axis=1))
        beta = moving_average(simple_return * together, days) / whole
        inside = moving_average(simple_return * sector, days) / moving_average(sector**2, days)
        columns = {
            "variance": own,
            "sector_variance": of_sector - own.mean(axis=1, keepdims=True),
            "relative_variance": own - of_sector,
            "beta": beta,
            "sector_beta": sector_means(beta),
            "beta_to_sector": inside,
        }
        stock |= {f"{name}_{days}d": by_training_span(v, plan) for name, v in columns.items()}
        macro[f"variance_{days}d"] = by_training_span(mean, plan)
        macro[f"correlation_{days}d"] = by_training_span(np.log(whole[:, 0]) - mean, plan)
    return stock, macro


def sector_means(values: Float[np.ndarray, "T A"]) -> Float[np.ndarray, "T A"]:
    """Give every stock the mean of its sector."""
    means: np.ndarray = values @ MEMBER / PER_SECTOR
    return means[:, SECTOR_OF]


def moving_average(
    values: Float[np.ndarray, "*shape"], half_life: int
) -> Float[np.ndarray, "*shape"]:
    """Compute exponentially weighted means of rows <= t; the first row starts them."""
    keep = 0.5 ** (1 / half_life)
    averages: np.ndarray = lfilter([1 - keep], [1, -keep], values, axis=0, zi=keep * values[:1])[0]
    return averages


def by_training_span(
    values: Float[np.ndarray, "*shape"], plan: PathPlan
) -> Float[np.ndarray, "*shape"]:
    """Measure values in deviations of the training span, over all its entries, within +-CLIP."""
    train = plan.split().train
    mean, deviation = fitted_scale(values[train.start : train.stop].reshape(-1, 1))
    return np.clip((values - mean) / deviation, -CLIP, CLIP)
