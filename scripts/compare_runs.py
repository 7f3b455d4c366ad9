"""Compare two finished runs bit by bit: weights, metrics, ledgers and the market.

    python scripts/compare_runs.py FIRST SECOND

Each folder holds `logs/` of a run of all phases and `data/market/` of its data. Times are left out
of the metrics, for they depend on the machine, and earlier looks at the test span, for they depend
on the project's trial log. Exit code 0 if nothing differs, 1 otherwise.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path

N_WEIGHTS, N_METRICS, N_LEDGERS = 7, 6, 2
"""Files of a run of all five phases and the backtest."""


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    differences = list(find_differences(options.first, options.second))
    sys.stdout.writelines(f"differs: {difference}\n" for difference in differences)
    sys.stdout.write("NOT identical\n" if differences else "bit-identical\n")
    return int(bool(differences))


def find_differences(first: Path, second: Path) -> Iterator[str]:
    """Name every difference of two runs, and what the second left behind unfinished."""
    from hrl_sarp.run.checkpoints import load_payload
    from hrl_sarp.run.damage import read_arrays
    from hrl_sarp.run.files import read_json

    for path in sorted(second.rglob("*")):
        if path.name == "running.pt" or ".tmp" in path.name:
            yield f"{path} was left behind"
    logs = first / "logs"
    weights = [*logs.rglob("best_*.pt"), *logs.rglob("sector_graph.pt")]
    metrics = list(logs.rglob("*metrics.json"))
    ledgers = list((logs / "backtest").glob("*.parquet"))
    if (len(weights), len(metrics), len(ledgers)) != (N_WEIGHTS, N_METRICS, N_LEDGERS):
        yield f"{logs}: expected {N_WEIGHTS} weights, {N_METRICS} metrics, {N_LEDGERS} ledgers"
    for path in sorted([*weights, *metrics, *ledgers, *(first / "data" / "market").glob("*.npz")]):
        other = second / path.relative_to(first)
        if not other.is_file():
            yield f"{other} is missing"
        elif path.suffix == ".pt":
            yield from _differences(load_payload(path), load_payload(other), path.name)
        elif path.suffix == ".json":
            there, here = (_reproducible(read_json(file, "train")) for file in (path, other))
            yield from _differences(there, here, path.name)
        elif path.suffix == ".npz":
            yield from _differences(read_arrays(path), read_arrays(other), path.name)
        elif path.read_bytes() != other.read_bytes():
            yield path.name


def _differences(first: Any, second: Any, where: str) -> Iterator[str]:
    if type(first) is not type(second):
        yield f"{where}: {type(first).__name__} and {type(second).__name__}"
    elif isinstance(first, dict):
        for key in first.keys() | second.keys():
            yield from _differences(first.get(key), second.get(key), f"{where}/{key}")
    elif isinstance(first, list) and len(first) == len(second):
        for position, pair in enumerate(zip(first, second, strict=True)):
            yield from _differences(*pair, f"{where}/{position}")
    elif not _is_same(first, second):
        yield where


def _is_same(first: Any, second: Any) -> bool:
    if hasattr(first, "shape"):
        arrays = np.asarray(first), np.asarray(second)
        is_alike = arrays[0].shape == arrays[1].shape and arrays[0].dtype == arrays[1].dtype
        return is_alike and arrays[0].tobytes() == arrays[1].tobytes()
    return bool(first == second)


def _reproducible(value: Any) -> Any:
    """Drop what depends on the machine's speed, and what the trial log knew."""
    if isinstance(value, dict):
        dropped = {key for key in value if key.startswith("time/") or key == "seen_before"}
        kept = {key: item for key, item in value.items() if key not in dropped}
        return {key: _reproducible(item) for key, item in kept.items()}
    return [_reproducible(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
