"""What a table of forecasts comes to: measures by series, medians and means, tests, sentences.

Tests and sentences are by kind of series, because origins of different kinds are not comparable.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from hrl_sarp.forecasters.contract import LEVELS
from hrl_sarp.forecasters.evaluation import scores
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk
from hrl_sarp.forecasters.evaluation.comparison import (
    DieboldMariano,
    RankIC,
    diebold_mariano,
    multiple,
    origin_means,
    overlap_lags,
    rank_ic,
    significant,
)
from hrl_sarp.forecasters.evaluation.plan import INTERVALS, RollingPlan, Vintage, moment
from hrl_sarp.reporting.table import counted

NAIVE, DENSITY = LastValue().name, EwmaWalk().name
"""References of the tests: of absolute errors, and of ranked probability scores."""
BINS = 10
"""Bins of the histogram of levels at which values fell."""
Column = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Group:
    """All forecasts of one model for one kind of series.

    Tests are against `NAIVE` and `DENSITY`, with losses in multiples of each series' own scale,
    averaged over series and steps at every origin.

    Examples:
        >>> same = diebold_mariano(np.zeros(20), lags=0)
        >>> symbols = {"A": {"mae": 1.0}, "B": {"mae": 2.0}, "C": {"mae": 6.0}}
        >>> ranks = rank_ic(np.zeros((20, 3)), np.zeros((20, 3)), lags=0)
        >>> group = Group("1-day bars", "drift", symbols, 20, same, [same], None, ranks, [])
        >>> group.median("mae"), group.mean("mae")
        (2.0, 3.0)
    """

    kind: str
    model: str
    symbols: Mapping[str, Mapping[str, float]]
    """Symbol -> measures; NaN where one has no value."""
    n_origins: int
    errors: DieboldMariano
    """Absolute errors against the last value."""
    by_step: Sequence[DieboldMariano]
    """The same for each step alone."""
    densities: DieboldMariano | None
    """Ranked probability scores against the random walk; None without it, and for points."""
    ranks: RankIC
    pit: Sequence[float]
    """Share of values in each tenth of the levels; empty for points."""

    def median(self, measure: str) -> float:
        """Compute the median of a measure over the series that have it.

        Args:
            measure: one of the keys of the measures in `symbols`.

        Returns:
            The median; NaN if no series has the measure.
        """
        return self._over(measure, np.median)

    def mean(self, measure: str) -> float:
        """Compute the mean of a measure over the series that have it.

        Args:
            measure: one of the keys of the measures in `symbols`.

        Returns:
            The mean; NaN if no series has the measure.
        """
        return self._over(measure, np.mean)

    def _over(self, measure: str, average: Any) -> float:
        values = np.array([found[measure] for found in self.symbols.values()])
        known = values[np.isfinite(values)]
        return float(average(known)) if len(known) else math.nan


@dataclass(frozen=True)
class Evaluation:
    """What forecasts are worth.

    Examples:
        >>> Evaluation((), {}, ("No model was tested.",)).plain()["summary"]
        ['No model was tested.']
    """

    groups: tuple[Group, ...]
    """By kind, the models in the order in which they were given."""
    contaminated: Mapping[str, str]
    """Model -> what it has seen of the window."""
    sentences: tuple[str, ...]
    """For each model and kind: whether it beats repeating the last value, and then the same of what
    the model has not seen."""
    parts: tuple[tuple[str, Group], ...] = ()
    """The same groups by what their models have seen, each with words for the part."""

    def plain(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds.

        Returns:
            `aggregate` (kind -> model -> measure -> median and mean over series, and tests; below
            `parts` the same by what the model has seen), `per_symbol` (symbol -> model ->
            measures), `contaminated` and `summary`.
        """
        aggregate: dict[str, dict[str, Any]] = {}
        per_symbol: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            aggregate.setdefault(group.kind, {})[group.model] = _aggregate(group) | {
                "contaminated": group.model in self.contaminated
            }
            for symbol, found in group.symbols.items():
                per_symbol.setdefault(symbol, {})[group.model] = dict(found)
        for part, group in self.parts:
            whole = aggregate[group.kind][group.model]
            whole.setdefault("parts", {})[part] = _aggregate(group)
        return {
            "aggregate": aggregate,
            "per_symbol": per_symbol,
            "contaminated": dict(self.contaminated),
            "summary": list(self.sentences),
        }


