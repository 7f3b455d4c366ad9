"""What do embeddings add? Train with none, jade, transformer, both; one table over seeds.

    python scripts/encoder_ablation.py --data-dir data/us/raw --experiment real_us \
        --observe none,jade,transformer,both --seeds 0,1,2 --jobs 2

Each cell (a setting and a seed) runs all five phases and the backtest on the test span in a folder
of its own below --output. Cells that have finished are skipped, one that was killed continues
where it was: give the same command again. The encoders must have been pretrained
(`main.py pretrain-encoder --panel`); their tables are made first, once. At the end
`ablation.md` and `ablation.json` say, over seeds: phase 1's skill, phase 2's rank IC on validation,
and what the last pair of agents earned on the test span, as mean +- standard error, and the
difference to `none` paired by seed.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

if TYPE_CHECKING:
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market

NONE = "none"
CELL = "cell.json"
"""Written when a cell has finished."""
SCREEN = "screen.log"
STOPPED = 130
POLL_SECONDS = 1.0
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
class Study:
    """What is compared, and where it runs."""

    data_dir: Path
    output: Path
    experiment: str | None
    market: str | None

    def folder(self, observe: str, seed: int) -> Path:
        """Return the log folder of a cell."""
        return self.output / f"{observe}-{seed}"

    def config(self, observe: str, seed: int) -> "RunConfig":
        """Return the configuration of a cell."""
        from hrl_sarp.config.loading import load_config

        changes = {"seed": seed, "encoders": {"observe": observe}}
        return load_config(market=self.market, experiment=self.experiment, overrides=changes)

    def market_of(self, config: "RunConfig") -> "Market":
        """Load the market with the embeddings of a cell."""
        from hrl_sarp import load_market

        return load_market(self.data_dir, config=config)


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    from hrl_sarp.errors import HrlSarpError

    options = _options(arguments)
    study = Study(options.data_dir, options.output, options.experiment, options.market)
    try:
        if options.cell is not None:
            run_cell(study, options.cell[0], int(options.cell[1]))
            return 0
        return run_study(study, options.observe, options.seeds, options.jobs)
    except HrlSarpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:  # cells of the same terminal stop by themselves
        sys.stderr.write("stopped; the same command continues\n")
        return STOPPED


def run_study(study: Study, observe: Sequence[str], seeds: Sequence[int], jobs: int) -> int:
    """Run the cells that have not finished, then write the table."""
    identities = prepare(study, observe)
    cells = [(setting, seed) for seed in seeds for setting in observe]
    pending = [cell for cell in cells if finished(study, *cell, identities[cell[0]]) is None]
    say(f"{len(cells) - len(pending)} of {len(cells)} cells have finished already")
    failed = _run_all(study, pending, jobs)
    if failed:
        listed = ", ".join(f"{setting}-{seed}" for setting, seed in failed)
        sys.stderr.write(f"failed: {listed}; see {SCREEN} in {study.output}\n")
        return 1
    found = {cell: finished(study, *cell, identities[cell[0]]) for cell in cells}
    summary = summarise({cell: values for cell, values in found.items() if values is not None})
    write_summary(study, summary)
    return 0


def prepare(study: Study, observe: Sequence[str]) -> dict[str, str]:
    """Make every table that a cell will read; return the fingerprint of each setting's market."""
    from hrl_sarp.run.session import configure_threads
    from hrl_sarp.training.phase import market_fingerprint

    identities = {}
    for setting in observe:
        config = study.config(setting, 0)
        configure_threads(config.threads)
        identities[setting] = market_fingerprint(study.market_of(config))
    return identities


def run_cell(study: Study, observe: str, seed: int) -> None:
    """Train and backtest one cell, from where it stands, and write its numbers."""
    import torch

    from hrl_sarp.cli.options import running
    from hrl_sarp.run.files import write_json
    from hrl_sarp.run.session import StopFlag, configure_threads
    from hrl_sarp.training import make_context, run_curriculum

    config, folder = study.config(observe, seed), study.folder(observe, seed)
    started = time.process_time()
    with running(folder):
        configure_threads(config.threads)
        market, device = study.market_of(config), torch.device("cpu")
        context = make_context(config, market, folder, device, StopFlag(), resume=True)
        with context.stop:
            run_curriculum(context)
        growth = backtest(context)
        values = {**phase_measures(folder), **growth}
        write_json(
            folder / CELL,
            {
                "identity": _identity(config, context.fingerprint),
                "measures": values,
                "cpu_seconds": time.process_time() - started,
            },
        )


def backtest(context: Any) -> dict[str, float]:
    """Backtest a cell on the test span; return what its last pair earned."""
    from hrl_sarp.evaluation.agent_policies import count_trials, trained_policies
    from hrl_sarp.evaluation.backtest import run_backtest
    from hrl_sarp.evaluation.report import aggregate_runs, write_backtest

    policies, swaps = trained_policies(context)
    trials = count_trials(context)
    result = run_backtest(context.market, policies, "test", context.config, trials)
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
    from hrl_sarp.run.files import read_json
    from hrl_sarp.training.phase import PHASES

    macro, micro = (
        read_json(folder / files.folder / files.metrics, COMMAND) for files in PHASES[:2]
    )
    return {
        "alloc_skill": macro["val_alloc_skill"],
        "regime_gain_nats": macro["val_regime_gain_nats"],
        "rank_ic": micro["rank_ic"],
    }


