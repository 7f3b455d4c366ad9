"""What do embeddings add? Train with none, jade, transformer, both; one table over seeds.

    python scripts/encoder_ablation.py --data-dir data/us/raw --experiment real_us \
        --observe none,jade,transformer,both --seeds 0,1,2 --jobs 2

Each cell (a setting and a seed) runs all five phases and the backtest on the test span in a folder
of its own below --output. The same command again skips the cells that have finished, and continues
one that was killed. The encoders must have been pretrained (`main.py pretrain-encoder --panel`).
Their tables are made first, once. `ablation.md` and `ablation.json` say over seeds what phase 1 and
phase 2 reached on validation and what the last pair of agents earned on the test span, as mean +-
standard error, and the difference to `none` paired by seed.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

import torch  # noqa: E402 -- needs the path

from hrl_sarp import load_market  # noqa: E402
from hrl_sarp.cli.options import running  # noqa: E402
from hrl_sarp.config.loading import config_hash, load_config  # noqa: E402
from hrl_sarp.config.schema import RunConfig  # noqa: E402
from hrl_sarp.contracts import Market  # noqa: E402
from hrl_sarp.errors import HrlSarpError  # noqa: E402
from hrl_sarp.evaluation.backtest import run_backtest  # noqa: E402
from hrl_sarp.evaluation.performance import spread  # noqa: E402
from hrl_sarp.evaluation.policies import trained_policies  # noqa: E402
from hrl_sarp.evaluation.report import aggregate_runs, write_backtest  # noqa: E402
from hrl_sarp.evaluation.trials import record_selection  # noqa: E402
from hrl_sarp.market.sector_table import market_fingerprint  # noqa: E402
from hrl_sarp.reporting.table import Form, Table  # noqa: E402
from hrl_sarp.run.files import read_json, write_json, write_text  # noqa: E402
from hrl_sarp.run.phases import PHASES  # noqa: E402
from hrl_sarp.run.session import StopFlag, configure_threads  # noqa: E402
from hrl_sarp.run.terminal import accept_any_console  # noqa: E402
from hrl_sarp.run.trials import TrialLog  # noqa: E402
from hrl_sarp.studies import Cell, Moments, Results, moments, paired_difference, run_grid  # noqa: E402
from hrl_sarp.training import make_context, run_curriculum  # noqa: E402
from hrl_sarp.training.phase import PhaseContext  # noqa: E402

NONE = "none"
STOPPED = 130
COMMAND = "python scripts/encoder_ablation.py"
MEASURES = {
    "alloc_skill": "phase 1: allocation skill",
    "regime_gain_nats": "phase 1: regime gain, nats",
    "rank_ic": "phase 2: rank IC",
    "growth_excess_pct": "log growth over 1/N, % a year",
    "sharpe": "Sharpe",
    "max_drawdown": "max drawdown",
    "turnover": "turnover a year",
}
"""Columns of the table; the first three on validation, the others on the test span."""
DIGITS = {"alloc_skill": 4, "regime_gain_nats": 4, "rank_ic": 4}


@dataclass(frozen=True)
class Ablation:
    """What is compared, and where it runs."""

    data_dir: Path
    folder: Path
    experiment: str | None
    market_name: str | None
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Setting -> hash of its market; `prepare` fills it."""
    title: str = "encoder ablation"

    def config(self, cell: Cell) -> RunConfig:
        """Return the configuration of a cell."""
        changes = {"seed": cell.seed, "encoders": {"observe": cell.setting}}
        return load_config(market=self.market_name, experiment=self.experiment, overrides=changes)

    def market_of(self, config: RunConfig) -> Market:
        """Load the market with the embeddings of a cell."""
        return load_market(self.data_dir, config=config)

    def prepare(self, settings: Sequence[str]) -> None:
        """Make every table that a cell will read, and note whose market each setting has."""
        for setting in settings:
            config = self.config(Cell(setting, 0))
            configure_threads(config.threads)
            self.fingerprints[setting] = market_fingerprint(self.market_of(config))

    def identity(self, cell: Cell) -> dict[str, str]:
        """Return what a cell's result depends on."""
        config = config_hash(self.config(cell))
        return {"config": config, "market": self.fingerprints[cell.setting]}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train and backtest one cell, from where it stands."""
        config = self.config(cell)
        with running(folder):
            configure_threads(config.threads)
            market = self.market_of(config)
            cpu = torch.device("cpu")
            context = make_context(config, market, folder, cpu, StopFlag(), resume=True)
            with context.stop:
                run_curriculum(context)
            return {**phase_measures(folder), **backtest(context)}


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    options = _options(arguments)
    study = Ablation(options.data_dir, options.output, options.experiment, options.market)
    cells = [Cell(setting, seed) for seed in options.seeds for setting in options.observe]
    try:
        study.prepare(options.observe)
        results = run_grid(study, cells, options.jobs)
        report(study, results)
    except HrlSarpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues\n")
        return STOPPED
    return 1 if results.failed else 0


def backtest(context: PhaseContext) -> dict[str, float]:
    """Backtest a cell on the test span; return what its last pair earned."""
    policies, swaps = trained_policies(context)
    log = TrialLog()
    record_selection(context.log_dir, context.market, context.config, log)
    result = run_backtest(context.market, policies, "test", context.config, log=log)
    write_backtest(result, context.log_dir / "backtest", swaps)
    found = aggregate_runs([context.log_dir]).summaries[swaps.both]
    return {
        "growth_excess_pct": 100 * found.growth_excess.value,
        "sharpe": found.sharpe.value,
        "max_drawdown": found.max_drawdown,
        "turnover": found.turnover,
    }


def phase_measures(folder: Path) -> dict[str, float]:
    """Read what phases 1 and 2 reached on validation."""
    macro, micro = (
        read_json(folder / files.folder / files.metrics, COMMAND) for files in PHASES[:2]
    )
    return {
        "alloc_skill": macro["val_alloc_skill"],
        "regime_gain_nats": macro["val_regime_gain_nats"],
        "rank_ic": micro["rank_ic"],
    }


def report(study: Ablation, results: Results) -> None:
    """Write `ablation.md` and `ablation.json`, print the table and name the cells that failed."""
    for cell, reason in results.failed.items():
        sys.stderr.write(f"{cell.name} failed: {reason}\n")
    if not results.found:
        return
    summary = summarise(results)
    intervals = growth_intervals(study, results)
    plain = {
        setting: {
            key: vars(value) if isinstance(value, Moments) else value for key, value in row.items()
        }
        for setting, row in summary.items()
    }
    write_json(study.folder / "ablation.json", {"settings": plain, "intervals": intervals})
    page = as_markdown(summary, intervals)
    write_text(study.folder / "ablation.md", page)
    sys.stdout.write(page)


def summarise(results: Results) -> dict[str, dict[str, Any]]:
    """Return, for each setting, its seeds and the moments of each measure over them.

    Beside them stand the moments of the difference to `none`, over the seeds that both have.
    """
    summary: dict[str, dict[str, Any]] = {}
    for setting in results.settings:
        row: dict[str, Any] = {}
        for measure in MEASURES:
            own = results.by_seed(setting, measure)
            none = {} if setting == NONE else results.by_seed(NONE, measure)
            paired, difference = paired_difference(own, none)
            row |= {"seeds": list(own), "paired_seeds": list(paired)}
            row |= {measure: moments(list(own.values())), f"{measure}_minus_none": difference}
        summary[setting] = row
    return summary


def growth_intervals(study: Ablation, results: Results) -> dict[str, str]:
    """Return the log growth over 1/N with its interval over dates and seeds, as `report` does."""
    texts = {}
    for setting in results.settings:
        cells = [cell for cell in results.found if cell.setting == setting]
        folders = [study.folder / cell.name for cell in cells]
        metrics = read_json(folders[0] / "backtest" / "metrics.json", COMMAND)
        found = aggregate_runs(folders).summaries[metrics["headline_policy"]]
        texts[setting] = spread(found.growth_excess, Form(2, 100))
    return texts


def as_markdown(summary: dict[str, dict[str, Any]], intervals: dict[str, str]) -> str:
    """Write one table of the measures and one of the differences to `none`."""
    header = ("observe", "seeds", *MEASURES.values())
    rows = [(*_cells(name, row, "seeds", ""), intervals[name]) for name, row in summary.items()]
    whole = Table("Measures", (*header, "growth over 1/N with interval"), rows)
    parts = ["Mean ± standard error over seeds.", "", whole.markdown()]
    differences = [
        _cells(name, row, "paired_seeds", "_minus_none")
        for name, row in summary.items()
        if row["paired_seeds"]
    ]
    if differences:
        parts += ["", "Difference to `none`, paired by seed.", ""]
        parts.append(Table("Differences", header, differences).markdown())
    return "\n".join(parts) + "\n"


def _cells(name: str, row: dict[str, Any], seeds: str, suffix: str) -> tuple[str, ...]:
    shown = [row[measure + suffix].shown(DIGITS.get(measure, 2)) for measure in MEASURES]
    return (name, str(len(row[seeds])), *shown)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data/raw"))
    parser.add_argument("--output", type=Path, default=Path("logs/ablation"))
    parser.add_argument("--experiment")
    parser.add_argument("--market")
    parser.add_argument("--observe", type=_settings, default="none,jade,transformer,both")
    parser.add_argument("--seeds", type=_numbers, default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    return parser.parse_args(arguments)


def _settings(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split(",")))


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
