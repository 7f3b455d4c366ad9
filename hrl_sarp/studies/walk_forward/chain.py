"""The folds of a market, one after the other: out-of-sample series of every policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from hrl_sarp.data.session_counts import session_counts
from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.studies.cell import RESULT, Cell, has_result, read_file
from hrl_sarp.studies.walk_forward.cells import VOLATILITY, WalkForward
from hrl_sarp.studies.walk_forward.folds import Fold
from hrl_sarp.studies.walk_forward.ledger import FRICTIONS, MAIN, Ledger, read_ledger
from hrl_sarp.studies.walk_forward.risk_seen import Skills, joined_skills


@dataclass(frozen=True)
class Series:
    """Out-of-sample sessions of one policy in one market; K columns are its seeds."""

    dates: Shaped[np.ndarray, " D"]
    risk_free: Float[np.ndarray, " D"]
    fold: Int[np.ndarray, " D"]
    """Number of the fold of each session."""
    net: Float[np.ndarray, "D K"]
    """Simple returns net of costs."""
    invested: Float[np.ndarray, "D K"]
    """Share of wealth in stocks."""
    turnover: Float[np.ndarray, "D K"]
    cost: Float[np.ndarray, "D K"]
    """Share of wealth that trades took."""
    sessions_per_year: int
    """Of the market's calendar."""

    def of_sessions(self, chosen: Bool[np.ndarray, " D"]) -> "Series":
        """Return some of the sessions."""
        columns = {
            name: values[chosen]
            for name, values in vars(self).items()
            if isinstance(values, np.ndarray)
        }
        return replace(self, **columns)

    def of_fold(self, number: int) -> "Series":
        """Return the sessions of one fold."""
        return self.of_sessions(self.fold == number)

    def exposure(self) -> Float[np.ndarray, " D"]:
        """Return the mean exposure over the seeds and the sessions of each session's fold."""
        by_fold = [self.invested[self.fold == number].mean() for number in np.unique(self.fold)]
        return np.array(by_fold)[np.unique(self.fold, return_inverse=True)[1]]


def at_exposure_of(series: Series, other: Series) -> Series:
    """Dilute a series with cash to the mean exposure that another one has in the same fold.

    A mean above its own is reached by borrowing at the rate of cash. Turnover and costs scale, too.
    """
    factor = (other.exposure() / series.exposure())[:, None]
    cash = series.risk_free[:, None]
    return replace(
        series,
        net=cash + factor * (series.net - cash),
        invested=factor * series.invested,
        turnover=factor * series.turnover,
        cost=factor * series.cost,
    )


def on_path_of(series: Series, other: Series) -> Series:
    """Dilute one series with cash to the exposure that another one has on each session.

    What is left between the two is not the timing of cash. Moving the exposure costs nothing here,
    which favours the diluted series. A session without stocks stays one. Both have one column.
    """
    nothing = np.zeros_like(series.invested)
    factor = np.divide(other.invested, series.invested, out=nothing, where=series.invested > 0)
    cash = series.risk_free[:, None]
    return replace(
        series,
        net=cash + factor * (series.net - cash),
        invested=factor * series.invested,
        turnover=factor * series.turnover,
        cost=factor * series.cost,
    )


@dataclass(frozen=True)
class Chain:
    """The finished folds of one market and variant."""

    folds: tuple[Fold, ...]
    baselines: tuple[Ledger, ...]
    """One a fold."""
    seeds: tuple[tuple[Ledger, ...], ...]
    """One a fold and seed."""
    ensembles: tuple[Ledger, ...]
    """One a fold."""
    sessions_per_year: int
    """Of the market's calendar."""

    @property
    def _ledgers(self) -> list[Ledger]:
        of_seeds = [ledger for ledgers in self.seeds for ledger in ledgers]
        return [*self.baselines, *of_seeds, *self.ensembles]

    @property
    def frictions(self) -> tuple[str, ...]:
        """Frictions that all cells have, in the order of `FRICTIONS`."""
        ledgers = self._ledgers
        return tuple(each for each in FRICTIONS if all(each in one.frictions for one in ledgers))

    @property
    def n_earlier(self) -> int:
        """Count the cells of an earlier version, which kept no distances and no impact."""
        return sum(not ledger.distance for ledger in self._ledgers)

    def distance(self, name: str) -> dict[str, float]:
        """Measure from which rules the weights of a policy of the ensembles differ, and how far.

        Args:
            name: of the policy.

        Returns:
            Rule -> mean share of wealth that lies elsewhere, over the sessions of all folds; empty
            if a fold has none.
        """
        found: dict[str, float] = {}
        for rule in self.ensembles[0].distance:
            if all(rule in one.distance for one in self.ensembles):
                parts = [one.distance[rule][:, one.column(name)] for one in self.ensembles]
                found[rule] = float(np.concatenate(parts).mean())
        return found

    def baseline(self, name: str, friction: str = MAIN) -> Series:
        """Chain a baseline."""
        return self._chained([[ledger] for ledger in self.baselines], name, friction)

    def by_seed(self, name: str, friction: str = MAIN) -> Series:
        """Chain a policy of every seed."""
        return self._chained(self.seeds, name, friction)

    def ensemble(self, name: str, friction: str = MAIN) -> Series:
        """Chain a policy of the ensembles."""
        return self._chained([[ledger] for ledger in self.ensembles], name, friction)

    def chosen(self, names: Sequence[str], friction: str = MAIN) -> Series:
        """Chain another baseline in each fold; a name that is no baseline is of the ensemble."""
        ledgers = [
            base if name in base.names else whole
            for name, base, whole in zip(names, self.baselines, self.ensembles, strict=True)
        ]
        return chained([[one] for one in ledgers], names, friction, self.sessions_per_year)

    def _chained(self, folds: Sequence[Sequence[Ledger]], name: str, friction: str) -> Series:
        return chained(folds, [name] * len(folds), friction, self.sessions_per_year)