def finished(study: Study, observe: str, seed: int, fingerprint: str) -> dict[str, float] | None:
    """Return the measures of a finished cell; None if it has not run, or ran on something else."""
    from hrl_sarp.run.files import read_json

    path = study.folder(observe, seed) / CELL
    if not path.is_file():
        return None
    content = read_json(path, COMMAND)
    is_same = content["identity"] == _identity(study.config(observe, seed), fingerprint)
    return content["measures"] if is_same else None


def _identity(config: "RunConfig", fingerprint: str) -> dict[str, str]:
    from hrl_sarp.config.loading import config_hash

    return {"config": config_hash(config), "market": fingerprint}


def summarise(cells: dict[tuple[str, int], dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Aggregate cells over seeds.

    Returns:
        For each setting its seeds, each measure's mean, standard error and values by seed, and the
        same of the difference to `none` over the seeds that both have.
    """
    summary: dict[str, dict[str, Any]] = {}
    for setting in dict.fromkeys(setting for setting, _ in cells):
        seeds = [seed for name, seed in cells if name == setting]
        paired = [seed for seed in seeds if (NONE, seed) in cells and setting != NONE]
        row: dict[str, Any] = {"seeds": seeds, "paired_seeds": paired}
        for measure in MEASURES:
            own = {seed: cells[setting, seed][measure] for seed in seeds}
            row[measure] = _moments(list(own.values()))
            difference = [own[seed] - cells[NONE, seed][measure] for seed in paired]
            row[f"{measure}_minus_none"] = _moments(difference) if paired else None
        summary[setting] = row
    return summary


def _moments(values: list[float]) -> dict[str, Any]:
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "se": error, "values": values}


def write_summary(study: Study, summary: dict[str, dict[str, Any]]) -> None:
    """Write `ablation.md` and `ablation.json`, and print the table."""
    from hrl_sarp.run.files import write_json, write_text

    intervals = growth_intervals(study, summary)
    write_json(study.output / "ablation.json", {"settings": summary, "intervals": intervals})
    page = as_markdown(summary, intervals)
    write_text(study.output / "ablation.md", page)
    say(page)


def growth_intervals(study: Study, summary: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the log growth over 1/N with its interval over dates and seeds, as `report` does."""
    from hrl_sarp.evaluation.performance import spread
    from hrl_sarp.evaluation.report import aggregate_runs
    from hrl_sarp.reporting.table import Form
    from hrl_sarp.run.files import read_json

    texts = {}
    for setting, row in summary.items():
        folders = [study.folder(setting, seed) for seed in row["seeds"]]
        metrics = read_json(folders[0] / "backtest" / "metrics.json", COMMAND)
        found = aggregate_runs(folders).summaries[metrics["headline_policy"]]
        texts[setting] = spread(found.growth_excess, Form(2, 100))
    return texts


def as_markdown(summary: dict[str, dict[str, Any]], intervals: dict[str, str]) -> str:
    """Write one table of the measures and one of the differences to `none`."""
    header = ["observe", "seeds", *MEASURES.values(), "growth over 1/N with interval"]
    rows = [
        [name, str(len(row["seeds"])), *_cells(row, ""), intervals[name]]
        for name, row in summary.items()
    ]
    differences = [
        [name, str(len(row["paired_seeds"])), *_cells(row, "_minus_none")]
        for name, row in summary.items()
        if row["paired_seeds"]
    ]
    parts = ["Mean ± standard error over seeds.", "", *_table(header, rows)]
    if differences:
        parts += ["", "Difference to `none`, paired by seed.", ""]
        parts += _table(header[:-1], differences)
    return "\n".join(parts) + "\n"


def _cells(row: dict[str, Any], suffix: str) -> list[str]:
    texts = []
    for measure in MEASURES:
        found, digits = row[measure + suffix], DIGITS.get(measure, 2)
        error = "" if found["se"] is None else f" ± {found['se']:.{digits}f}"
        texts.append(f"{found['mean']:.{digits}f}{error}")
    return texts


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _run_all(study: Study, pending: list[tuple[str, int]], jobs: int) -> list[tuple[str, int]]:
    """Run cells in processes of their own, some at a time; return those that failed."""
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    waiting, failed = list(pending), []
    while waiting or running:
        while waiting and len(running) < jobs:
            cell = waiting.pop(0)
            say(f"begins: {cell[0]}-{cell[1]}")
            running[cell] = _start(study, *cell)
        time.sleep(POLL_SECONDS)
        for cell, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[cell]
            say(f"ended with {process.returncode}: {cell[0]}-{cell[1]}")
            if process.returncode:
                failed.append(cell)
    return failed


def _start(study: Study, observe: str, seed: int) -> "subprocess.Popen[bytes]":
    folder = study.folder(observe, seed)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--cell", observe, str(seed)]
    command += ["--data-dir", str(study.data_dir), "--output", str(study.output)]
    for option, value in (("--experiment", study.experiment), ("--market", study.market)):
        command += [option, value] if value else []
    with (folder / SCREEN).open("ab") as screen:
        return subprocess.Popen(command, stdout=screen, stderr=screen)  # noqa: S603 -- our own


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


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
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _settings(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split(",")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
