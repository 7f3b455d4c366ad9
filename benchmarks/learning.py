"""Whether agents reach the best policy where it is known: full studies, several seeds, one table.

Run: `python benchmarks/learning.py [--markets kelly,...] [--seeds 5] [--jobs 1]`. Each finished
(market, seed) is written to `logs/benchmarks/learning/` at once and not run again while its
configuration stays the same; the table goes to `logs/benchmarks/learning.json`. Hours for all:
`make bench` leaves it out, `make learning` runs it.
"""

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hrl_sarp.config.loading import config_hash, load_config  # noqa: E402
from hrl_sarp.config.schema import RunConfig  # noqa: E402
from hrl_sarp.known_markets import kelly, no_trade_band, reachable_goals, study  # noqa: E402
from hrl_sarp.known_markets.lines import Line  # noqa: E402
from hrl_sarp.run.files import read_json, write_json  # noqa: E402 -- needs the path
from hrl_sarp.run.session import configure_threads, seed_everything  # noqa: E402

FOLDER = ROOT / "logs" / "benchmarks" / "learning"
TABLE = ROOT / "logs" / "benchmarks" / "learning.json"


@dataclass(frozen=True)
class Study:
    """One market: how a seed of it is run and what the mean over seeds must reach."""

    experiment: str
    """Its configuration in `config/experiments/`, steps included."""
    run: Callable[[RunConfig, Path], dict[str, float]]
    """From the configuration with its seed, and a folder for logs, to figures."""
    lines: tuple[Line, ...]


STUDIES = {
    "kelly": Study("kelly", lambda config, _: kelly.study(config), kelly.LINES),
    "no_trade_band": Study(
        "no_trade_band", lambda config, _: no_trade_band.study(config), no_trade_band.LINES
    ),
    "reachable_goals": Study(
        "reachable_goals", lambda config, _: reachable_goals.study(config), reachable_goals.LINES
    ),
    "two_level_macro": Study("two_level", study.macro_study, study.MACRO_LINES),
    "two_level_micro": Study("two_level", study.micro_study, study.MICRO_LINES),
    "two_level": Study("two_level_pretrained", study.pair_study, study.PAIR_LINES),
    "hidden_regimes": Study("hidden_regimes", study.hidden_study, study.HIDDEN_LINES),
}


def run_seed(market: str, seed: int) -> Path:
    """Run one seed of a study unless its result is there, and write the result."""
    study, path = STUDIES[market], result_path(market, seed)
    config = load_config(experiment=study.experiment, overrides={"seed": seed})
    identity = {"market": market, "seed": seed, "config_hash": config_hash(config)}
    if path.is_file() and identity.items() <= read_json(path, "benchmarks/learning.py").items():
        return path
    configure_threads(config.threads)
    seed_everything(seed)
    started = time.perf_counter()
    figures = study.run(config, FOLDER / f"{market}_{seed}")
    seconds = time.perf_counter() - started
    write_json(path, {**identity, "commit": commit(), "seconds": seconds, "figures": figures})
    return path


def result_path(market: str, seed: int) -> Path:
    """Return where the result of one seed is kept."""
    return FOLDER / f"{market}_{seed}.json"


def commit() -> str:
    """Return the commit of the code, with a mark where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or "unknown"


def summarise(market: str, seeds: list[int]) -> list[dict[str, Any]]:
    """Return one row per figure: mean and standard error over the seeds that finished."""
    paths = [path for seed in seeds if (path := result_path(market, seed)).is_file()]
    runs = [read_json(path, "benchmarks/learning.py") for path in paths]
    lines = {line.figure: line for line in STUDIES[market].lines}
    rows = []
    for figure in runs[0]["figures"] if runs else ():
        values = np.array([run["figures"][figure] for run in runs])
        mean = float(values.mean())
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None
        row = {"market": market, "figure": figure, "mean": mean, "standard_error": error}
        line = lines.get(figure)
        judged = {"line": asdict(line), "met": line.is_met(mean)} if line else {}
        rows.append({**row, "values": values.tolist(), **judged})
    return rows


def shown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table's lines."""
    yield f"{'market':18s} {'figure':30s} {'mean':>10s} {'se':>9s} {'seeds':>5s}  line"
    for row in rows:
        error = "-" if row["standard_error"] is None else f"{row['standard_error']:.2g}"
        line = row.get("line")
        verdict = f"{line['side']} {line['bound']:g} " if line else ""
        verdict += ("met" if row["met"] else "MISSED") if line else ""
        cells = f"{row['market']:18s} {row['figure']:30s} {row['mean']:10.4g} {error:>9s}"
        yield f"{cells} {len(row['values']):5d}  {verdict}"


def finish(job: str, done: Future[Path]) -> bool:
    """Say how a job ended; a failed one does not keep the others from running."""
    problem = done.exception()
    print(f"{job}: {f'failed: {problem!r}' if problem else 'done'}", flush=True)
    return problem is None


def main() -> int:
    """Run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--markets", default=",".join(STUDIES), help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... of each market")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    options = parser.parse_args()
    markets, seeds = options.markets.split(","), list(range(options.seeds))
    if unknown := set(markets) - set(STUDIES):
        parser.error(f"no market {', '.join(sorted(unknown))}; choose of {', '.join(STUDIES)}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(  # a seed's market is gigabytes: each gets a fresh process
        options.jobs, mp_context=context, max_tasks_per_child=1
    ) as pool:
        jobs = {
            pool.submit(run_seed, market, seed): f"{market} seed {seed}"
            for market in markets
            for seed in seeds
        }
        n_failed = sum(not finish(jobs[done], done) for done in as_completed(jobs))
    rows = [row for market in markets for row in summarise(market, seeds)]
    print("\n".join(shown(rows)))
    write_json(TABLE, {"commit": commit(), "rows": rows})
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
