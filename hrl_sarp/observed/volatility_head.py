"""What a linear head on an encoder's embedding says of a stock's volatility in the next week.

The embedding is that of the window which ends at the close of a day. The head is a ridge
regression, fitted on the week ends of a fold's training span. Agents observe what it says in place
of the embedding: two columns instead of many.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from loguru import logger

from hrl_sarp.config.encoder_schema import PanelConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.errors import MarketError
from hrl_sarp.features.labels import mean_variance, next_variance
from hrl_sarp.observed.forecasts import Standard
from hrl_sarp.run.files import sha256_plain
from hrl_sarp.run.trials import Span, Trial, TrialLog, prices_hash

HORIZON = 5
"""Sessions after a close whose mean variance is forecast."""
FEWEST_ROWS = 10
"""Stocks and week ends for each number of an embedding, below which no head is fitted."""
METRIC = "head_qlike"
"""Of the penalties in the trial log."""


@dataclass(frozen=True)
class VolatilityHead:
    """A linear function of an embedding, and the unit in which agents see it.

    Examples:
        >>> unit = Standard(np.zeros(2), np.ones(2), clip=5.0)
        >>> head = VolatilityHead(np.array([2.0, 0.0]), -8.0, unit, 0.01, "2014-12-31")
        >>> head(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([-4.0, -4.0])).tolist()
        [[-3.0, 1.0], [0.0, 0.0]]
    """

    weights: Float[np.ndarray, " E"]
    """Of the log of the mean variance of the next `HORIZON` sessions."""
    level: float
    """That log where the embedding is 0."""
    standard: Standard
    penalty: float
    """That the last part of the training span chose."""
    fitted_to: str
    """Last day of the training span."""

    def __call__(
        self, embedded: Float[np.ndarray, "*shape E"], past: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape 2"]:
        """Return what agents see, float32, in deviations of the training span.

        Args:
            embedded: embeddings; 0 in all columns where there is no window.
            past: of `past_volatility` on the same days.

        Returns:
            Log of the volatility of a session in the next week, and its distance to that in the
            last one. 0 without a window; the second is 0 where the last week is unknown, too.
        """
        return self.standard(self.raw(embedded, past))

    def raw(
        self, embedded: Float[np.ndarray, "*shape E"], past: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape 2"]:
        """Return the same before it is standardised; NaN where it is unknown."""
        # summed row by row: a product of matrices would round by the number of rows
        said = 0.5 * ((embedded * self.weights).sum(axis=-1) + self.level)
        said = np.where(embedded.any(axis=-1), said, np.nan)
        return np.stack([said, said - past], axis=-1)

    def to_payload(self) -> dict[str, Any]:
        """Return plain values, from which `from_payload` makes the same head."""
        return {
            "weights": self.weights.tolist(),
            "level": self.level,
            "mean": self.standard.mean.tolist(),
            "deviation": self.standard.deviation.tolist(),
            "clip": self.standard.clip,
            "penalty": self.penalty,
            "fitted_to": self.fitted_to,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> "VolatilityHead":
        """Read `to_payload`."""
        mean, deviation = (np.array(payload[name]) for name in ("mean", "deviation"))
        standard = Standard(mean, deviation, payload["clip"])
        weights = np.array(payload["weights"])
        return cls(weights, payload["level"], standard, payload["penalty"], payload["fitted_to"])


def head_columns(kind: EncoderKind) -> tuple[str, ...]:
    """Name the columns of a head, for example `transformer volatility 5d`."""
    return f"{kind} volatility {HORIZON}d", f"{kind} volatility {HORIZON}d over past"


def past_volatility(market: Market) -> Float[np.ndarray, "T A"]:
    """Return the log of the volatility of a session in the week up to each day.

    NaN as in `mean_variance`.
    """
    return 0.5 * np.log(mean_variance(market, HORIZON))


def labelled_weeks(
    market: Market, span: DayRange, variance: Float[np.ndarray, "T A"]
) -> tuple[Int[np.ndarray, " W"], Bool[np.ndarray, "W A"]]:
    """Return the week ends of a span whose labels lie inside it, and which stocks count.

    Args:
        market: with its universe.
        span: of rows.
        variance: of `next_variance`.
    """
    rows = np.arange(span.start, max(span.start, span.stop - HORIZON))
    rows = rows[market.is_week_end[rows]]
    return rows, market.eligible[rows] & market.tradable[rows] & np.isfinite(variance[rows])


def qlike(
    truth: Float[np.ndarray, "*shape"], said: Float[np.ndarray, "*shape"], factor: float
) -> Float[np.ndarray, "*shape"]:
    """Compute QLIKE of forecast variances; 0 for a perfect forecast.

    Args:
        truth: log of the variance that came.
        said: log of the forecast.
        factor: on all forecasts, as `variance_factor` measures it on another span.
    """
    ratio = np.exp(truth - said) / factor
    return ratio - np.log(ratio) - 1.0


def variance_factor(truth: Float[np.ndarray, " n"], said: Float[np.ndarray, " n"]) -> float:
    """Return the factor that makes forecast variances right in the mean: logs are fitted."""
    return float(np.exp(truth - said).mean())


def fit_head(
    kind: EncoderKind,
    embeddings: Float[np.ndarray, "T A E"],
    market: Market,
    config: PanelConfig,
    content: str,
) -> VolatilityHead:
    """Fit the head of an encoder on the training span of a market.

    The last `val_share` of that span, with labels of its own, chooses the penalty; each one that
    was tried is a line of the trial log. Then all of the span is fitted.

    Args:
        kind: of the encoder.
        embeddings: of the market's windows, 0 without one; may be mapped from a file.
        market: whose training span is read, and nothing after it.
        config: penalties, and the share that chooses.
        content: hash of the table of embeddings.

    Raises:
        MarketError: if the training span has too few windows.
    """
    train = market.split.train
    cut = train.stop - round(config.val_share * len(train))
    early, late = DayRange(train.start, cut), DayRange(cut, train.stop)
    first, last, whole = (_Lessons.of(market, span, embeddings) for span in (early, late, train))
    n_least = FEWEST_ROWS * embeddings.shape[2]
    if min(len(first.truth), len(last.truth)) < n_least:
        raise MarketError(
            f"encoders.shows: volatility: expected at least {n_least} windows of {kind} at week "
            f"ends of the first {1 - config.val_share:.0%} of training and of the rest, found "
            f"{len(first.truth)} and {len(last.truth)}; collect a longer history or show embeddings"
        )
    losses = {penalty: _loss(first, last, penalty) for penalty in config.head_penalties}
    _log_trials(kind, content, losses, market, late)
    best = min(losses, key=lambda penalty: losses[penalty])
    logger.info(
        f"volatility head of {kind}: ridge on {len(whole.truth):,} windows of training; penalty "
        f"{best:g} of {', '.join(f'{p:g}' for p in losses)}, QLIKE {losses[best]:.4f} on the last "
        f"{config.val_share:.0%} of training"
    )
    weights, level = whole.ridge(best)
    plain = Standard(np.zeros(2), np.ones(2), config.clip)
    head = VolatilityHead(weights, level, plain, best, str(market.dates[train.stop - 1]))
    unit = Standard.fit(head.raw(whole.embedded, whole.past), config.clip)
    return replace(head, standard=unit)


@dataclass(frozen=True)
class _Lessons:
    """Windows that end with a week of a span, whose next week lies in it, too."""

    embedded: Float[np.ndarray, "n E"]
    past: Float[np.ndarray, " n"]
    truth: Float[np.ndarray, " n"]
    """Log of the variance that followed."""

    @classmethod
    def of(
        cls, market: Market, span: DayRange, embeddings: Float[np.ndarray, "T A E"]
    ) -> "_Lessons":
        variance = next_variance(market, HORIZON)
        rows, counts = labelled_weeks(market, span, variance)
        embedded = embeddings[rows]
        counts = counts & embedded.any(axis=2)
        past = past_volatility(market)[rows][counts]
        return cls(embedded[counts].astype(np.float64), past, np.log(variance[rows][counts]))

    def ridge(self, penalty: float) -> tuple[Float[np.ndarray, " E"], float]:
        """Fit weights and level to all rows."""
        from sklearn.linear_model import Ridge  # only fitting needs it

        fitted = Ridge(penalty * len(self.truth), solver="cholesky").fit(self.embedded, self.truth)
        return fitted.coef_, float(fitted.intercept_)


def _loss(first: _Lessons, last: _Lessons, penalty: float) -> float:
    """Fit a head on some rows and return its QLIKE on others."""
    weights, level = first.ridge(penalty)
    factor = variance_factor(first.truth, first.embedded @ weights + level)
    return float(qlike(last.truth, last.embedded @ weights + level, factor).mean())


def _log_trials(
    kind: EncoderKind, content: str, losses: Mapping[float, float], market: Market, late: DayRange
) -> None:
    where, span = prices_hash(market), Span.of_rows(market, late, "train")
    TrialLog().add(
        *(
            Trial(
                "selection",
                f"volatility head of {kind}, penalty {penalty:g}",
                sha256_plain([kind, content, penalty]),
                where,
                span,
                METRIC,
                loss,
                seed=0,
            )
            for penalty, loss in losses.items()
        )
    )
