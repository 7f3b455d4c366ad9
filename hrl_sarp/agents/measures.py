"""Measures that training logs: of networks, gradients, portfolios and rankings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Goal, Regime
from hrl_sarp.envs.levels import LevelStep
from hrl_sarp.envs.observations import achieved_sectors
from hrl_sarp.envs.rewards import goal_alignment
from hrl_sarp.market.tensors import MarketTensors

CAP_TOLERANCE = 1e-4
"""A weight within this distance of its cap, in shares of wealth, counts as capped."""
SATURATED = 0.95
"""Scores beyond it count as saturated: tanh passes less than a tenth of the gradient there."""


class GradientNorms:
    """Context manager that records each group's gradient norm at every backward pass.

    The norms are those before clipping. Parameters that need no gradient when the object is made
    are left out.
    """

    def __init__(self, groups: Mapping[str, Iterable[nn.Parameter]]) -> None:
        self._groups = {name: [p for p in g if p.requires_grad] for name, g in groups.items()}
        self._norms: dict[str, list[Tensor]] = {name: [] for name in self._groups}

    def __enter__(self) -> "GradientNorms":
        self._handles = [
            register_multi_grad_hook(parameters, self._note_into(name))
            for name, parameters in self._groups.items()
            if parameters
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _note_into(self, name: str) -> Callable[[Sequence[Tensor | None]], None]:
        def note(gradients: Sequence[Tensor | None]) -> None:
            given = [gradient for gradient in gradients if gradient is not None]
            self._norms[name].append(nn.utils.get_total_norm(given))

        return note

    def summary(self, limit: float) -> dict[str, float]:
        """Return `<group>_grad_norm`, the mean norms, and `clipped`, the share above `limit`.

        `clipped` refers to the norm over all groups together. Empty without a backward pass.
        """
        noted = {name: torch.stack(norms) for name, norms in self._norms.items() if norms}
        means = {f"{name}_grad_norm": float(norms.mean()) for name, norms in noted.items()}
        if not noted:
            return {}
        total = torch.stack(list(noted.values())).square().sum(dim=0).sqrt()
        return {**means, "clipped": float((total > limit).float().mean())}


def spread(name: str, values: Float[np.ndarray, "..."]) -> dict[str, float]:
    """Return mean, deviation and range as `<name>_mean`, ..., `<name>_max`. NaN is not skipped."""
    kinds = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    return {f"{name}_{kind}": float(value) for kind, value in kinds.items()}


def goal_measures(goal: Goal) -> dict[str, Float[Tensor, ""]]:
    """Measure how concentrated deterministic goals are, and how much they change over dates."""
    shares, bear = goal.sector_weights, goal.regime_probabilities[:, Regime.BEAR]
    return {
        "goal_cash": goal.cash.mean(),
        "goal_cash_std": goal.cash.std(correction=0),
        "goal_hhi": shares.square().sum(dim=1).mean(),
        "goal_std": shares.std(dim=0, correction=0).mean(),
        "p_bear": bear.mean(),
        "p_bear_std": bear.std(correction=0),
    }


def score_measures(
    scores: Float[Tensor, "B N"], tradable: Bool[Tensor, "B N"]
) -> dict[str, Float[Tensor, ""]]:
    """Measure scores of tradable slots: standard deviation, and the share that is saturated."""
    given = scores[tradable]
    saturated = (given.abs() > SATURATED).to(scores.dtype)
    return {"score_std": given.std(correction=0), "score_saturation": saturated.mean()}


def critic_measures(
    values: tuple[Float[Tensor, " B"], Float[Tensor, " B"]], target: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, ""]]:
    """Measure a twin critic beside its targets on one batch, in the reward's unit."""
    first, second = values
    return {
        "q1_mean": first.mean(),
        "q2_mean": second.mean(),
        "q_std": first.std(correction=0),
        "q_min": first.min(),
        "q_max": first.max(),
        "target_mean": target.mean(),
        "td_error": (first - target).abs().mean(),
        "twin_gap": (first - second).abs().mean(),
    }


