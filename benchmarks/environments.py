"""Env-steps per second: the simulator in one batch and one by one, and the batched micro env.

The batch and the single portfolio run the same code, so their ratio is what batching gives.
Run: `python -m benchmarks.environments`. Writes `logs/benchmarks/environments.json`.
"""

from collections.abc import Callable

import torch

from benchmarks import cases, timing
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator import PortfolioSimulator, exposure_limit, target_weights

N_DAYS, STEPS, REPEATS = 400, 20, 7
BATCH, VEC_ENVS = 1024, 256
TARGETS = {"accounting": 0.8e6, "accounting and limits": 80e3, "vec env": 60e3}
"""Env-steps per second on two quiet cores."""


def simulated(tensors: MarketTensors, n_envs: int, *, has_limits: bool) -> Callable[[], None]:
    """Return some sessions of accounting, with or without making the targets' limits each day."""
    config = cases.configuration()
    risk, costs = config.risk, config.market_profile.costs
    simulator = PortfolioSimulator(tensors, costs, risk, n_envs)
    start = torch.zeros(n_envs, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    action = torch.rand(n_envs, tensors.n_slots, generator=generator)  # far above every limit
    exposure = exposure_limit(torch.zeros(n_envs), risk, start)

    def limited() -> torch.Tensor:
        state = simulator.state
        return target_weights(tensors, state.day, state.weights, action, exposure, risk)

    simulator.reset(start)
    target = limited()

    @torch.no_grad()
    def run() -> None:
        simulator.reset(start)
        for _ in range(STEPS):
            simulator.step(limited() if has_limits else target)

    return run


def vec_env(tensors: MarketTensors) -> Callable[[], None]:
    """Return steps of the Stable-Baselines3 env with index observations and random actions."""
    config = cases.configuration()
    level = make_level(tensors, config, "micro", VEC_ENVS)
    env = PortfolioVecEnv(level, make_starts(tensors, config, "micro", None))
    env.reset()
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(VEC_ENVS, tensors.n_slots, generator=generator).numpy()

    def run() -> None:
        for _ in range(STEPS):
            env.step(actions)

    return run


def main() -> None:
    """Measure and print."""
    tensors = cases.tensors(N_DAYS)
    measured: dict[str, timing.Case] = {}
    for name, has_limits in (("accounting", False), ("accounting and limits", True)):
        batch = simulated(tensors, BATCH, has_limits=has_limits)
        single = simulated(tensors, 1, has_limits=has_limits)
        measured[name] = (batch, BATCH * STEPS)
        measured[f"{name}, one by one"] = (single, STEPS)
    measured["vec env"] = (vec_env(tensors), VEC_ENVS * STEPS)
    rates = timing.alternate(measured, REPEATS)
    ratios = {
        name: timing.ratio(rates[name], rates[f"{name}, one by one"])["wall"]
        for name in ("accounting", "accounting and limits")
    }
    timing.publish("environments", rates, "env-steps", batch_over_single=ratios, targets=TARGETS)


if __name__ == "__main__":
    main()
