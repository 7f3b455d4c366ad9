"""The exact belief about the hidden regime of the planted market, for its oracles.

The filter knows every parameter of the process, the market factor and the signal; it does not
know the regimes.
"""

import itertools

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp
from scipy.stats import norm

from hrl_sarp.config.market_schema import RegimeConfig, SyntheticConfig
from hrl_sarp.contracts import Market, Regime
from hrl_sarp.data.sources.synthetic import SyntheticTruth
from hrl_sarp.features.labels import regime_band

BPS, PERCENT = 1e-4, 1e-2


def filter_beliefs(truth: SyntheticTruth, config: SyntheticConfig) -> Float[np.ndarray, "T R"]:
    """Compute P(regime of the next week | rows <= t).

    Row t uses the whole days of its week so far; the step to the next week multiplies by the
    transition matrix.
    """
    daily = _log_likelihood(truth, config)
    transition = transition_matrix(config)
    beliefs = np.empty(daily.shape)
    prior = np.full(len(Regime), 1 / len(Regime))
    begins = np.flatnonzero(np.diff(truth.week_of, prepend=-1))
    for start, stop in itertools.pairwise([*begins, len(daily)]):
        joint = np.log(prior) + np.cumsum(daily[start:stop], axis=0)
        posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        beliefs[start:stop] = posterior @ transition
        prior = beliefs[stop - 1]
    return beliefs


def transition_matrix(config: SyntheticConfig) -> Float[np.ndarray, "R R"]:
    """Weekly transition probabilities: leavers go to the two other regimes alike."""
    stay = config.stay_probability
    moved = (1 - stay) / (len(Regime) - 1)
    return np.full((len(Regime), len(Regime)), moved) + (stay - moved) * np.eye(len(Regime))


def sector_variance(config: SyntheticConfig) -> float:
    """Daily variance of an equal-weighted sector around the market factor."""
    own = (config.idiosyncratic_sd_pct * PERCENT) ** 2 / config.stocks_per_sector
    return (config.sector_sd_pct * PERCENT) ** 2 + own


def _log_likelihood(truth: SyntheticTruth, config: SyntheticConfig) -> Float[np.ndarray, "T R"]:
    """Log density of a day under each regime: the market factor and the sectors' means over it."""
    mean = np.array(config.market_mean_bps) * BPS
    deviation = np.array(config.market_sd_pct) * PERCENT
    market = norm.logpdf(truth.market_log_return[:, None], mean, deviation)
    excess = _sector_excess(truth, config)
    drift = config.sector_drift_bps * BPS * truth.sector_tilt
    squares = ((excess[:, None, :] - drift) ** 2).sum(axis=2)
    return market - 0.5 * squares / sector_variance(config)


def _sector_excess(truth: SyntheticTruth, config: SyntheticConfig) -> Float[np.ndarray, "T S"]:
    """Mean return of each sector over the market factor, less what the signal explains."""
    deviation = config.idiosyncratic_sd_pct * PERCENT
    known = truth.log_return - truth.market_log_return[:, None] + deviation**2 / 2
    known[1:] -= config.alpha_strength * deviation * truth.signal[:-1]
    return known.reshape(len(known), config.n_sectors, config.stocks_per_sector).mean(axis=2)


def label_probabilities(
    beliefs: Float[np.ndarray, "W R"],
    rows: Int[np.ndarray, " W"],
    market: Market,
    regime: RegimeConfig,
    config: SyntheticConfig,
) -> Float[np.ndarray, "W R"]:
    """Compute P(class of the regime label) at week ends from the belief, exactly.

    The label sums the factor over `label_horizon_days` sessions from the second next one on: the
    first four of the next week and the rest of the weeks after. Given a path of regimes the sum is
    normal; the paths are enumerated.
    """
    days = _days_per_week_of(regime.label_horizon_days)
    mean = np.array(config.market_mean_bps) * BPS
    variance = (np.array(config.market_sd_pct) * PERCENT) ** 2
    transition = transition_matrix(config)
    band = regime_band(market, regime)[rows]
    result = np.zeros((len(rows), len(Regime)))
    for path in itertools.product(Regime, repeat=len(days)):
        steps = np.prod([transition[a, b] for a, b in itertools.pairwise(path)])
        weight = beliefs[:, path[0]] * steps
        centre = sum(n * mean[state] for n, state in zip(days, path, strict=True))
        scale = np.sqrt(sum(n * variance[state] for n, state in zip(days, path, strict=True)))
        result[:, Regime.BEAR] += weight * norm.cdf(-band, centre, scale)
        result[:, Regime.BULL] += weight * norm.sf(band, centre, scale)
    result[:, Regime.SIDEWAYS] = 1 - result.sum(axis=1)
    return result


def _days_per_week_of(horizon: int) -> list[int]:
    """Split the label's days over weeks: the next session is its fill and does not count."""
    days, left = [4], horizon - 4
    while left > 0:
        days.append(min(5, left))
        left -= 5
    return days
