"""Schema of the walk-forward: what all studies share, and what the file of one study holds."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

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


class StudyFoldsConfig(Section):
    """Folds of a study. A value that is null is that of each market's section `walk_forward`."""

    first_test_year: int | None
    """Calendar year in which the first test begins."""
    last_test_year: int | None
    """Calendar year in which the last test ends."""
    test_years: Count | None
    """Calendar years of each test."""
    validation_years: Count | None
    """Calendar years between training and test."""
    count: Count | None
    """Folds of each market, from the first; null takes all."""


class StudyConfig(Section):
    """A file of `config/studies/`: all that the command `evaluate` runs, and nothing of its own."""

    experiment: str | None
    """File of `config/experiments/` that is laid over the defaults; null lays none."""
    markets: dict[str, str | None] = Field(min_length=1)
    """Profile of `config/markets/` -> folder of its collected data; null is the bundled sample."""
    values: dict[str, Any]
    """Values of the configuration that every variant has, laid over the experiment."""
    variants: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_]+$")], dict[str, Any] | None] = Field(
        min_length=1
    )
    """Name -> values of the configuration, laid over all others. `risk` and `growth` are the two
    objectives by their name alone; null gives them no further values."""
    folds: StudyFoldsConfig
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(min_length=1)
    """Seeds of each fold and variant; the agent is their mean decision."""
    phases: list[int] = Field(min_length=1, max_length=5)
    """Phases that each seed runs: 1, or 1 and 2, and so on up to all five."""

    @field_validator("variants")
    @classmethod
    def _is_no_word_of_ours(cls, found: dict[str, Any]) -> dict[str, Any]:
        if "baselines" in found:
            raise ValueError("`baselines` names the cells of the baselines, call it otherwise")
        return found

    @field_validator("seeds")
    @classmethod
    def _is_each_seed_once(cls, found: list[int]) -> list[int]:
        if len(set(found)) < len(found):
            raise ValueError("expected each seed once")
        return found

    @field_validator("phases")
    @classmethod
    def _follow_each_other(cls, found: list[int]) -> list[int]:
        if found != list(range(1, len(found) + 1)):
            raise ValueError("expected the phases from 1 on, none left out")
        return found
