"""Walk-forward: train on expanding years, test on the years after them, and say what is shown.

    python scripts/walk_forward.py --market us=data/us/raw --market nse=data/nse/raw \
        --experiment real_us --variant risk --seeds 0 1 2 --jobs 2 --output logs/walk_forward

Each cell (a fold and a seed) runs the phases of the ordinary curriculum in a folder of its own
below --output and rolls out on the fold's test span in the exact simulator. Baselines are rolled
out once a fold, and so are ensembles, which decide as the mean of all seeds. The same command again
skips the cells that have finished, and continues one that was killed. `--summary-only` writes the
tables of what has finished. The values of the folds stand in the section `walk_forward` of the
configuration.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.errors import HrlSarpError  # noqa: E402 -- needs the path
from hrl_sarp.run.terminal import accept_any_console  # noqa: E402
from hrl_sarp.studies import run_grid  # noqa: E402
from hrl_sarp.studies.walk_forward import Recipe, WalkForward, summarise  # noqa: E402

STOPPED = 130
YEARS = ("first_test_year", "last_test_year", "test_years", "validation_years")


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    options = _options(arguments)
    try:
        study = study_of(options)
        failed = {} if options.summary_only else run(study, options.jobs)
        for name, reason in failed.items():
            sys.stderr.write(f"{name} failed: {reason}\n")
        sys.stdout.write(summarise(study))
    except HrlSarpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues\n")
        return STOPPED
    return 1 if failed else 0


def study_of(options: argparse.Namespace) -> WalkForward:
    """Make the study that the options ask for."""
    years = {name: getattr(options, name) for name in YEARS if getattr(options, name) is not None}
    recipe = Recipe(options.experiment, years, dict(options.variant), tuple(options.phases), {})
    data_dirs = dict(_with_data_dir(options))
    folds = [fold for market in data_dirs for fold in recipe.folds(market, options.folds)]
    by_name = {fold.name: fold for fold in folds}
    return WalkForward(
        recipe, data_dirs, options.output, by_name, tuple(options.seeds), "baselines"
    )


def run(study: WalkForward, jobs: int) -> dict[str, str]:
    """Run the three passes in their order; a pass that fails ends the run.

    Returns:
        Name of a failed cell -> reason.
    """
    for step in (study, study.of("seeds"), study.of("ensemble")):
        results = run_grid(step, step.cells(), jobs)
        if results.failed:
            return {cell.name: reason for cell, reason in results.failed.items()}
    return {}


def _with_data_dir(options: argparse.Namespace) -> list[tuple[str, Path]]:
    pairs = [text.partition("=") for text in options.market]
    return [(name, Path(folder) if folder else options.data_dir) for name, _, folder in pairs]


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", action="append", required=True, help="NAME or NAME=DATA_DIR")
    parser.add_argument("--data-dir", type=Path, default=Path("data/raw"))
    parser.add_argument("--output", type=Path, default=Path("logs/walk_forward"))
    parser.add_argument("--experiment")
    parser.add_argument(
        "--variant",
        action="extend",
        nargs="+",
        type=_variant,
        help="risk, growth, or NAME=FILE with values of a configuration; risk without this",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--phases", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--folds", type=int, help="of each market, from the first; all without it")
    for name in YEARS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time")
    parser.add_argument("--summary-only", action="store_true", help="run nothing")
    options = parser.parse_args(arguments)
    options.variant = options.variant or [("risk", None)]
    return options


def _variant(text: str) -> tuple[str, Path | None]:
    name, _, file = text.partition("=")
    return name, Path(file) if file else None


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