def summarise(table: pl.DataFrame, plan: RollingPlan, vintages: Sequence[Vintage]) -> Evaluation:
    """Measure all forecasts of a table.

    Args:
        table: of `Roller.roll`, with the last value among its models.
        plan: of the table.
        vintages: of the models that are tested; the rest are baselines.

    Returns:
        Measures, tests and sentences.
    """
    groups, parts, told = [], [], []
    tested = {vintage.model: vintage for vintage in vintages}
    for kind in table["kind"].unique(maintain_order=True):
        own = table.filter(pl.col("kind") == kind)
        by_model = {
            name: own.filter(pl.col("model") == name)
            for name in own["model"].unique(maintain_order=True)
        }
        for name in by_model:
            groups.append(_group(kind, name, by_model, plan))
            if name not in tested:
                continue
            found = _parts(kind, tested[name], by_model, plan)
            stamp = tested[name].stamp if tested[name].has_seen(plan.start) else ""
            told.append(sentence(groups[-1], stamp))
            told += [sentence(group, "", part) for part, group in found[-1:]]
            parts += found
    contaminated = {each.model: each.stamp for each in vintages if each.has_seen(plan.start)}
    return Evaluation(tuple(groups), contaminated, tuple(told), tuple(parts))


def _parts(
    kind: str, vintage: Vintage, by_model: Mapping[str, pl.DataFrame], plan: RollingPlan
) -> list[tuple[str, Group]]:
    """Measure a model by what it has seen, the least seen last; nothing if that is all one."""
    symbols = {"": pl.lit(True)}  # noqa: FBT003 -- a polars literal
    if vintage.symbols is not None:
        is_seen = pl.col("symbol").is_in(sorted(vintage.symbols))
        symbols = {"symbols that it was fitted on": is_seen, "other symbols": ~is_seen}
    times = {"": pl.lit(True)}  # noqa: FBT003 -- a polars literal
    if vintage.fitted_to is not None and vintage.has_seen(plan.start):
        edge, day = (
            vintage.fitted_to.astype("datetime64[us]"),
            moment(vintage.fitted_to).removesuffix(" 23:59"),
        )
        is_before = pl.col("origin") < edge.item()
        times = {f"origins before {day}": is_before, f"origins from {day} on": ~is_before}
    found = []
    for (who, chosen), (when, early) in itertools.product(symbols.items(), times.items()):
        shown = {name: rows.filter(chosen & early) for name, rows in by_model.items()}
        if len(shown[vintage.model]):
            words = ", ".join(part for part in (who, when) if part)
            found.append((words, _group(kind, vintage.model, shown, plan)))
    return found if len(found) > 1 else []


def sentence(group: Group, stamp: str, part: str = "") -> str:
    """Say whether a model beats repeating the last value.

    Args:
        group: of the model, not of the last value itself.
        stamp: what the model has seen of the window; empty for nothing.
        part: words for the part of the forecasts that the group is.

    Returns:
        A few sentences with the sizes and the test, and what the sign of the test means.
    """
    ratio, test = group.median("naive_ratio"), group.errors
    beats = test.is_significant and test.statistic < 0 and ratio < 1.0
    verdict = "beats" if beats else "does not beat"
    where = ", ".join(
        words for words in (f"{len(group.symbols)} series", group.kind, part) if words
    )
    return (
        f"{f'CONTAMINATED, {stamp}: ' if stamp else ''}{group.model} {verdict} repeating the last "
        f"value ({where}): {test.verdict}. Its error is {multiple(ratio)} x naive in the median "
        f"series, pct_mae {significant(group.median('pct_mae'))} %. {test.text}, over "
        f"{counted(test.n_origins, 'origin')}."
    )


def _group(kind: str, model: str, by_model: Mapping[str, pl.DataFrame], plan: RollingPlan) -> Group:
    own = by_model[model]
    symbols = {
        str(symbol): _measures(own.filter(pl.col("symbol") == symbol), plan)
        for symbol in own["symbol"].unique(maintain_order=True)
    }
    difference = _scaled(own, _absolute(own) - _absolute(by_model[NAIVE]))
    errors = diebold_mariano(origin_means(_origins(own), difference), plan.lags)
    by_step = _by_step(own, difference, plan)
    densities = None
    has_density = bool(np.isfinite(own["pit"].to_numpy()).any())
    if DENSITY in by_model and model != DENSITY and has_density:
        difference = _scaled(own, _crps(own) - _crps(by_model[DENSITY]))
        densities = diebold_mariano(origin_means(_origins(own), difference), plan.lags)
    return Group(
        kind, model, symbols, own["origin"].n_unique(), errors, by_step, densities,
        _ranks(own, plan), _histogram(own["pit"].to_numpy()),
    )  # fmt: skip