def as_numbers(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """Read many one-number tensors in a single transfer from the device."""
    if not measures:
        return {}
    stacked = torch.stack([measure.detach() for measure in measures.values()])
    return dict(zip(measures, stacked.tolist(), strict=True))


def portfolio_measures(
    tensors: MarketTensors, step: LevelStep, risk: RiskConfig
) -> dict[str, Float[Tensor, " B"]]:
    """Measure B portfolios after their trade: exposure, concentration, limits that bind.

    Returns:
        `exposure` (share of wealth), `alignment` with the goal, `weights_hhi` and `sector_hhi` (of
        the invested part), `stock_capped` and `sector_capped` (share of the invested part that
        sits at a cap), `cash_floor` (1 where only the least cash is left).
    """
    weights = step.trade.weights_after
    invested = weights.sum(dim=1)
    shares = weights / invested.clamp(min=1e-12)[:, None]
    sectors = achieved_sectors(tensors, weights)
    at_cap = weights >= risk.stock_cap - CAP_TOLERANCE
    # goals are capped as shares of the invested part; that cap binds before the one on wealth
    sector_at_cap = sectors >= risk.sector_cap - CAP_TOLERANCE
    return {
        "exposure": invested,
        "alignment": goal_alignment(sectors, step.goal, tensors.n_sectors),
        "weights_hhi": shares.square().sum(dim=1),
        "sector_hhi": sectors.square().sum(dim=1),
        "stock_capped": (shares * at_cap).sum(dim=1),
        "sector_capped": (sectors * sector_at_cap).sum(dim=1),
        "cash_floor": (1 - invested <= risk.min_cash + CAP_TOLERANCE).to(invested.dtype),
    }


def mean_terms(step: LevelStep) -> dict[str, float]:
    """Average `reward`, its terms and the level's measures over the batch."""
    terms = {"reward": step.reward, **step.terms}
    means = torch.stack(list(terms.values())).mean(dim=1)
    return dict(zip(terms, means.tolist(), strict=True))


def fit_ridge(
    features: Float[np.ndarray, "D N F"],
    label: Float[np.ndarray, "D N"],
    mask: Bool[np.ndarray, "D N"],
    penalty: float,
) -> Float[np.ndarray, " F"]:
    """Fit a ridge regression without intercept: features and labels come centred.

    They are centred across each day, or inside the sectors of each day. The penalty counts times
    rows times the mean feature variance.
    """
    # importing it takes half a second, which every command would wait
    from sklearn.linear_model import Ridge

    x, y = features[mask].astype(np.float64), label[mask]
    alpha = penalty * float(np.square(x).sum()) / x.shape[1]
    coefficients: np.ndarray = Ridge(alpha, fit_intercept=False, solver="cholesky").fit(x, y).coef_
    return coefficients


def daily_rank_ic(
    scores: Float[np.ndarray, "V N"],
    label: Float[np.ndarray, "V N"],
    mask: Bool[np.ndarray, "V N"],
    groups: Int[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " V"]:
    """Compute Spearman's correlation of scores and labels on each day.

    With `groups`, the number of each slot's group, stocks are ranked inside their group, and a
    day's value is the mean of its groups. A group of n masked stocks weighs n - 1, the inverse
    variance of a correlation by chance. So a group of one stock counts for nothing. Groups whose
    scores or labels are all equal count as 0, as do days without two stocks of a group.
    """
    groups = np.zeros(mask.shape[1], dtype=np.int64) if groups is None else groups
    total, weight = np.zeros(len(mask)), np.zeros(len(mask))
    for group in np.unique(groups):
        members = groups == group
        chosen = mask[:, members]
        first, second = (_centred_ranks(v[:, members], chosen) for v in (scores, label))
        spread = np.sqrt(np.square(first).sum(axis=1) * np.square(second).sum(axis=1))
        covariance = (first * second).sum(axis=1)
        free = np.maximum(chosen.sum(axis=1) - 1, 0)
        total += free * np.divide(covariance, spread, out=np.zeros(len(mask)), where=spread > 0)
        weight += free
    return total / np.maximum(weight, 1)


def _centred_ranks(
    values: Float[np.ndarray, "V X"], mask: Bool[np.ndarray, "V X"]
) -> Float[np.ndarray, "V X"]:
    """Rank the masked entries of each row, less their mean; 0 elsewhere. Equal values share one."""
    # importing it takes a second, which every command would wait
    from scipy.stats import rankdata

    ranks = rankdata(np.where(mask, values, np.nan), axis=1, nan_policy="omit")
    ranks = np.where(mask, ranks, 0.0)
    mean = ranks.sum(axis=1, keepdims=True) / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return np.where(mask, ranks - mean, 0.0)


def mean_with_error(series: Float[np.ndarray, " V"], overlap: int) -> tuple[float, float]:
    """Return the mean and its Newey-West standard error (Bartlett weights, `overlap` lags).

    Labels overlap over `overlap` lags, which correlates them.

    Source: Newey and West (1987), Econometrica 55(3).
    """
    centred = series - series.mean()
    n = len(series)
    variance = centred @ centred / n
    for lag in range(1, min(overlap, n - 1) + 1):
        weight = 1 - lag / (overlap + 1)
        variance += 2 * weight * (centred[lag:] @ centred[:-lag]) / n
    return float(series.mean()), float(np.sqrt(max(variance, 0.0) / n))


def compare_with_ridge(
    scores: Float[np.ndarray, "V N"],
    ridge: Float[np.ndarray, "V N"],
    label: Float[np.ndarray, "V N"],
    mask: Bool[np.ndarray, "V N"],
    groups: Int[np.ndarray, " N"],
    overlap: int,
) -> dict[str, float]:
    """Compare the rank correlation of scores with that of a ridge, on the same days and stocks.

    Returns:
        `rank_ic`, `ridge_rank_ic` and `rank_ic_minus_ridge` inside the groups, and
        `universe_rank_ic` and `ridge_universe_rank_ic` over all stocks. Each is a mean over days,
        with its standard error under `<name>_se`, for labels that overlap over `overlap` sessions.
    """
    own, other = (daily_rank_ic(values, label, mask, groups) for values in (scores, ridge))
    named = {
        "rank_ic": own,
        "ridge_rank_ic": other,
        "rank_ic_minus_ridge": own - other,
        "universe_rank_ic": daily_rank_ic(scores, label, mask),
        "ridge_universe_rank_ic": daily_rank_ic(ridge, label, mask),
    }
    found = {}
    for name, series in named.items():
        found[name], found[f"{name}_se"] = mean_with_error(series, overlap)
    return found
