"""Env-steps per second and memory: the simulator in one batch and one by one, and the envs.

Each batch also runs without the compiled kernels, in PyTorch alone, so that their ratio is what the
kernels give. The batch and the single portfolio run the same code: their ratio is what batching
gives. Memory and start are of the micro env on the bundled sample: as one batch, and as one process
a worker. Run: `python -m benchmarks.environments`. Writes `logs/benchmarks/environments.json`.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import gymnasium
import torch
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from benchmarks import cases, timing
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator import (
    PortfolioSimulator,
    exposure_limit,
    limits,
    portfolio,
    target_weights,
)

N_DAYS, STEPS, REPEATS = 400, 20, 7
BATCH = 1024
TARGETS = {"accounting": 3e6, "accounting and limits": 1e6, "vec env": 300e3}
"""Env-steps per second on two quiet cores."""
WORKERS = {"batch": 256, "processes": 2}


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


def vec_env(tensors: MarketTensors, n_envs: int) -> Callable[[], None]:
    """Return steps of the Stable-Baselines3 env with index observations and random actions."""
    config = cases.configuration()
    level = make_level(tensors, config, "micro", n_envs)
    env = PortfolioVecEnv(level, make_starts(tensors, config, "micro", None))
    env.reset()
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(n_envs, tensors.n_slots, generator=generator).numpy()

    def run() -> None:
        for _ in range(STEPS):
            env.step(actions)

    return run


def in_pytorch(run: Callable[[], None]) -> Callable[[], None]:
    """Return the same without the compiled kernels."""

    def reference() -> None:
        with (
            patch.object(portfolio, "fused_session", return_value=None),
            patch.object(limits, "fused_targets", return_value=None),
        ):
            run()

    return reference


def started(kind: str, n_envs: int) -> dict[str, float]:
    """Start envs in a fresh process; returns seconds and resident MB of it and of its workers."""
    code = "import json, benchmarks.environments as e; print(json.dumps(e.memory({!r}, {})))"
    command = [sys.executable, "-c", code.format(kind, n_envs)]
    done = subprocess.run(command, cwd=timing.ROOT, check=True, capture_output=True)  # noqa: S603 -- our own
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(kind: str, n_envs: int) -> dict[str, float]:
    """Start and step once `n_envs` micro envs of the sample, `batch` or `processes`."""
    start = time.perf_counter()
    env: VecEnv
    if kind == "batch":
        env = PortfolioVecEnv.of("micro", n_envs)
    else:
        env = SubprocVecEnv([partial(gymnasium.make, "hrl_sarp.envs:hrl_sarp/Micro-v0")] * n_envs)
    env.reset()
    env.step([env.action_space.sample() for _ in range(n_envs)])
    seconds = time.perf_counter() - start
    workers = [process.pid for process in getattr(env, "processes", [])]
    resident = [resident_mb(pid) for pid in workers]
    env.close()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"envs": n_envs, "seconds": seconds, "main_mb": own, "workers_mb": sum(resident)}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process of Linux, shared pages included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Measure and print."""
    tensors = cases.tensors(N_DAYS)
    measured: dict[str, timing.Case] = {}
    for name, has_limits in (("accounting", False), ("accounting and limits", True)):
        batch = simulated(tensors, BATCH, has_limits=has_limits)
        single = simulated(tensors, 1, has_limits=has_limits)
        measured[name] = (batch, BATCH * STEPS)
        measured[f"{name}, in PyTorch"] = (in_pytorch(batch), BATCH * STEPS)
        measured[f"{name}, one by one"] = (single, STEPS)
    steps = vec_env(tensors, BATCH)
    measured["vec env"] = (steps, BATCH * STEPS)
    measured["vec env, in PyTorch"] = (in_pytorch(steps), BATCH * STEPS)
    rates = timing.alternate(measured, REPEATS)
    ratios = {
        peer: {name: timing.ratio(rates[name], rates[f"{name}, {peer}"]) for name in names}
        for peer, names in (("in PyTorch", list(TARGETS)), ("one by one", list(TARGETS)[:2]))
    }
    memories = {kind: started(kind, WORKERS[kind]) for kind in WORKERS}
    for kind, found in memories.items():
        print(kind, {name: round(value, 1) for name, value in found.items()})
    timing.publish(
        "environments",
        rates,
        "env-steps",
        ratios=ratios,
        targets=TARGETS,
        memory=memories,
    )


if __name__ == "__main__":
    main()
