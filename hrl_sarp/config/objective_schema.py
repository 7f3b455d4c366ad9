"""Schema of what the agents learn, and of the risk model that their priors and inputs come from."""

from typing import Literal

from hrl_sarp.config.market_schema import Count, Fraction, Positive, Section

PriorName = Literal[
    "equal_weight",
    "equal_risk_contribution",
    "minimum_variance_ridge",
    "maximum_diversification",
    "sector_minimum_variance",
]
"""Classical portfolios that need no forecast of returns."""
StockPriorName = Literal[
    "equal_weight",
    "equal_risk_contribution",
    "minimum_variance_ridge",
    "maximum_diversification",
]

RiskBaselineName = Literal[
    "equal_weight_neutral",
    "equal_risk_contribution",
    "equal_risk_contribution_neutral",
    "minimum_variance_ridge",
    "minimum_variance_ridge_neutral",
    "maximum_diversification",
    "maximum_diversification_neutral",
    "sector_minimum_variance",
    "sector_minimum_variance_neutral",
    "volatility_target_ewma",
    "volatility_target_har",
    "volatility_target_implied",
]
"""Baselines of risk: those portfolios with all the wealth or at neutral exposure, and 1/N at a
volatility."""


class ObjectiveConfig(Section):
    """What rewards measure, at both levels."""

    kind: Literal["risk", "growth"]
    """risk: premium of the exposure less costs and variance; growth: log growth over 1/N."""
    risk_aversion: Positive
    """Gamma: variance counts gamma / 2 times."""
    invested_share: Fraction
    """Exposure that is best at normal variance; it sets the premium of the objective."""
    normal_variance: Literal["half_life", "expanding_median"]
    """How the normal variance of 1/N is estimated from the past of each day."""
    normal_variance_years: Positive
    """Half-life of the estimate, or the years of a window whose median expands."""


class RiskModelConfig(Section):
    """Forecast of variances and correlations, and the classical portfolios made of it."""

    sector_prior: PriorName
    """Portfolio whose sector sums the untrained macro agent holds."""
    stock_prior: StockPriorName
    """Portfolio whose shares inside each sector the untrained micro agent holds."""
    volatility_half_life_days: Positive
    """Half-life of the stocks' variances."""
    correlation_half_life_days: Positive
    """Half-life of the correlations."""
    correlation_shrinkage: Fraction
    """Share by which correlations move to their mean."""
    exposure_decay: Fraction
    """Daily decay of the variance forecast that sets the neutral exposure."""
    min_history_days: Count
    """Sessions before the first forecast; until then all stocks count as equally risky."""
    input_clip: Positive
    """Bound of the standardised risk inputs, which keep their level."""
