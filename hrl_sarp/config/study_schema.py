"""Schema of studies (walk-forward, inner trainings, tuning) and of daily decisions."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

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


class CertificationConfig(Section):
    """Trainings inside the training span, which decide how far the agents are deployed."""

    folds: int = Field(ge=0)
    """Expanding folds of the training span. 0 trains nothing more and judges the run's own pair on
    its validation span."""
    seeds: Count
    """Trainings of each fold."""
    phases: int = Field(ge=2, le=5)
    """The inner trainings run phases 1 to this one."""
    length: float = Field(gt=0, le=1)
    """Factor on the epochs and steps of these phases."""
    first_share: float = Field(gt=0, lt=1)
    """Part of the training span that lies before the first fold's test."""
    validation_share: float = Field(gt=0, lt=1)
    """Part of what lies before a test that chooses networks instead of training them."""


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
    variants: dict[str, dict[str, Any] | None] = Field(min_length=1)
    """Name -> values of the configuration, laid over all others. `risk` and `growth` are the two
    objectives by their name alone; null gives them no further values."""
    folds: StudyFoldsConfig
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(min_length=1)
    """Seeds of each fold and variant; the agent is their mean decision."""
    phases: list[int] = Field(min_length=1, max_length=5)
    """Phases that each seed runs: 1, or 1 and 2, and so on up to all five."""
    impact_coefficient: float = Field(ge=0)
    """Square-root impact under which every policy is rolled out once more, on top of the market's
    costs and at its `capital`; 0 leaves it out."""

    @field_validator("variants")
    @classmethod
    def _names_folders(cls, found: dict[str, Any]) -> dict[str, Any]:
        wrong = [name for name in found if not re.fullmatch("[A-Za-z0-9_]+", name)]
        if wrong:
            raise ValueError(f"a name has letters, digits and underscores alone, not '{wrong[0]}'")
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


class FloatRange(Section):
    """Numbers that tuning tries for one value of the configuration."""

    low: float
    """Smallest one that is tried."""
    high: float
    """Largest one that is tried."""
    log: bool
    """Draw orders of magnitude alike, for values such as learning rates."""

    @model_validator(mode="after")
    def _goes_up(self) -> "FloatRange":
        _require_going_up(self.low, self.high, is_log=self.log)
        return self


class IntRange(Section):
    """Whole numbers that tuning tries for one value of the configuration."""

    low: int
    """Smallest one that is tried."""
    high: int
    """Largest one that is tried."""
    log: bool
    """Draw orders of magnitude alike, for values such as widths."""

    @model_validator(mode="after")
    def _goes_up(self) -> "IntRange":
        _require_going_up(self.low, self.high, is_log=self.log)
        return self


def _require_going_up(low: int | float, high: int | float, *, is_log: bool) -> None:
    if low >= high:
        raise ValueError(f"expected low below high, found {low:g} and {high:g}")
    if is_log and low <= 0:
        raise ValueError(f"expected low above 0 where log is true, found {low:g}")


def _require_each_key_once(*kinds: dict[str, Any]) -> None:
    keys = [key for kind in kinds for key in kind]
    if not keys:
        raise ValueError("expected at least one key in floats, ints or choices")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"expected each key once, found {', '.join(twice)} twice")


class SearchSpace(Section):
    """Values that `tune-forecaster` tries, by the dotted key of the setting that they replace."""

    floats: dict[str, FloatRange]
    """Key -> the numbers that are tried for it."""
    ints: dict[str, IntRange]
    """Key -> the whole numbers that are tried for it."""
    choices: dict[str, Annotated[list[Any], Field(min_length=2)]]
    """Key -> the values that are tried for it."""

    @model_validator(mode="after")
    def _is_a_space(self) -> "SearchSpace":
        _require_each_key_once(self.floats, self.ints, self.choices)
        return self


class TuningConfig(Section):
    """The file `config/tuning.yaml`: what the command `tune` tries, and on what it compares."""

    inner: CertificationConfig
    """Trainings of each trial: folds of training and validation together. The test span is not
    among them. Certification has its own, with the same meaning."""
    startup_trials: Count
    """Trials that are drawn at random and run to their end; later ones follow what these show."""
    floats: dict[str, FloatRange]
    """Dotted key of the configuration -> the numbers that are tried for it."""
    ints: dict[str, IntRange]
    """Dotted key of the configuration -> the whole numbers that are tried for it."""
    choices: dict[str, Annotated[list[Any], Field(min_length=2)]]
    """Dotted key of the configuration -> the values that are tried for it."""

    @model_validator(mode="after")
    def _is_a_search(self) -> "TuningConfig":
        if self.inner.folds * self.inner.seeds < 2:
            raise ValueError(
                "inner: expected at least two trainings, folds times seeds: a score is their mean "
                "less its standard error"
            )
        _require_each_key_once(self.floats, self.ints, self.choices)
        return self


class DriftConfig(Section):
    """When the inputs of a decision count as other ones than those of the training span."""

    sessions: Count
    """Last sessions that are compared with the training span; at most a fifth of that."""
    least_psi: float = Field(ge=0)
    """Population stability index up to which an input has not drifted."""
    stock_factor: float = Field(ge=1)
    """The index of a stock feature must also be so many times the largest of as many sessions in a
    row inside the training span."""
    market_factor: float = Field(ge=1)
    """The same for macro features, regime and risk inputs."""
    max_stock_share: float = Field(ge=0, le=1)
    """Largest share of the stock features that may have drifted."""
    max_market_share: float = Field(ge=0, le=1)
    """The same of macro features, regime and risk inputs together. Of these an input has also
    drifted if nearly all of its values lie outside the range of the training span."""


class DailyConfig(Section):
    """The file `config/daily.yaml`: when a decision of today is refused."""

    halted_sessions: int = Field(ge=0)
    """Sessions without a bar at the end of the data for which a stock counts as halted: it keeps
    its shares. After them it counts as gone."""
    max_missing_share: float = Field(ge=0, le=1)
    """Largest share of the universe that may lack a bar on the day of the decision."""
    max_stale_sessions: int = Field(ge=0)
    """Sessions of the exchange that may have closed since the last bar."""
    close_slack_minutes: int = Field(ge=0)
    """A session counts as closed so long after its close: sources need time to print the bar."""
    provisional_sessions: int = Field(ge=0)
    """Last collected sessions whose volumes and macro values `update-data` lets a vendor restate
    without `--accept-changes`."""
    series_gap_factor: float = Field(ge=1)
    """A published series has stopped when its last value is older than its longest gap so many
    times over."""
    warn_age_days: Count
    """Calendar days since the end of the training span after which a decision warns."""
    max_age_days: Count
    """The same, after which it refuses."""
    drift: DriftConfig
