"""Times cases in turn in one process, so that whatever else the machine does hits them alike.

PyTorch uses all cores unless OMP_NUM_THREADS says otherwise; on a busy machine set it to 1, because
threads that wait for each other wait for everybody.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hrl_sarp.run.files import write_json

ROOT = Path(__file__).parents[1]

Case = tuple[Callable[[], object], int]
"""What to run, and how many units of work (steps, updates) one call is."""


@dataclass(frozen=True)
class Rate:
    """Units of work per second over several repeats.

    `cpu_median` counts the time of the process and its children only: what a quiet machine gives.
    """

    best: float
    median: float
    cpu_median: float

    def seconds_spent(self) -> dict[str, float]:
        """Return the seconds that one unit takes."""
        return {"median": 1 / self.median, "best": 1 / self.best, "cpu": 1 / self.cpu_median}


def alternate(cases: Mapping[str, Case], repeats: int) -> dict[str, Rate]:
    """Run every case once untimed, then all of them in turn, `repeats` times."""
    for run, _ in cases.values():
        run()
    wall: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, (run, _) in cases.items():
            started, cpu_started = time.perf_counter(), _cpu_seconds()
            run()
            cpu[name].append(_cpu_seconds() - cpu_started)
            wall[name].append(time.perf_counter() - started)
    return {
        name: Rate(units / min(wall[name]), units / median(wall[name]), units / median(cpu[name]))
        for name, (_, units) in cases.items()
    }


def _cpu_seconds() -> float:
    """Return what this process and its ended children have used."""
    owners = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(owner)[:2]) for owner in owners)


def ratio(ours: Rate, peer: Rate) -> dict[str, float]:
    """Return how many times faster ours is, by the wall and by the process's own time."""
    return {"wall": ours.median / peer.median, "cpu": ours.cpu_median / peer.cpu_median}


def publish(name: str, rates: Mapping[str, Rate], unit: str, **facts: Any) -> Path:
    """Print the table and write `logs/benchmarks/<name>.json`."""
    load = os.getloadavg()[0]
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "torch": torch.__version__,
    }
    write = sys.stdout.write
    write(f"{name}: {unit}/s on {machine['threads']} threads, load {load:.1f}\n")
    write(f"  {'':36s}{'median':>12s}{'best':>12s}{'per CPU s':>12s}\n")
    for case, rate in rates.items():
        write(f"  {case:36s}{rate.median:12,.6g}{rate.best:12,.6g}{rate.cpu_median:12,.6g}\n")
    for key, value in facts.items():
        write(f"  {key}: {_shown(value)}\n")
    rows = {case: vars(rate) for case, rate in rates.items()}
    path = ROOT / "logs" / "benchmarks" / f"{name}.json"
    return write_json(path, {"machine": machine, "unit": unit, "rates": rows, **facts})


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)