def _measures(rows: pl.DataFrame, plan: RollingPlan) -> dict[str, float]:
    """Measure the forecasts of one model for one series."""
    came, last, point = (rows[name].to_numpy() for name in ("y", "last", "0.5"))
    quantiles = rows.select(map(str, LEVELS)).to_numpy()
    # rows of a density may shrink to a point, and then they miss; points alone cover nothing
    is_density = bool(scores.has_density(quantiles).any())
    paths = rows["crps_paths"].to_numpy()
    found = {
        "forecasts": float(len(rows)),
        "mae": scores.mean_absolute_error(came, point),
        "rmse": scores.root_mean_squared_error(came, rows["mean"].to_numpy()),
        "pct_mae": scores.percent_mae(came, point),
        "naive_ratio": scores.naive_ratio(came, point, last),
        "mase": scores.scaled_error(came, point, rows["scale"].to_numpy()),
        "crps": float(scores.quantile_crps(came, quantiles, LEVELS).mean()),
        "crps_paths": float(paths.mean()) if np.isfinite(paths).all() else math.nan,
        "wql": scores.weighted_quantile_loss(came, quantiles, LEVELS),
        "direction": scores.direction_accuracy(came, point, last),
        "base_rate": scores.base_rate(came, last),
        "qlike": _qlike(rows),
    }
    size = float(np.abs(came).mean())
    for share in INTERVALS:
        ends = [str(round(end, 3)) for end in (0.5 - share / 2, 0.5 + share / 2)]
        known = is_density and all(_is_known(rows, end) for end in ends)
        low, high = (rows[end].to_numpy() if known else came for end in ends)
        name = share_name(share)
        found[f"coverage_{name}"] = scores.coverage(came, low, high) if known else math.nan
        width = 100.0 * float((high - low).mean())
        found[f"width_{name}"] = width / size if known and size > 0.0 else math.nan
    return found


def _is_known(rows: pl.DataFrame, level: str) -> bool:
    return level in rows.columns and bool(rows[level].is_finite().all())


def share_name(share: float) -> str:
    """Return how names of measures write a probability.

    Args:
        share: for example 0.8.

    Returns:
        For example `80`.
    """
    return str(round(100 * share))


def _qlike(rows: pl.DataFrame) -> float:
    known = rows.filter(pl.col("log_variance").is_finite() & (pl.col("log_variance") > 0.0))
    known = known.filter((pl.col("y") > 0.0) & (pl.col("last") > 0.0))
    if len(known) < len(rows):
        return math.nan
    return scores.qlike(*(known[name].to_numpy() for name in ("y", "last", "log_variance")))


def _absolute(rows: pl.DataFrame) -> Column:
    return np.abs(rows["y"].to_numpy() - rows["0.5"].to_numpy())


def _crps(rows: pl.DataFrame) -> Column:
    quantiles = rows.select(map(str, LEVELS)).to_numpy()
    return scores.quantile_crps(rows["y"].to_numpy(), quantiles, LEVELS)


def _scaled(rows: pl.DataFrame, difference: Column) -> Column:
    """Return differences in multiples of the scale; NaN where there is none."""
    scale = rows["scale"].to_numpy()
    return np.where(scale > 0.0, difference / np.where(scale > 0.0, scale, 1.0), np.nan)


def _origins(rows: pl.DataFrame) -> np.ndarray:
    return rows["origin"].to_numpy()


def _by_step(rows: pl.DataFrame, difference: Column, plan: RollingPlan) -> list[DieboldMariano]:
    steps, origins = rows["step"].to_numpy(), _origins(rows)
    found = []
    for step in range(1, plan.horizon + 1):
        at = steps == step
        means = origin_means(origins[at], difference[at])
        found.append(diebold_mariano(means, overlap_lags(step, plan.every)))
    return found


def _ranks(rows: pl.DataFrame, plan: RollingPlan) -> RankIC:
    """Correlate relative changes to the last step between series, origin by origin."""
    ends = rows.filter(pl.col("step") == plan.horizon)
    last = ends["last"].to_numpy()
    changes = {
        side: pl.Series(scores.change(ends[column].to_numpy(), last) / np.abs(last))
        for side, column in (("forecast", "0.5"), ("came", "y"))
    }
    ends = ends.select("origin", "symbol").with_columns(**changes)
    forecast, came = (
        ends.pivot("symbol", index="origin", values=side).sort("origin").drop("origin").to_numpy()
        for side in ("forecast", "came")
    )
    return rank_ic(forecast.astype(np.float64), came.astype(np.float64), plan.lags)


def _histogram(pit: Column) -> list[float]:
    known = pit[np.isfinite(pit)]
    if not len(known):
        return []
    return list(np.histogram(known, bins=BINS, range=(0.0, 1.0))[0] / len(known))


def _aggregate(group: Group) -> dict[str, Any]:
    measures = next(iter(group.symbols.values()))
    return {
        **{name: {"median": group.median(name), "mean": group.mean(name)} for name in measures},
        "series": len(group.symbols),
        "origins": group.n_origins,
        "diebold_mariano": _test(group.errors),
        "diebold_mariano_by_step": [_test(each) for each in group.by_step],
        "diebold_mariano_crps": _test(group.densities),
        "rank_ic": asdict(group.ranks),
        "pit": list(group.pit),
    }


def _test(test: DieboldMariano | None) -> dict[str, Any] | None:
    return None if test is None else asdict(test) | {"verdict": test.verdict, "text": test.text}
