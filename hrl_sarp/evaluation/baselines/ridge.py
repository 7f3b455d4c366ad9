"""Ridge regression of stock labels on the market's features: the bar every network has to clear."""

import numpy as np
from jaxtyping import Float

from hrl_sarp.agents import measures
from hrl_sarp.config.schema import EvaluationConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import MarketError
from hrl_sarp.features.labels import standardise_cross_section, stock_label


def fit_ridge(market: Market, span: DayRange, section: EvaluationConfig) -> Float[np.ndarray, " F"]:
    """Fit next-`ridge_label_days` returns, standardised across each day's stocks, in closed form.

    Only rows whose label ends inside the span are used. Both sides are centred by day, so there is
    no intercept. The penalty is times rows x mean feature variance.
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
            "'ridge' out of evaluation.baselines"
        )
    target = standardise_cross_section(labels[rows], mask)
    return measures.fit_ridge(features, target, mask, section.ridge_penalty)
