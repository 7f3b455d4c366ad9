"""Schema of what the agents learn, and of the risk model that their priors and inputs come from."""

from typing import Literal

from pydantic import Field

from hrl_sarp.config.market_schema import Count, Fraction, Positive, Section
from hrl_sarp.config.own_code import DottedName

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


class MacroRewardConfig(Section):
    """Weekly reward in % log growth over the 1/N benchmark."""

    concentration_weight: float = Field(ge=0)
    """Times (Herfindahl index of the goal - 1 / listed sectors)."""
    drawdown_weight: float = Field(ge=0)
    """Times 100 x the increase of active drawdown beyond the threshold."""
    drawdown_threshold: Fraction
    """Active drawdown, a fraction, up to which there is no penalty."""


class MicroRewardConfig(Section):
    """Daily reward in % of a gain, less a penalty for leaving the goal."""

    gain: Literal["selection", "growth", "reached"]
    """Of the objective `growth`. selection: log growth over that of the own sectors; growth: log
    growth over the 1/N benchmark, for a micro agent without a macro agent's sectors; reached: 0 at
    the goal, else -1, no market."""
    alignment_weight: float = Field(ge=0)
    """Times (1 - alignment of achieved and desired sector weights); not of `reached`."""
    reached_distance: Fraction
    """`reached`: largest half L1 distance of achieved and desired sector weights that counts."""


class RewardsConfig(Section):
    """Terms of the user's own in the rewards of phases 3 to 5."""

    extra: DottedName | None
    """A function of the user's: from a `StepResult` and the `MarketTensors` to a tensor (B,) in %,
    added to the reward of each session; null for none."""
