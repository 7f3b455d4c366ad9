"""Several finished backtests of the same span as one table: means over seeds, honest intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import rich.table
from jaxtyping import Float

from hrl_sarp import metrics
from hrl_sarp.errors import MetricError, MissingArtifactError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.analysis import LuckRange
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.ledger import DAILY_NAME, METRICS_NAME
from hrl_sarp.evaluation.statistics import BootstrapPlan, Interval
from hrl_sarp.evaluation.tables import (
    NONE,
    RANDOM_RANGE,
    Table,
    luck_cells,
    number,
    percent,
    spread,
    to_markdown,
    to_rich,
)
from hrl_sarp.metrics import SESSIONS_PER_YEAR as YEAR
from hrl_sarp.run.files import read_json

COMMAND = "main.py backtest"


@dataclass(frozen=True)
class SeedSummary:
    """One policy over several runs; annual, net of costs."""

    name: str
    runs: int
    annual_return: float
    """Mean over runs."""
    return_deviation: float
    """Over runs; 0.0 for one run."""
    sharpe: Interval
    """Mean over runs; the interval resamples dates and runs together, like the next."""
    growth_excess: Interval
    """Log growth over each run's own 1/N."""
    interquartile_mean: float
    """Of the growth excess over runs."""
    worst: float
    """Lowest growth excess of a run."""
    probability_of_beating: float
    max_drawdown: float
    """Mean over runs."""
    turnover: float
    """Mean over runs."""


@dataclass(frozen=True)
class Comparison:
    """The aggregate of several runs, ready to be shown."""

    summaries: dict[str, SeedSummary]
    table: Table


@dataclass(frozen=True)
class _Run:
    folder: Path
    dates: np.ndarray
    daily: dict[str, pl.DataFrame]
    market_hash: str | None
    luck: dict[str, LuckRange]
    """Of its random portfolios; empty if it had none."""
    experiment_hash: str
    """Of the configuration without its seed."""
    seed: int
    first_session: str
    last_session: str
    plan: BootstrapPlan


def compare_runs(paths: Sequence[Path]) -> tuple[rich.table.Table, str]:
    """Aggregate finished backtests and return the table for the terminal and as Markdown."""
    table = aggregate_runs(paths).table
    return to_rich(table), to_markdown(table)


def aggregate_runs(paths: Sequence[Path]) -> Comparison:
    """Aggregate finished backtests that differ in their seed only.

    Args:
        paths: log folders of runs, or their `backtest` folders. The first run's bootstrap plan
            serves all.

    Raises:
        MissingArtifactError: if a folder holds no finished backtest.
        MetricError: if the runs are on other sessions or other data, if their configurations
            differ in more than the seed, or if a seed or folder comes twice.
    """
    runs = [_read_run(Path(path)) for path in paths]
    _require_same(runs)
    names = dict.fromkeys(name for run in runs for name in run.daily)
    summaries = {name: summarise_runs(name, runs) for name in names}
    return Comparison(summaries, _table(summaries, runs))


def summarise_runs(name: str, runs: Sequence[_Run]) -> SeedSummary:
    """Aggregate one policy over the runs that have it."""
    own = [run for run in runs if name in run.daily]
    net = _stacked(own, name, "net_return")
    excess = net - _stacked(own, name, "risk_free")
    growth = np.log1p(np.maximum(net, -1 + 1e-12))
    base = np.log1p(_stacked(own, EQUAL_WEIGHT, "net_return"))
    active = growth - base
    plan, rng = runs[0].plan, np.random.default_rng([runs[0].plan.seed, len(own)])
    counts, confidence = plan.counts(net.shape[1]), plan.confidence
    draws = statistics.bootstrap_dates_and_seeds(active, counts, YEAR, rng)
    by_run = active.mean(axis=1) * YEAR
    sharpe = [metrics.sharpe_ratio(row, YEAR) for row in excess]
    annual = np.array([metrics.annual_return(row, YEAR) for row in net])
    drawn = rng.integers(len(own), size=(len(counts), len(own)))
    by_sample = statistics.bootstrap_sharpe(excess.T, counts, YEAR)
    sharpe_draws = np.take_along_axis(by_sample, drawn, axis=1).mean(axis=1)
    return SeedSummary(
        name=name,
        runs=len(own),
        annual_return=float(annual.mean()),
        return_deviation=float(annual.std(ddof=1)) if len(own) > 1 else 0.0,
        sharpe=statistics.interval(float(np.mean(sharpe)), sharpe_draws, confidence),
        growth_excess=statistics.interval(float(by_run.mean()), draws, confidence),
        interquartile_mean=statistics.interquartile_mean(by_run),
        worst=float(by_run.min()),
        probability_of_beating=float((draws > 0).mean() + 0.5 * (draws == 0).mean()),
        max_drawdown=float(np.mean([metrics.max_drawdown(row) for row in net])),
        turnover=float(_stacked(own, name, "turnover").mean() * YEAR),
    )


