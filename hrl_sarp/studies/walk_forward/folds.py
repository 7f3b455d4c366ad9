"""The folds of a walk-forward, and the configuration of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import ConfigError

KINDS = ("risk", "growth")
"""Objectives, which are variants by their name alone."""


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
    """Values of the section `walk_forward` that the command line replaces."""
    variants: Mapping[str, Path | None]
    """Name -> file of a variant; None for an objective (`KINDS`)."""
    phases: tuple[int, ...]
    """In their order, from 1 on."""
    changes: Mapping[str, Any]
    """Further values, laid over all files."""

    def base(self, market: str) -> RunConfig:
        """Return the configuration of a market before its years are cut into folds.

        Args:
            market: profile.

        Returns:
            The merged configuration, with the market's own spans.
        """
        overrides = {**self.changes, "walk_forward": dict(self.years)}
        return load_config(market=market, experiment=self.experiment, overrides=overrides)

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
                f"{first} to {last} and --folds {count}; correct the years"
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
            ConfigError: if the spans of the market's profile are no days.
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
            "walk_forward": dict(self.years),
            "market_profile": {"spans": spans, "macro_features": section.macro_features},
            "evaluation": {
                "baselines": section.baselines,
                "rebalance": section.rebalance,
                "volatility_targets": section.volatility_targets,
            },
        }
        file = self._file(variant)
        objective = {} if file else {"objective": {"kind": variant}}
        return load_config(
            market=fold.market,
            experiment=self.experiment,
            own_file=file,
            overrides=_merged(_merged(dict(self.changes), objective), overlay),
        )

    def _file(self, variant: str) -> Path | None:
        file = self.variants.get(variant)
        if file is None and variant not in KINDS:
            raise ConfigError(
                f"--variant {variant}: expected one of {', '.join(KINDS)} or NAME=FILE with a YAML "
                "file of values, found neither"
            )
        return file


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the second mapping over the first, key by key."""
    both = {
        key: _merged(first[key], second[key])
        for key in first.keys() & second.keys()
        if isinstance(first[key], Mapping) and isinstance(second[key], Mapping)
    }
    return {**first, **second, **both}
