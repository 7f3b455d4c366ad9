"""Compares backtests of the same span in one table, with intervals over dates and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from hrl_sarp.errors import DataError, MetricError, MissingArtifactError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import BY_NAME, NOTHING_LOST, share_positive
from hrl_sarp.evaluation.report.analysis import LuckRange
from hrl_sarp.evaluation.report.files import DAILY_NAME, METRICS_NAME
from hrl_sarp.evaluation.report.tables import RANDOM_RANGE, luck_cells
from hrl_sarp.evaluation.statistics import BootstrapPlan, Interval
from hrl_sarp.metrics import SESSIONS_PER_YEAR as YEAR
from hrl_sarp.reporting.table import NONE, Table
from hrl_sarp.run.damage import UNREADABLE_TABLE
from hrl_sarp.run.files import read_json, sha256_file

COMMAND = "hrl-sarp backtest"
COLUMNS = (
    "annual_return",
    "volatility",
    "certainty_equivalent_5",
    "sharpe",
    "growth_excess",
    "middle half",
    "worst run",
    "probability_of_beating",
    "max_drawdown",
    "turnover",
)
"""Columns of the table: measures, and figures over several runs."""
MEANS = ("annual_return", "volatility", "certainty_equivalent_5", "max_drawdown", "turnover")
"""Measures that are averaged over runs, without an interval."""


@dataclass(frozen=True)
class SeedSummary:
    """One policy over several runs; annual, net of costs."""

    name: str
    runs: int
    annual_return: float
    """Mean over runs."""
    return_deviation: float
    """Standard deviation over runs; 0.0 for one run."""
    volatility: float
    """Mean over runs."""
    certainty_equivalent_5: float
    """Mean over runs."""
    sharpe: Interval
    """Mean over runs. Its interval resamples dates and runs together, as does the next one."""
    growth_excess: Interval
    """Log growth over 1/N of the same run."""
    interquartile_mean: float
    """Standard deviation of the growth excess over runs."""
    worst: float
    """Lowest growth excess of a run."""
    probability_of_beating: float
    max_drawdown: float
    """Mean over runs."""
    turnover: float
    """Mean over runs."""


@dataclass(frozen=True)
class Comparison:
    """The aggregate of several runs, and its table."""

    summaries: dict[str, SeedSummary]
    table: Table


@dataclass(frozen=True)
class _Run:
    folder: Path
    daily: dict[str, pl.DataFrame]
    """Policy -> its sessions."""
    performances: dict[str, dict[str, Any]]
    """Policy -> figures, as `metrics.json` holds them."""
    luck: dict[str, LuckRange]
    """Ranges of its random portfolios; empty if it had none."""
    facts: dict[str, Any]
    """The provenance."""

    @property
    def dates(self) -> np.ndarray:
        return self.daily[EQUAL_WEIGHT]["date"].to_numpy()


def aggregate_runs(paths: Sequence[Path]) -> Comparison:
    """Aggregate finished backtests that differ in their seed only.

    Args:
        paths: log folders of runs, or their `backtest` folders. The first run's bootstrap plan
            serves all.

    Returns:
        Means and intervals by policy, and the table of them.

    Raises:
        MissingArtifactError: if a folder holds no finished backtest.
        MetricError: if the runs are on other sessions or other data, if their configurations
            differ in more than the seed, or if a seed or folder comes twice.
    """
    runs = [_read_run(Path(path)) for path in paths]
    _require_same(runs)
    plan = BootstrapPlan(**runs[0].facts["bootstrap"])
    year = int(runs[0].facts.get("sessions_per_year", YEAR))
    names = dict.fromkeys(name for run in runs for name in run.daily)
    summaries = {
        name: _summarise(name, [run for run in runs if name in run.daily], plan, year)
        for name in names
    }
    return Comparison(summaries, _table(summaries, runs, plan))


def _summarise(name: str, runs: Sequence[_Run], plan: BootstrapPlan, year: int) -> SeedSummary:
    """Aggregate one policy over the runs that have it."""
    figures = {
        measure: np.array([run.performances[name][measure] for run in runs]) for measure in MEANS
    }
    net = _stacked(runs, name, "net_return")
    excess = net - _stacked(runs, name, "risk_free")
    base = np.log1p(_stacked(runs, EQUAL_WEIGHT, "net_return"))
    active = np.log1p(np.maximum(net, NOTHING_LOST)) - base
    by_run = active.mean(axis=1) * year
    rng = np.random.default_rng([plan.seed, len(runs)])
    counts = plan.counts(net.shape[1])
    growth = statistics.bootstrap_dates_and_seeds(active, counts, year, rng)
    by_sample = statistics.bootstrap_sharpe(excess.T, counts, year)
    sharpe_draws = statistics.redraw_seeds(by_sample, rng).mean(axis=1)
    sharpe = float(np.mean([run.performances[name]["sharpe"]["value"] for run in runs]))
    annual = figures["annual_return"]
    return SeedSummary(
        name=name,
        runs=len(runs),
        annual_return=float(annual.mean()),
        return_deviation=float(annual.std(ddof=1)) if len(runs) > 1 else 0.0,
        volatility=float(figures["volatility"].mean()),
        certainty_equivalent_5=float(figures["certainty_equivalent_5"].mean()),
        sharpe=statistics.interval(sharpe, sharpe_draws, plan.confidence),
        growth_excess=statistics.interval(float(by_run.mean()), growth, plan.confidence),
        interquartile_mean=statistics.interquartile_mean(by_run),
        worst=float(by_run.min()),
        probability_of_beating=share_positive(growth),
        max_drawdown=float(figures["max_drawdown"].mean()),
        turnover=float(figures["turnover"].mean()),
    )


def _stacked(runs: Sequence[_Run], name: str, field: str) -> Float[np.ndarray, "runs T"]:
    return np.stack([run.daily[name][field].to_numpy() for run in runs])


def _read_daily(path: Path, digest: str | None) -> pl.DataFrame:
    """Read the daily series; `digest` is their SHA-256, which older versions did not write."""
    try:
        if digest not in (None, sha256_file(path)):
            raise ValueError(f"its SHA-256 is not the one in {METRICS_NAME}")
        return pl.read_parquet(path)
    except UNREADABLE_TABLE as error:
        raise DataError(
            f"{path}: expected the daily series of a backtest, found something else ({error}); "
            f"run `{COMMAND}` again"
        ) from error


def _read_run(path: Path) -> _Run:
    folder = path if (path / METRICS_NAME).is_file() else path / "backtest"
    document = read_json(folder / METRICS_NAME, COMMAND)
    if not (folder / DAILY_NAME).is_file():
        raise MissingArtifactError(
            f"{folder / DAILY_NAME} is missing, expected beside {METRICS_NAME}; run `{COMMAND}`"
        )
    daily = _read_daily(folder / DAILY_NAME, document.get("files", {}).get(DAILY_NAME))
    parts = daily.partition_by("policy", as_dict=True, maintain_order=True)
    by_policy = {str(key[0]): part for key, part in parts.items()}
    if EQUAL_WEIGHT not in by_policy:
        raise MetricError(
            f"{folder / DAILY_NAME}: expected the policy {EQUAL_WEIGHT}, found "
            f"{', '.join(by_policy)}; run `{COMMAND}` again"
        )
    facts = document["provenance"]
    if "experiment_hash" not in facts:
        raise MetricError(
            f"{folder / METRICS_NAME}: expected the provenance's experiment_hash, found none; it "
            f"was written by an older version, run `{COMMAND}` again"
        )
    luck = {name: LuckRange(**figures) for name, figures in document["luck"].items()}
    return _Run(folder.resolve(), by_policy, document["performances"], luck, facts)


def _require_same(runs: Sequence[_Run]) -> None:
    """Refuse runs of other data or settings, and runs that are given twice.

    A run that counts twice would narrow the intervals without new information.
    """
    if not runs:
        raise MetricError("comparison of runs: expected at least one folder, found none; name one")
    first = runs[0]
    for i, run in enumerate(runs):
        here, there = run.facts, first.facts
        same = np.array_equal(run.dates, first.dates)
        if not same or here["market_hash"] != there["market_hash"]:
            raise MetricError(
                f"{run.folder}: {here['first_session']} to {here['last_session']} on market "
                f"{here['market_hash']} cannot be averaged with {first.folder}: "
                f"{there['first_session']} to {there['last_session']} on {there['market_hash']}; "
                "compare runs of one market"
            )
        if here["experiment_hash"] != there["experiment_hash"]:
            raise MetricError(
                f"{run.folder}: configuration {here['experiment_hash'][:12]} (without its seed) "
                f"cannot be averaged with {first.folder}: {there['experiment_hash'][:12]}; compare "
                "runs of one experiment that differ in --seed only"
            )
        for other in runs[:i]:
            if run.folder == other.folder:
                raise MetricError(
                    f"{run.folder}: expected every run once, found it twice; drop one"
                )
            if here["seed"] == other.facts["seed"]:
                raise MetricError(
                    f"{run.folder}: expected a seed of its own, found {here['seed']} as in "
                    f"{other.folder}; train with another --seed or drop one"
                )


def _table(summaries: dict[str, SeedSummary], runs: Sequence[_Run], plan: BootstrapPlan) -> Table:
    level = f"{plan.confidence:.0%}"
    header = [
        BY_NAME[name].heading.format(level=level) if name in BY_NAME else name for name in COLUMNS
    ]
    header[0] += " ± sd"
    rows = [_row(summary) for summary in summaries.values()]
    lucks = [run.luck for run in runs if run.luck]
    if lucks:
        cells = luck_cells(_mean_luck(lucks), COLUMNS)
        names = ("random stocks ± sd", RANDOM_RANGE)
        rows += [(name, str(len(lucks)), *row) for name, row in zip(names, cells, strict=True)]
    facts = runs[0].facts
    note = (
        f"{facts['first_session']} to {facts['last_session']}; means over runs, a year, net of "
        "costs. Intervals resample dates and runs together; the spread of the random stocks is "
        "over draws, not over dates."
    )
    return Table(
        "Runs together", ("policy", "runs", *header), rows, note, frozenset({EQUAL_WEIGHT}),
        telling=(0, 2, 3, 4, 6, 5, 10, 1, 11, 9, 7, 8),
    )  # fmt: skip


def _mean_luck(lucks: Sequence[dict[str, LuckRange]]) -> dict[str, LuckRange]:
    """Average the figures of the random portfolios over the runs, which drew equally many."""
    fields = ("mean", "deviation", "low", "high")
    return {
        name: LuckRange(
            *(float(np.mean([getattr(luck[name], field) for luck in lucks])) for field in fields)
        )
        for name in lucks[0]
    }


def _row(summary: SeedSummary) -> tuple[str, ...]:
    annual, growth = BY_NAME["annual_return"].form, BY_NAME["growth_excess"]
    relative = (
        growth.text(summary.growth_excess),
        growth.form.bare(summary.interquartile_mean),
        growth.form.bare(summary.worst),
        BY_NAME["probability_of_beating"].text(summary.probability_of_beating),
    )
    return (
        summary.name,
        str(summary.runs),
        f"{annual(summary.annual_return)} ± {annual.bare(summary.return_deviation)}",
        BY_NAME["volatility"].text(summary.volatility),
        BY_NAME["certainty_equivalent_5"].text(summary.certainty_equivalent_5),
        BY_NAME["sharpe"].text(summary.sharpe),
        *((NONE,) * 4 if summary.name == EQUAL_WEIGHT else relative),
        BY_NAME["max_drawdown"].text(summary.max_drawdown),
        BY_NAME["turnover"].text(summary.turnover),
    )