def chained(
    folds: Sequence[Sequence[Ledger]],
    names: Sequence[str],
    friction: str,
    sessions_per_year: int,
) -> Series:
    """Put the folds of a policy one after the other.

    Args:
        folds: ledgers of each seed, fold by fold.
        names: of the policy in each fold.
        friction: one of `FRICTIONS` that all ledgers have.
        sessions_per_year: of the market's calendar.

    Returns:
        A column for each seed.
    """

    def column(one: Ledger, field: str, name: str) -> Float[np.ndarray, " D"]:
        found: np.ndarray = getattr(one, field)[one.frictions.index(friction)]
        return found[:, one.column(name)]

    def columns(field: str) -> Float[np.ndarray, "D K"]:
        return np.concatenate(
            [
                np.stack([column(one, field, name) for one in seeds], axis=1)
                for seeds, name in zip(folds, names, strict=True)
            ]
        )

    lengths = [len(seeds[0].dates) for seeds in folds]
    return Series(
        dates=np.concatenate([seeds[0].dates for seeds in folds]),
        risk_free=np.concatenate([seeds[0].risk_free for seeds in folds]),
        fold=np.repeat(np.arange(len(folds)), lengths),
        net=columns("net_return"),
        invested=columns("invested"),
        turnover=columns("turnover"),
        cost=columns("cost"),
        sessions_per_year=sessions_per_year,
    )


def read_chains(study: WalkForward) -> dict[str, dict[str, Chain]]:
    """Read the folds whose cells have all finished: variant -> market -> chain.

    Raises:
        MissingArtifactError: if no fold has finished.
    """
    found: dict[str, dict[str, Chain]] = {}
    for variant in study.recipe.variants:
        for market in study.data_dirs:
            folds = [
                fold
                for fold in study.folds.values()
                if fold.market == market and _has_finished(study, fold, variant)
            ]
            if folds:
                found.setdefault(variant, {})[market] = _read(study, folds, variant)
    if not found:
        raise MissingArtifactError(
            f"no fold in {study.folder} has finished its seeds and its ensemble; correct what "
            "failed, then repeat the command without --summary-only"
        )
    return found


def read_skills(study: WalkForward, chains: Mapping[str, Mapping[str, Chain]]) -> dict[str, Skills]:
    """Read how well the variants' inputs tell volatility, where the first variant's cells say it.

    Args:
        study: of the chains.
        chains: variant -> market -> chain.

    Returns:
        Market -> skills of the variants with the folds of the first one. Markets of the bundled
        sample, and cells of an earlier version, have none.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    base = next(iter(chains.values()))
    for variant, by_market in chains.items():
        for market, chain in by_market.items():
            cells = [study.ensemble(fold, variant) for fold in chain.folds]
            files = [read_file(study.folder / cell.name / RESULT) for cell in cells]
            told = [file["measures"].get(VOLATILITY) for file in files]
            if market in base and base[market].folds == chain.folds and all(told):
                found.setdefault(market, {})[variant] = told
    first = next(iter(chains))
    return {
        market: joined_skills(by_variant)
        for market, by_variant in found.items()
        if first in by_variant
    }


def _has_finished(study: WalkForward, fold: Fold, variant: str) -> bool:
    last = study.ensemble(fold, variant)
    return all(has_result(study, cell) for cell in (*study.needs(last), last))


def _read(study: WalkForward, folds: Sequence[Fold], variant: str) -> Chain:
    def ledger(cell: Cell) -> Ledger:
        return read_ledger(study.folder / cell.name)

    return Chain(
        folds=tuple(folds),
        baselines=tuple(ledger(study.baselines(fold)) for fold in folds),
        seeds=tuple(tuple(map(ledger, study.trained(fold, variant))) for fold in folds),
        ensembles=tuple(ledger(study.ensemble(fold, variant)) for fold in folds),
        sessions_per_year=session_counts(study.recipe.base(folds[0].market).market_profile).year,
    )
