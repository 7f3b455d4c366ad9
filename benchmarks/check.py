"""Names what got slower: short cases beside a calibration of the same run, against a stored one.

A case's figure is its seconds over those of the calibration, which mixes what the cases mix: loops
of Python, products of matrices, passes over memory. Both are seconds of the process. The
calibration runs before and after every run of a case, and the figure is the median of several
turns, so that a busy machine changes little. `make bench-check` fails if a figure is more than 20 %
above that of `benchmarks/baseline.json`. Run: `python -m benchmarks.check`. Writes
`logs/benchmarks/check.json`; `--write` stores the baseline anew.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch

from benchmarks import cases, environments, features, td3, timing
from hrl_sarp.contracts import DayRange
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.evaluation.baselines import make_random_portfolios
from hrl_sarp.features.stock import compute_stock_features
from hrl_sarp.run.files import write_json
from tests import factories

BASELINE = timing.ROOT / "benchmarks" / "baseline.json"
ALLOWED, TURNS, MORE_TURNS = 1.2, 7, 21
"""Largest figure over its baseline; turns of each case, and of those that look slower."""
N_STOCKS, N_DAYS = 60, 300
N_FEATURED = 40
"""Stocks of the case of features: larger arrays are mapped anew by some processes, not by others.
"""


def calibration() -> Callable[[], object]:
    """Return work that nobody here can make faster: interpreter, arithmetic and memory."""
    rng = np.random.default_rng(0)
    matrix = torch.as_tensor(rng.normal(size=(192, 192)))
    table = rng.normal(size=(1024, 256))

    def run() -> float:
        total = 0.0
        for i in range(60_000):
            total += (i % 7) * 0.5
        for _ in range(12):
            total += float((matrix @ matrix)[0, 0])
        for _ in range(6):
            total += float(np.abs(table * 1.5 - table).sum())
        return total

    return run


def measured() -> dict[str, Callable[[], object]]:
    """Return the cases: some tens of milliseconds of each thing that a user waits for."""
    config, tensors = cases.configuration(), cases.tensors(N_DAYS)
    rng = np.random.default_rng(0)
    market = factories.random_market(rng, N_DAYS, 6, N_STOCKS // 6)
    span, policies = DayRange(N_DAYS - 60, N_DAYS), make_random_portfolios(config)
    prices = features.panel(N_DAYS, N_FEATURED)
    names, clip = config.market_profile.stock_features, config.data.feature_clip
    learner = td3.our_algorithm()
    return {
        "accounting": environments.simulated(tensors, 256, has_limits=False),
        "accounting and limits": environments.simulated(tensors, 256, has_limits=True),
        "one portfolio": environments.simulated(tensors, 1, has_limits=True),
        "vec env": environments.vec_env(tensors, 128),
        "backtest": partial(backtest, market, policies, span, config),
        "stock features": partial(compute_stock_features, prices, names, clip),
        "TD3 updates": partial(learner.train, 2),
    }


def figures(chosen: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Return the median over some turns of seconds over those of the calibration around them."""
    calibrate = calibration()
    ratios: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(turns + 1):
        before = seconds(calibrate)
        for name, run in chosen.items():
            spent, after = seconds(run), seconds(calibrate)
            ratios[name].append(2 * spent / (before + after))
            before = after
    return {name: median(found[1:]) for name, found in ratios.items()}  # the first turn warms up


def seconds(run: Callable[[], object]) -> float:
    """Return what the process spends on a run."""
    started = time.process_time()
    run()
    return time.process_time() - started


def slower(found: Mapping[str, float], stored: Mapping[str, float]) -> dict[str, float]:
    """Return by what factor cases are above their baseline, for those above what is allowed."""
    factors = {name: found[name] / stored[name] for name in found}
    return {name: factor for name, factor in factors.items() if factor > ALLOWED}


def missing(found: Mapping[str, float], stored: Mapping[str, float]) -> list[str]:
    """Return the cases that only one side has."""
    return sorted(found.keys() ^ stored.keys())


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and compare; 1 if something got slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the figures as the baseline")
    should_write = parser.parse_args(arguments).write
    torch.set_num_threads(1)
    chosen = measured()
    found = figures(chosen, MORE_TURNS if should_write else TURNS)
    if should_write:
        write_json(BASELINE, {"figures": found})
        print(f"wrote {BASELINE}")
        return 0
    stored: dict[str, float] = json.loads(BASELINE.read_text(encoding="utf-8"))["figures"]
    if unlike := missing(found, stored):
        print(f"no comparison for {', '.join(unlike)}: store the baseline anew with --write")
        return 1
    if doubtful := slower(found, stored):  # by a busy moment, perhaps
        again = figures({name: chosen[name] for name in doubtful}, MORE_TURNS)
        found |= {name: min(found[name], figure) for name, figure in again.items()}
    for name, figure in found.items():
        print(f"  {name:24s}{figure:10.3f}{figure / stored[name]:8.2f} x the baseline")
    late = slower(found, stored)
    for name, factor in late.items():
        print(f"slower: {name}, {factor:.2f} times its baseline, allowed {ALLOWED}")
    path = timing.ROOT / "logs" / "benchmarks" / "check.json"
    write_json(path, {"figures": found, "baseline": stored, "slower": late})
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
