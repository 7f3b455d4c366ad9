"""How time and memory grow with stocks, days and envs, drawn into `docs/figures/cost_curves.png`.

Times are seconds of the process, the least of several turns, on one thread. Memory is counted from
the arrays: those of the market, of its tensors, and of the portfolios with one step of results.
Run: `OMP_NUM_THREADS=1 python -m benchmarks.curves`. Writes `logs/benchmarks/curves.json`.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks import cases, environments, timing
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.evaluation.baselines import make_random_portfolios
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.files import write_json
from hrl_sarp.simulator import PortfolioSimulator
from tests import factories

STOCKS = (30, 100, 300, 1000, 3000, 5000)
DAYS = (250, 500, 1000, 2500, 5000, 10000)
ENVS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
FEW_DAYS, FEW_STOCKS, FEW_ENVS = 60, 100, 64
"""What stays the same while something else grows."""
TURNS, N_SECTORS = 5, 10
LARGE_STOCKS, LARGE_DAYS = 10_000, 20 * 252
FIGURE = timing.ROOT / "docs" / "figures" / "cost_curves.png"


def market(n_stocks: int, n_days: int) -> Market:
    """Draw a market in which every stock is always in the universe."""
    rng = np.random.default_rng(0)
    overnight, intraday = rng.normal(0, 0.01, (2, n_days, n_stocks))
    return factories.market_with(overnight, intraday, np.arange(n_stocks) % N_SECTORS)


def least_seconds(run: Callable[[], object], turns: int = TURNS) -> float:
    """Return the least that the process spends on a run, after one that warms up."""
    run()
    spent = []
    for _ in range(turns):
        started = time.process_time()
        run()
        spent.append(time.process_time() - started)
    return min(spent)


def size_mb(owner: Any) -> float:
    """Return the size of all arrays and tensors of an object."""
    values = [value for value in vars(owner).values() if hasattr(value, "nbytes")]
    return sum(value.nbytes for value in values) / 2**20


def step_point(n_stocks: int, n_envs: int) -> dict[str, float]:
    """Measure microseconds and MB of a portfolio-day, with limits and without."""
    tensors = MarketTensors(market(n_stocks, FEW_DAYS), torch.float32, "cpu")
    point: dict[str, float] = {"stocks": n_stocks, "envs": n_envs}
    for name, has_limits in (("accounting", False), ("accounting and limits", True)):
        run = environments.simulated(tensors, n_envs, has_limits=has_limits)
        point[name] = 1e6 * least_seconds(run) / (n_envs * environments.STEPS)
    config = cases.configuration()
    costs = config.market_profile.costs
    simulator = PortfolioSimulator(tensors, costs, config.risk, n_envs)
    simulator.reset(torch.zeros(n_envs, dtype=torch.int64))
    result = simulator.step(torch.zeros(n_envs, n_stocks))
    point["mb"] = size_mb(simulator.state) + size_mb(result)
    return point


def table_point(n_stocks: int, n_days: int) -> dict[str, float]:
    """Measure seconds to place a market on the device and to backtest on it, and its MB."""
    drawn, config = market(n_stocks, n_days), cases.configuration()
    policies, span = make_random_portfolios(config), DayRange(20, n_days)
    tensors = MarketTensors(drawn, torch.float32, "cpu")
    return {
        "stocks": n_stocks,
        "days": n_days,
        "placing": least_seconds(lambda: MarketTensors(drawn, torch.float32, "cpu"), 2),
        "backtest": least_seconds(lambda: backtest(drawn, policies, span, config), 2),
        "policies": len(policies),
        "market_mb": size_mb(drawn),
        "tensors_mb": size_mb(tensors),
    }


def large(point: dict[str, float]) -> dict[str, float]:
    """Scale a point to many stocks and years as if all of it grew with stocks x days.

    Of the backtest this is a bound from above, because calls cost the same for few stocks.
    """
    factor = LARGE_STOCKS * LARGE_DAYS / (point["stocks"] * point["days"])
    scaled = ("placing", "backtest", "market_mb", "tensors_mb")
    return {name: factor * point[name] for name in scaled}


def draw(found: dict[str, list[dict[str, float]]]) -> Figure:
    """Draw a column for each thing that grows: time above, memory below."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex="col")
    n_policies = found["days"][0]["policies"]
    titles = {
        "stocks": f"{FEW_ENVS} envs",
        "envs": f"{FEW_STOCKS} stocks",
        "days": f"{FEW_STOCKS} stocks, {n_policies:.0f} policies",
    }
    for (above, below), (grows, points) in zip(panels.T, found.items(), strict=True):
        is_table = grows == "days"
        times = ("backtest", "placing") if is_table else ("accounting and limits", "accounting")
        sizes = ("market_mb", "tensors_mb") if is_table else ("mb",)
        unit = "seconds" if is_table else "microseconds a portfolio-day"
        for axes, kinds, label in ((above, times, unit), (below, sizes, "MB")):
            for kind in kinds:
                values = [point[kind] for point in points]
                axes.plot([point[grows] for point in points], values, marker="o", label=kind)
            axes.set(xscale="log", yscale="log", ylabel=label)
            axes.grid(visible=True, alpha=0.3)
        above.set_title(titles[grows])
        above.legend()
        below.set_xlabel(grows)
        below.legend([k.removesuffix("_mb").replace("mb", "portfolios and a day") for k in sizes])
    return figure


def main() -> None:
    """Measure, draw and print."""
    torch.set_num_threads(1)
    found = {
        "stocks": [step_point(n_stocks, FEW_ENVS) for n_stocks in STOCKS],
        "envs": [step_point(FEW_STOCKS, n_envs) for n_envs in ENVS],
        "days": [table_point(FEW_STOCKS, n_days) for n_days in DAYS],
    }
    scaled = large(found["days"][-1])
    for name, points in found.items():
        for point in points:
            print(name, {key: float(f"{value:.3g}") for key, value in point.items()})
    print(LARGE_STOCKS, "stocks,", LARGE_DAYS, "days:", {k: round(v, 1) for k, v in scaled.items()})
    write_json(timing.ROOT / "logs" / "benchmarks" / "curves.json", {**found, "large": scaled})
    save_png(FIGURE, draw(found))


if __name__ == "__main__":
    main()
