"""How well what agents observe tells the volatility of the next week, before any agent is trained.

A linear head on all inputs of a stock and its market is fitted on the training span and measured on
validation. A forecast is also measured as it stands. The test span is not read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from hrl_sarp.agents.measures import fit_ridge, mean_with_error
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.features.labels import next_variance
from hrl_sarp.observed.forecasts import Standard
from hrl_sarp.observed.stocks import FORECASTS, HEADS, NAMES
from hrl_sarp.observed.volatility_head import HORIZON, labelled_weeks, qlike, variance_factor

PENALTY = 0.01
"""Of the head, in rows x mean input variance."""
Q80 = 2.0 * 1.2815515655446004
"""Deviations between the quantiles at 0.1 and 0.9 of a normal."""
LAGS = 4
"""Weeks over which differences of forecasts depend on each other."""
HEAD, DIRECT = "head", "direct"
"""A head on all that agents observe; the forecast alone, with one factor fitted on training."""


def volatility_skill(market: Market) -> dict[str, dict[str, list[float]]]:
    """Measure forecasts of next week's realised variance on the validation span.

    Args:
        market: with the tables that agents observe.

    Returns:
        `head`, and `direct` where agents observe forecasts -> weekly means over the stocks of
        `qlike` (0 for a perfect forecast) and `log_loss` of the tercile of the training span (1.10
        without any skill).
    """
    variance = next_variance(market, HORIZON)
    spans = market.split.train, market.split.validation
    parts = [labelled_weeks(market, span, variance) for span in spans]
    labels = [np.log(np.where(mask, variance[rows], 1.0)) for rows, mask in parts]
    masks = [mask for _, mask in parts]
    found = {HEAD: _headed(market, [rows for rows, _ in parts], labels, masks)}
    own = _own_forecast(market)
    if own is not None:
        found[DIRECT] = [own[rows] for rows, _ in parts]
    return {name: _scored(*forecasts, *labels, *masks) for name, forecasts in found.items()}


def _inputs(market: Market, rows: Int[np.ndarray, " W"]) -> Float[np.ndarray, "W A F"]:
    """Gather all that agents observe of a stock and of the market."""
    of_market = [market.macro_features[rows], market.filtered_regime[rows]]
    if market.risk is not None:
        of_market.append(market.risk.inputs[rows])
    shared = np.concatenate(of_market, axis=1)[:, None]
    parts = [market.stock_features[rows], np.repeat(shared, market.n_assets, axis=1)]
    if market.stock_embeddings is not None:
        parts.append(market.stock_embeddings[rows])
    return np.concatenate(parts, axis=2, dtype=np.float64)


def _headed(
    market: Market,
    rows: list[Int[np.ndarray, " _"]],
    labels: list[Float[np.ndarray, "_ A"]],
    masks: list[Bool[np.ndarray, "_ A"]],
) -> list[Float[np.ndarray, "_ A"]]:
    """Fit the log of the variance on the first span; return its forecasts on both."""
    inputs = [_inputs(market, each) for each in rows]
    known = inputs[0][masks[0]]
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    inputs = [(each - mean) / np.where(deviation > 0, deviation, 1.0) for each in inputs]
    middle = labels[0][masks[0]].mean()
    weights = fit_ridge(inputs[0], labels[0] - middle, masks[0], PENALTY)
    return [each @ weights + middle for each in inputs]


def _own_forecast(market: Market) -> Float[np.ndarray, "T A"] | None:
    """Return the log of the variance that what is observed itself says; None without a forecast.

    Of several forecasts it is the last one: that of the forecaster, else of the last head.
    """
    facts = market.manifest.get(STOCK_EMBEDDINGS, {})
    said = [{"kind": kind, **head} for kind, head in facts.get(HEADS, {}).items()]
    said += [facts[FORECASTS]] if FORECASTS in facts else []
    if not said or market.stock_embeddings is None:
        return None
    payload: dict[str, Any] = said[-1]
    unit = Standard(np.array(payload["mean"]), np.array(payload["deviation"]), payload["clip"])
    first = len(facts[NAMES]) - len(unit.mean)
    own = [name.removeprefix(f"{payload['kind']} ") for name in facts[NAMES][first:]]
    # the volatility of EWMA grows with the root of time, and the factor of training takes that in
    wanted = (f"volatility {HORIZON}d", "volatility 1d", f"width {HORIZON}d")
    place = next(own.index(name) for name in wanted if name in own)
    raw = market.stock_embeddings[:, :, first + place] * unit.deviation[place] + unit.mean[place]
    return 2.0 * raw if own[place].startswith("vol") else 2.0 * np.log(np.maximum(raw, 1e-6) / Q80)


def _scored(
    trained: Float[np.ndarray, "W A"],
    asked: Float[np.ndarray, "V A"],
    label: Float[np.ndarray, "W A"],
    truth: Float[np.ndarray, "V A"],
    counts: Bool[np.ndarray, "W A"],
    counted: Bool[np.ndarray, "V A"],
) -> dict[str, list[float]]:
    """Score forecasts of a log variance; scale and error are those of the training span."""
    from scipy.stats import norm

    error = (label - trained)[counts]
    losses = qlike(truth, asked, variance_factor(label[counts], trained[counts]))
    edges = np.quantile(label[counts], [1 / 3, 2 / 3])
    below = norm.cdf((edges[:, None, None] - asked - error.mean()) / error.std())
    chances = np.stack([below[0], below[1] - below[0], 1.0 - below[1]])
    third = np.searchsorted(edges, truth)
    loss = -np.log(np.clip(np.take_along_axis(chances, third[None], axis=0)[0], 1e-12, 1.0))
    weeks = counted.any(axis=1)
    return {
        name: [
            float(row[here].mean()) for row, here in zip(each[weeks], counted[weeks], strict=True)
        ]
        for name, each in (("qlike", losses), ("log_loss", loss))
    }


@dataclass(frozen=True)
class Skill:
    """One figure of a forecast, over the validation weeks of all folds.

    Examples:
        >>> Skill.of([0.2, 0.4], [0.3, 0.3]).value
        0.30000000000000004
    """

    value: float
    difference: float
    """To the head of the first variant, in the same weeks."""
    error: float
    """Newey-West standard error of the difference."""

    @classmethod
    def of(cls, weeks: list[float], first: list[float]) -> "Skill":
        """Average the weeks, and compare them with those of the first variant's head."""
        gain = np.array(weeks) - np.array(first)
        return cls(float(np.mean(weeks)), *mean_with_error(gain, LAGS))


Skills = dict[str, dict[str, dict[str, Skill]]]
"""Variant -> `head` or `direct` -> `qlike` or `log_loss` -> figure."""


def joined_skills(found: Mapping[str, Sequence[Mapping[str, Mapping[str, list[float]]]]]) -> Skills:
    """Put the folds of each variant one after the other.

    Args:
        found: variant -> of `volatility_skill`, fold by fold; all variants have the same folds.

    Returns:
        Figures of each variant beside the head of the first one.
    """
    weeks = {
        variant: {
            way: {name: [value for fold in folds for value in fold[way][name]] for name in names}
            for way, names in folds[0].items()
        }
        for variant, folds in found.items()
    }
    first = next(iter(weeks.values()))[HEAD]
    return {
        variant: {
            way: {name: Skill.of(values, first[name]) for name, values in by_name.items()}
            for way, by_name in ways.items()
        }
        for variant, ways in weeks.items()
    }
