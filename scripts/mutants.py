"""Change the code in thousands of places, one at a time, and count what no test notices.

    python scripts/mutants.py                          # everything: hours
    python scripts/mutants.py --sample 100 --seed 0    # so many changes of each module, at random
    python scripts/mutants.py --part metrics --again   # after a test was written

Mutmut makes the changes and runs the tests that reach them; `[tool.mutmut]` in `pyproject.toml`
names both. Results stay in `mutants/`, so a run that was stopped goes on: only what has no result
is tested. `--again` tests once more what no test has noticed. Changes that mean nothing stand with
their reason in `tests/equivalent_mutants.toml`; they are not listed, and count as not noticed.
Exit code 0 if at least nine of ten changes of every module are noticed, else 1.
"""

import argparse
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.evaluation.statistics import Share  # noqa: E402 -- needs the path
from hrl_sarp.reporting.table import NONE, Table, percent  # noqa: E402
from hrl_sarp.run.terminal import accept_any_console  # noqa: E402

PARTS: Mapping[str, tuple[str, ...]] = {
    "simulator": ("hrl_sarp.simulator.",),
    "metrics": ("hrl_sarp.metrics.", "hrl_sarp.resampling."),
    "statistics": ("hrl_sarp.evaluation.statistics.",),
    "splits": (
        "hrl_sarp.studies.walk_forward.folds.",
        "hrl_sarp.market.assemble.x_make_split__",
        "hrl_sarp.training.certify.x_inner_splits__",
    ),
}
"""Names of the changes of each part begin so."""
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.toml"
"""Module -> changes of it that mean nothing: the line as it was, as it is now, and why."""
FIRST = "hrl_sarp.resampling.x_draw_counts__mutmut_1"
"""Mutmut writes all changes when it is asked to test one."""
BATCH = 200
"""Changes a call of mutmut gets: it matches names against names, and is slow with thousands."""
ENOUGH = 0.9
"""Share of the changes that tests have to notice."""
NOTICED = ("killed", "timeout", "segfault")
UNTESTED = "not checked"


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--sample", type=int, help="changes of each module (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--again", action="store_true", help="also what no test has noticed")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    options = parser.parse_args(arguments)
    mutmut("run", "--max-children", str(options.workers), FIRST)
    statuses = read_statuses()
    chosen = choose(statuses, options.part, options.sample, options.seed)
    left = [name for name in chosen if is_left(statuses[name], again=options.again)]
    for first in range(0, len(left), BATCH):
        mutmut("run", "--max-children", str(options.workers), *left[first : first + BATCH])
    statuses = read_statuses()  # with other names where the code was changed meanwhile
    chosen = choose(statuses, options.part, options.sample, options.seed)
    missed = [name for name in chosen if is_open(statuses[name])]
    sure = meaningless(missed)
    table, is_enough = report(statuses, chosen, sure)
    Console().print(table)
    sys.stdout.writelines(f"{statuses[name]}: {name}\n" for name in missed if name not in sure)
    return int(not is_enough)


def mutmut(*arguments: str) -> str:
    """Run mutmut in the repository; what `run` shows goes to the terminal, the rest is returned."""
    program = shutil.which("mutmut", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("mutmut is missing: pip install -c constraints.txt 'hrl-sarp[mutants]'")
    shown = None if arguments[0] == "run" else subprocess.PIPE
    done = subprocess.run(  # noqa: S603 -- our own environment's program
        [program, *arguments], cwd=ROOT, stdout=shown, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(f"mutmut {' '.join(arguments[:3])} ended with code {done.returncode}")
    return done.stdout or ""


def read_statuses() -> dict[str, str]:
    """Return what became of every change: its name -> killed, survived, not checked and so on."""
    return dict(parsed(mutmut("results", "--all", "True")))


def parsed(results: str) -> Iterator[tuple[str, str]]:
    """Read the lines that mutmut writes about its results."""
    for line in results.splitlines():
        name, found, status = line.strip().rpartition(": ")
        if found:
            yield name, status


def choose(
    statuses: Mapping[str, str], parts: Sequence[str], sample: int | None, seed: int
) -> list[str]:
    """Choose changes of some parts: all, or so many of each of their modules at random.

    Args:
        statuses: of all changes.
        parts: keys of `PARTS`.
        sample: of each module; None takes all.
        seed: of the sample. The same seed gives the same changes as long as the code is the same.

    Returns:
        Names, module by module.
    """
    chosen: list[str] = []
    for part in parts:
        names = sorted(name for name in statuses if name.startswith(PARTS[part]))
        for _, members in groupby(names, module_of):
            own = list(members)
            drawn = np.random.default_rng(seed).permutation(len(own))[:sample]
            chosen += [own[place] for place in sorted(drawn)]
    return chosen


def is_ours(name: str) -> bool:
    """Say whether a change belongs to a part: other functions of its module may not."""
    return any(name.startswith(begin) for begin in PARTS.values())


def module_of(name: str) -> str:
    """Return the module of a change."""
    return name.rpartition(".")[0]


def is_open(status: str) -> bool:
    """Say whether a test that notices the change is missing, or has not run yet."""
    return status not in NOTICED


def is_left(status: str, *, again: bool) -> bool:
    """Say whether a change has still to be tested."""
    return status == UNTESTED or (again and is_open(status))


def meaningless(names: Sequence[str]) -> set[str]:
    """Return the changes that the list of equivalent ones has, by the lines they touch."""
    known = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    listed = {
        (module, one["was"], one["now"]) for module, changes in known.items() for one in changes
    }
    modules = {module for module, _, _ in listed}
    suspects = [name for name in names if module_of(name) in modules]
    return {n for n in suspects if (module_of(n), *lines_of(mutmut("show", n))) in listed}


def lines_of(difference: str) -> tuple[str, str]:
    """Return what a change takes away and what it puts there, each on one line."""
    sides = []
    for sign in "-+":
        own = [line for line in difference.splitlines() if line.startswith(sign)]
        sides.append(" ".join(line[1:].strip() for line in own if not line.startswith(3 * sign)))
    return sides[0], sides[1]


def report(
    statuses: Mapping[str, str], chosen: Sequence[str], sure: set[str]
) -> tuple[Table, bool]:
    """Make the table of the modules, and say whether each is noticed often enough.

    Args:
        statuses: of all changes.
        chosen: changes that were to be tested, module by module.
        sure: changes that mean nothing.

    Returns:
        The table, and whether nine of ten are noticed in every module.
    """
    every = Counter(module_of(name) for name in statuses if is_ours(name))
    rows, is_enough = [], True
    for module, members in groupby(chosen, module_of):
        names = list(members)
        n_noticed = sum(not is_open(statuses[name]) for name in names)
        share = Share.of(n_noticed, len(names), 0.95)
        is_sample = len(names) < every[module]
        interval = f"{percent(share.low)} to {percent(share.high)}" if is_sample else NONE
        counts = (n_noticed, len(names), every[module], sum(name in sure for name in names))
        rows.append(
            (
                module.removeprefix("hrl_sarp."),
                *map(str, counts),
                percent(n_noticed / len(names)),
                interval,
            )
        )
        is_enough &= n_noticed >= ENOUGH * len(names)
    header = ("module", "noticed", "tested", "of all", "mean nothing", "share", "95 % interval")
    telling = (0, 1, 2, 5, 6, 3, 4)
    return Table("Changes that tests notice", header, rows, telling=telling), is_enough


if __name__ == "__main__":
    accept_any_console()
    raise SystemExit(main(sys.argv[1:]))
