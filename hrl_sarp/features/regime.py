"""The 3-state hidden Markov model whose probabilities agents see.

It is fitted on training weeks and filtered forwards. Its states are not the classes of the regime
label (`labels.py`), so they are never compared with each other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hmmlearn.stats import log_multivariate_normal_density
from jaxtyping import Bool, Float, Int

from hrl_sarp.contracts import Regime
from hrl_sarp.errors import MarketError
from hrl_sarp.features.technical import fitted_scale

N_RESTARTS = 5
"""Number of seeds 0, 1, 2, ...; the best fit is kept, because each ends in a local optimum."""
MIN_TRAINING_WEEKS = 30
_STILL = (
    "expected a benchmark that moves in the weeks of the training span (the index of the data, or "
    "1/N of the stocks): check its levels with validate-data"
)
"""Fewer weeks do not identify three states with full covariances."""


@dataclass(frozen=True)
class RegimeModel:
    """A fitted Gaussian HMM, its states in the order of `Regime`."""

    centre: Float[np.ndarray, " D"]
    """Mean of the observations over the training weeks."""
    scale: Float[np.ndarray, " D"]
    """Deviation of the observations over the training weeks."""
    start: Float[np.ndarray, " R"]
    """Stationary distribution: the probabilities before the first week."""
    transition: Float[np.ndarray, "R R"]
    means: Float[np.ndarray, "R D"]
    covariances: Float[np.ndarray, "R D D"]


def weekly_observations(
    simple_returns: Float[np.ndarray, " T"], is_week_end: Bool[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, "W D"], Int[np.ndarray, " W"]]:
    """Compute (log return, root mean square of daily log returns) of each complete week.

    Returns:
        The observations and the row of each week's last session.
    """
    log_return = np.log1p(simple_returns)
    rows = np.flatnonzero(is_week_end)
    starts = np.concatenate([[0], rows[:-1] + 1]) if len(rows) else rows
    weeks = [log_return[start : row + 1] for start, row in zip(starts, rows, strict=True)]
    pairs = [(week.sum(), np.sqrt(np.mean(week**2))) for week in weeks]
    return np.array(pairs, dtype=np.float64).reshape(len(rows), 2), rows


def fit_regime_model(
    observations: Float[np.ndarray, "W D"], iterations: int, return_axis: int = 0
) -> RegimeModel:
    """Fit the model on training weeks: the best of `N_RESTARTS` fits by likelihood.

    The mean in column `return_axis` orders the states: lowest bear, middle sideways, highest bull.

    Raises:
        MarketError: if there are too few weeks, or no restart gives a usable model.

    Source:
        Package hmmlearn, GaussianHMM with full covariances.
    """
    if len(observations) < MIN_TRAINING_WEEKS:
        raise MarketError(
            f"regime model: expected at least {MIN_TRAINING_WEEKS} training weeks, found "
            f"{len(observations)}; lengthen the training span of the market profile"
        )
    centre, scale = fitted_scale(observations)
    fitted = _fit_best((observations - centre) / scale, iterations)
    by_regime = np.empty(len(Regime), dtype=np.int64)
    by_regime[[Regime.BEAR, Regime.SIDEWAYS, Regime.BULL]] = np.argsort(
        fitted.means_[:, return_axis]
    )
    return RegimeModel(
        centre=centre,
        scale=scale,
        start=fitted.get_stationary_distribution()[by_regime],
        transition=fitted.transmat_[np.ix_(by_regime, by_regime)],
        means=fitted.means_[by_regime],
        covariances=fitted.covars_[by_regime],
    )


def filter_regimes(
    model: RegimeModel,
    observations: Float[np.ndarray, "W D"],
    rows: Int[np.ndarray, " W"],
    n_days: int,
) -> Float[np.ndarray, "T R"]:
    """Compute P(state | weeks so far), valid from each week's last session (`rows`) on.

    The recursion runs forwards only, because a smoothed probability would know later weeks. Before
    the first week ends, the result is the stationary distribution.
    """
    standardised = (observations - model.centre) / model.scale
    # not SciPy's density: it refuses covariances that are positive definite by a hair
    try:
        log_likelihood = log_multivariate_normal_density(
            standardised, model.means, model.covariances, "full"
        )
    except (ValueError, np.linalg.LinAlgError) as error:
        raise MarketError(
            f"regime model: {_STILL}; found a state without any spread ({error})"
        ) from error
    belief = model.start
    result = np.tile(belief, (n_days, 1))
    ends = np.append(rows, n_days)
    for week, row in enumerate(rows):
        predicted = belief @ model.transition if week else belief
        with np.errstate(divide="ignore"):  # log 0 = -inf is an impossible state
            joint = np.log(predicted) + log_likelihood[week]
        weight = np.exp(joint - joint.max())
        belief = weight / weight.sum()
        result[row : ends[week + 1]] = belief
    return result


def _fit_best(standardised: np.ndarray, iterations: int) -> Any:
    # hmmlearn takes seconds to import, and only the assembly of a market needs it
    from hmmlearn.hmm import GaussianHMM

    best, best_score = None, -np.inf
    for seed in range(N_RESTARTS):
        model = GaussianHMM(
            len(Regime), covariance_type="full", n_iter=iterations, random_state=seed
        )
        try:
            model.fit(standardised)
            score = model.score(standardised)
        except (ValueError, np.linalg.LinAlgError):  # a state has no week, or no spread
            continue
        if np.isfinite(score) and score > best_score:
            best, best_score = model, score
    if best is None:
        raise MarketError(
            f"regime model: {_STILL}; found none of {N_RESTARTS} fits of {len(standardised)} "
            "training weeks that converges"
        )
    return best
