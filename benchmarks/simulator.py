"""Env-steps per second of the simulator in one batch, beside the same simulator one env at a time.

Both run in this process on the same market, one after the other; the ratio is the claim.
Run: `python benchmarks/simulator.py`. Writes `logs/benchmarks/simulator.json`.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hrl_sarp.artifacts import write_json  # noqa: E402 -- needs the path
from hrl_sarp.contracts import Market  # noqa: E402
from hrl_sarp.market.tensors import MarketTensors  # noqa: E402
from hrl_sarp.simulator import PortfolioSimulator, exposure_limit, target_weights  # noqa: E402
from tests import factories  # noqa: E402

N_ENVS, N_DAYS = 1024, 250


def env_steps_per_second(market: Market, n_envs: int, *, has_limits: bool) -> float:
    """Time a quarter of the market's sessions after one that does not count."""
    tensors = MarketTensors(market, torch.float32, "cpu")
    risk = factories.risk_config()
    simulator = PortfolioSimulator(tensors, factories.cost_config(), risk, n_envs)
    simulator.reset(torch.zeros(n_envs, dtype=torch.int64))
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(n_envs, tensors.n_slots, generator=generator)
    exposure = exposure_limit(torch.zeros(n_envs), risk, torch.zeros(n_envs).long())

    def limited() -> torch.Tensor:
        state = simulator.state
        return target_weights(tensors, state.day, state.weights, actions, exposure, risk)

    target, n_steps = limited(), N_DAYS // 4
    simulator.step(target)
    started = time.perf_counter()
    for _ in range(n_steps):
        simulator.step(limited() if has_limits else target)
    return n_steps * n_envs / (time.perf_counter() - started)


def main() -> None:
    """Measure and print, on one thread: two spin against whatever else the machine does."""
    torch.set_num_threads(1)
    market = factories.random_market(
        np.random.default_rng(0),
        n_days=N_DAYS,
        n_sectors=10,
        slots_per_sector=10,
        halts=False,
        delistings=False,
    )
    rows = {}
    with torch.no_grad():
        for name, has_limits in (("accounting", False), ("accounting and limits", True)):
            batch = env_steps_per_second(market, N_ENVS, has_limits=has_limits)
            single = env_steps_per_second(market, 1, has_limits=has_limits)
            rows[name] = {"batch": batch, "single": single, "ratio": batch / single}
            sys.stdout.write(
                f"{name:24s} {batch:12,.0f} env-steps/s in a batch of {N_ENVS}, "
                f"{single:8,.0f} one at a time: {batch / single:6.0f}x\n"
            )
    path = ROOT / "logs" / "benchmarks" / "simulator.json"
    write_json(path, {"n_envs": N_ENVS, "n_assets": market.n_assets, **rows})


if __name__ == "__main__":
    main()
