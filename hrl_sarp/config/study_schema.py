"""Schema of the walk-forward study: its folds, features, baselines and intervals."""

from typing import Literal

from pydantic import Field

from hrl_sarp.config.market_schema import Count, Positive, Section
from hrl_sarp.config.objective_schema import RiskBaselineName


class WalkForwardConfig(Section):
    """Expanding folds: each trains on all years before its validation, and is tested after it."""

    first_test_year: int
    """Calendar year in which the first test begins."""
    last_test_year: int
    """Calendar year in which the last test ends; it may cut the last fold short."""
    test_years: Count
    """Calendar years of each test."""
    validation_years: Count
    """Calendar years between training and test."""
    macro_features: list[str] = Field(min_length=1)
    """Macro features of every fold, in place of the market's. Those that are made from prices alone
    move in every training span; a published series may begin after it."""
    baselines: list[Literal["equal_weight", RiskBaselineName]] = Field(min_length=1)
    """Baselines that are rolled out once a fold."""
    rebalance: Literal["weekly", "monthly"]
    """When they trade. Weekly is the agent's own clock."""
    volatility_targets: list[Positive]
    """Annual volatilities at which the `volatility_target` baselines hold 1/N."""
    block_days: Count
    """Mean block of the stationary bootstrap behind the intervals."""
    samples: Count
    """Resampled histories behind the intervals."""
    confidence: float = Field(gt=0.5, lt=1)
    """Confidence of the intervals in the tables."""
