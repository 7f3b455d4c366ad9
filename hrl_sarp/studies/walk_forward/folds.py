"""The folds of a walk-forward, and the configuration of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hrl_sarp.config.loading import (
    COMMAND_LINE,
    DEFAULT_CONFIG_DIR,
    flattened,
    load_config,
)
from hrl_sarp.config.market_schema import SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import StudyConfig
from hrl_sarp.errors import ConfigError

KINDS = ("risk", "growth")
"""Objectives, which are variants by their name alone."""
COMMON = ("market_profile", "data", "risk", "evaluation", "walk_forward", "stress")
"""Sections that agents and baselines share. One set of baselines stands beside all variants, so no
variant changes them."""
OF_THE_FOLD = (
    *("market", "seed", "threads", "market_profile.spans", "market_profile.macro_features"),
    *("evaluation.baselines", "evaluation.rebalance", "evaluation.volatility_targets"),
)
"""Dotted keys that `Recipe.config` sets for each cell; values that a study gave would not count."""
FIRST_DAY = "market_profile.spans.train.start"
"""The one value of the spans that a fold takes from its market."""


@dataclass(frozen=True)
class Fold:
    """One market and the calendar years of one test.

    Examples:
        >>> Fold("us", 2005, 2007).name
        'us-2005-2007'
    """

    market: str
    first: int
    last: int

    @property
    def name(self) -> str:
        """In the names of cells, and of its span in the trial log."""
        return f"{self.market}-{self.first}-{self.last}"


@dataclass(frozen=True)
class Recipe:
    """What every fold shares: the layers of its configuration and the years that were asked for.

    Examples:
        >>> recipe = Recipe(None, {"test_years": 5}, {"risk": None}, (1, 2), {})
        >>> [fold.name for fold in recipe.folds("us", count=2)]
        ['us-2005-2009', 'us-2010-2014']
    """

    experiment: str | None
    years: Mapping[str, int]
    """Values of the section `walk_forward` that the study replaces."""
    variants: Mapping[str, Mapping[str, Any] | None]
    """Name -> values of a variant, laid over all others; an objective (`KINDS`) needs none."""
    phases: tuple[int, ...]
    """In their order, from 1 on."""
    changes: Mapping[str, Any]
    """Further values, laid over all files."""
    origin: str = COMMAND_LINE
    """Where variants and changes stand, for messages."""
    config_dir: Path = DEFAULT_CONFIG_DIR
    impact_coefficient: float = 0.0
    """Of the layer with square-root impact; 0 leaves it out."""

    @classmethod
    def of(cls, study: StudyConfig, origin: str, config_dir: Path) -> "Recipe":
        """Make the recipe of a study.

        Args:
            study: as its file says.
            origin: name of the file.
            config_dir: folder of the configuration.

        Returns:
            The recipe; `config` tells whether its values fit.
        """
        years = study.folds.model_dump(exclude={"count"}, exclude_none=True)
        phases = tuple(study.phases)
        layers = study.variants, phases, study.values
        impact = study.impact_coefficient
        return cls(study.experiment, years, *layers, origin, config_dir, impact)

    def base(self, market: str) -> RunConfig:
        """Return the configuration of a market before its years are cut into folds.

        Args:
            market: profile.

        Returns:
            The merged configuration, with the market's own spans.

        Raises:
            ConfigError: if the changes set what the study sets itself.
        """
        self._require_free(self.changes)
        return self._load(market, _merged(self.changes, {"walk_forward": self.years}))

    def folds(self, market: str, count: int | None) -> list[Fold]:
        """Cut the test years of a market into folds.

        Args:
            market: profile.
            count: of folds, from the first; None takes all.

        Returns:
            Folds in their order; the last one ends with the last test year.

        Raises:
            ConfigError: if that is no fold at all.
        """
        section = self.base(market).walk_forward
        first, last = section.first_test_year, section.last_test_year
        starts = range(first, last + 1, section.test_years)
        if not starts or (count is not None and count < 1):
            raise ConfigError(
                f"walk_forward of market '{market}': expected at least one fold, found tests from "
                f"{first} to {last} and a count of {count}; correct the years"
            )
        chosen = list(starts)[:count]
        return [Fold(market, year, min(year + section.test_years - 1, last)) for year in chosen]

    def config(self, fold: Fold, variant: str, seed: int) -> RunConfig:
        """Return the configuration of a cell, on one thread.

        Training begins with the market's own training span, validation is the last years before the
        test, and both are purged as every split is.

        Args:
            fold: its market and test years.
            variant: of the recipe.
            seed: of the cell.

        Returns:
            The merged configuration with the spans of the fold.

        Raises:
            ConfigError: if the spans of the market's profile are no days, or if the variant or the
                changes set what the study sets itself.
        """
        base = self.base(fold.market)
        section, own_spans = base.walk_forward, base.market_profile.spans
        if not isinstance(own_spans, SpansConfig):
            raise ConfigError(
                f"walk-forward: the market profile {fold.market} has spans as shares of the data; "
                "expected `market_profile.spans.train.start`, the first day of every fold"
            )
        begin = own_spans.train.start
        validation = fold.first - section.validation_years
        spans = {
            "train": {"start": begin, "end": date(validation - 1, 12, 31)},
            "validation": {"start": date(validation, 1, 1), "end": date(fold.first - 1, 12, 31)},
            "test": {"start": date(fold.first, 1, 1), "end": date(fold.last, 12, 31)},
        }
        overlay = {
            "seed": seed,
            "threads": 1,
            "walk_forward": self.years,
            "market_profile": {"spans": spans, "macro_features": section.macro_features},
            "evaluation": {
                "baselines": section.baselines,
                "rebalance": section.rebalance,
                "volatility_targets": section.volatility_targets,
            },
        }
        values = _merged(self.changes, self._variant(variant))
        self._require_free(values)
        return self._load(fold.market, _merged(values, overlay))

    def _load(self, market: str, values: Mapping[str, Any]) -> RunConfig:
        return load_config(
            self.config_dir, market, self.experiment, overrides=values, origin=self.origin
        )

    def _variant(self, name: str) -> Mapping[str, Any]:
        """Return the values of a variant, which are none that baselines have, too."""
        values = self.variants.get(name) or {}
        common = [key for key in COMMON if key in values]
        if common:
            raise ConfigError(
                f"variant {name} sets {', '.join(common)} [{self.origin}], which baselines share "
                "with all variants; set it in `values`"
            )
        if name in KINDS:
            return _merged({"objective": {"kind": name}}, values)
        if not values:
            raise ConfigError(
                f"variant {name} has no values [{self.origin}]: expected some, or a name that is "
                f"an objective: {', '.join(KINDS)}"
            )
        return values

    def _require_free(self, values: Mapping[str, Any]) -> None:
        """Refuse values that the study sets itself."""
        own = (*OF_THE_FOLD, *(f"walk_forward.{name}" for name in self.years))
        lost = [
            key
            for key, value in flattened(values).items()
            if key != FIRST_DAY and value != {} and any(_overlap(key, one) for one in own)
        ]
        if lost:
            raise ConfigError(
                f"{', '.join(sorted(lost))} [{self.origin}]: the study sets this itself, from its "
                "markets, folds and seeds and the section `walk_forward`; leave it out"
            )


def _overlap(first: str, second: str) -> bool:
    """Say whether one of two dotted keys is the other or stands inside it."""
    short, long = sorted((f"{first}.", f"{second}."))  # a beginning comes before what it begins
    return long.startswith(short)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the second mapping over the first, key by key."""
    both = {
        key: _merged(first[key], second[key])
        for key in first.keys() & second.keys()
        if isinstance(first[key], Mapping) and isinstance(second[key], Mapping)
    }
    return {**first, **second, **both}