def _read_run(path: Path) -> _Run:
    folder = path if (path / METRICS_NAME).is_file() else path / "backtest"
    document = read_json(folder / METRICS_NAME, COMMAND)
    if not (folder / DAILY_NAME).is_file():
        raise MissingArtifactError(
            f"{folder / DAILY_NAME} is missing, expected beside {METRICS_NAME}; run `{COMMAND}`"
        )
    daily = pl.read_parquet(folder / DAILY_NAME)
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
    return _Run(
        folder=folder.resolve(),
        dates=by_policy[EQUAL_WEIGHT]["date"].to_numpy(),
        daily=by_policy,
        market_hash=facts["market_hash"],
        luck={name: LuckRange(**figures) for name, figures in document["luck"].items()},
        experiment_hash=facts["experiment_hash"],
        seed=facts["seed"],
        first_session=facts["first_session"],
        last_session=facts["last_session"],
        plan=BootstrapPlan(**facts["bootstrap"]),
    )


def _require_same(runs: Sequence[_Run]) -> None:
    if not runs:
        raise MetricError("comparison of runs: expected at least one folder, found none; name one")
    first = runs[0]
    for run in runs[1:]:
        same = np.array_equal(run.dates, first.dates) and run.market_hash == first.market_hash
        if not same:
            raise MetricError(
                f"{run.folder}: {run.first_session} to {run.last_session} on market "
                f"{run.market_hash} cannot be averaged with {first.folder}: {first.first_session} "
                f"to {first.last_session} on {first.market_hash}; compare runs of one market"
            )
        if run.experiment_hash != first.experiment_hash:
            raise MetricError(
                f"{run.folder}: configuration {run.experiment_hash[:12]} (without its seed) cannot "
                f"be averaged with {first.folder}: {first.experiment_hash[:12]}; compare runs of "
                "one experiment that differ in --seed only"
            )
    _require_distinct(runs)


def _require_distinct(runs: Sequence[_Run]) -> None:
    """Refuse one run counted twice; it would narrow the intervals without adding anything."""
    for i, run in enumerate(runs):
        for other in runs[:i]:
            if run.folder == other.folder:
                raise MetricError(
                    f"{run.folder}: expected every run once, found it twice; drop one"
                )
            if run.seed == other.seed:
                raise MetricError(
                    f"{run.folder}: expected a seed of its own, found {run.seed} as in "
                    f"{other.folder}; train with another --seed or drop one"
                )


def _stacked(runs: Sequence[_Run], name: str, field: str) -> Float[np.ndarray, "runs T"]:
    return np.stack([run.daily[name][field].to_numpy() for run in runs])


def _table(summaries: dict[str, SeedSummary], runs: Sequence[_Run]) -> Table:
    level = f"{runs[0].plan.confidence:.0%}"
    header = (
        "policy",
        "runs",
        "net return ± sd",
        f"Sharpe [{level}]",
        f"log growth over 1/N, % a year [{level}]",
        "middle half",
        "worst run",
        "P(beats 1/N)",
        "max drawdown",
        "turnover",
    )
    note = (
        f"{runs[0].first_session} to {runs[0].last_session}; means over runs, a year, net of "
        "costs. Intervals resample dates and runs together; the spread of the random stocks is "
        "over draws, not over dates."
    )
    rows = [_row(summary) for summary in summaries.values()]
    rows += _luck_rows([run.luck for run in runs if run.luck])
    return Table("Runs together", header, rows, note, frozenset({EQUAL_WEIGHT}))


def _luck_rows(lucks: Sequence[dict[str, LuckRange]]) -> list[tuple[str, ...]]:
    """Average each figure of the random portfolios over the runs: every run drew as many."""
    if not lucks:
        return []
    fields = ("mean", "deviation", "low", "high")
    averaged = {
        name: LuckRange(
            *(float(np.mean([getattr(luck[name], field) for luck in lucks])) for field in fields)
        )
        for name in lucks[0]
    }
    runs = str(len(lucks))
    return [
        (name, runs, c.annual, c.sharpe, c.excess, NONE, NONE, NONE, c.drawdown, NONE)
        for name, c in zip(("random stocks ± sd", RANDOM_RANGE), luck_cells(averaged), strict=True)
    ]


def _row(summary: SeedSummary) -> tuple[str, ...]:
    is_base = summary.name == EQUAL_WEIGHT
    relative = (
        spread(summary.growth_excess, 1, 100.0),
        number(100 * summary.interquartile_mean, 1),
        number(100 * summary.worst, 1),
        percent(summary.probability_of_beating, 0),
    )
    return (
        summary.name,
        str(summary.runs),
        f"{percent(summary.annual_return)} ± {number(100 * summary.return_deviation, 1)}",
        spread(summary.sharpe, 2),
        *((NONE,) * 4 if is_base else relative),
        percent(summary.max_drawdown),
        number(summary.turnover, 1),
    )
