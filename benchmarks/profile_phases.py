"""Where the time of phases 3 and 4 goes: seconds of the process in each part, parts not nested.

Runs the real loop of both phases, evaluations and logging included, on a drawn market with the
default sizes. Phase 3 has the length of the quickstart: a shorter one would mostly measure the
first evaluation, which loads the compiled kernels. Run: `python -m benchmarks.profile_phases`.
Writes `logs/benchmarks/profile_phases.json`.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import cases, timing
from hrl_sarp.agents import MicroAgent
from hrl_sarp.agents.ppo.algorithm import DirichletActorCritic, MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.agents.td3.hindsight import HindsightBuffer
from hrl_sarp.envs import two_clocks
from hrl_sarp.envs.levels import MacroLevel, MicroLevel
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.fitting import History
from hrl_sarp.run.files import write_json
from hrl_sarp.run.terminal import phase_progress
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from hrl_sarp.training import rl_loop
from hrl_sarp.training.train_agents import (
    macro_algorithm,
    macro_plan,
    micro_algorithm,
    micro_plan,
)
from tests import tiny_runs

STEPS = {3: 20480, 4: 25600}
"""Weekly and daily steps."""
EVALUATION, REST = "evaluation", "library, callback and logging"
PARTS: list[tuple[Any, str, str]] = [
    (rl_loop.PhaseLoop, "evaluate", EVALUATION),
    (MacroLevel, "step", "env: rewards, goals, ends"),
    (MicroLevel, "step", "env: rewards, goals, ends"),
    (MicroAgent, "target", "env: micro partner"),
    (two_clocks, "target_weights", "env: limits and projection"),
    (PortfolioSimulator, "step", "env: accounting"),
    (TwoClocks, "micro_observation", "env: observations"),
    (TwoClocks, "macro_observation", "env: observations"),
    (DirichletActorCritic, "forward", "choice of actions"),
    (MicroTD3, "_sample_action", "choice of actions"),
    (HindsightBuffer, "add", "replay: storing"),
    (HindsightBuffer, "sample_batch", "replay: sampling and relabelling"),
    (MacroPPO, "train", "update: forward, rest"),
    (MicroTD3, "train", "update: forward, rest"),
    (MicroTD3, "_descend", "update: backward, optimiser"),
]
"""Where a function lives, its name, and the part its own time counts for."""


class Stopwatch:
    """Gives each part the time in its functions less that in parts called from them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = [(REST, time.process_time())]

    def watch(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Wrap a function; inside an evaluation everything counts for it."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._open[-1][0] == EVALUATION:
                return function(*args, **kwargs)
            self._switch()
            self._open.append((part, time.process_time()))
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()
                self._open[-1] = (self._open[-1][0], time.process_time())

        return watched

    def _switch(self) -> None:
        part, since = self._open[-1]
        self.seconds[part] += time.process_time() - since

    def close(self) -> dict[str, float]:
        """Return the seconds of every part, the largest first."""
        self._switch()
        return dict(sorted(self.seconds.items(), key=lambda item: -item[1]))


def run_phase(number: int, log_dir: Path) -> dict[str, float]:
    """Train a phase's loop from fresh agents and return the seconds of each part."""
    context = tiny_runs.context_of(cases.market(), cases.configuration(), log_dir)
    macro, micro = cases.agents(context.tensors, context.config)
    algorithm: MacroPPO | MicroTD3
    if number == 3:
        ppo = context.config.macro_agent.ppo
        algorithm = macro_algorithm(context, macro, micro, ppo)
        plan = macro_plan(context, algorithm, micro, number, STEPS[number])
    else:
        td3 = context.config.micro_agent.td3
        algorithm = micro_algorithm(context, micro, macro, td3)
        plan = micro_plan(context, algorithm, macro, number, STEPS[number])
    log = History(log_dir)
    watch = Stopwatch()
    with phase_progress("profile", STEPS[number]) as bar:
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in PARTS]
        for owner, name, part in PARTS:
            setattr(owner, name, watch.watch(getattr(owner, name), part))
        rl_loop.run_loop(algorithm, context, plan, log, bar, None)
        seconds = watch.close()
        for owner, name, original in originals:
            setattr(owner, name, original)
    log.close()
    return seconds


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {}
    for number, steps in STEPS.items():
        with TemporaryDirectory() as folder:
            seconds = run_phase(number, Path(folder))
        total = sum(seconds.values())
        sys.stdout.write(f"phase {number}: {steps:,} steps, {steps / total:,.0f} per CPU second\n")
        for part, spent in seconds.items():
            sys.stdout.write(f"  {part:36s}{spent:8.2f} s{spent / total:8.1%}\n")
        result[f"phase {number}"] = {"steps": steps, "cpu_seconds": seconds}
    write_json(timing.ROOT / "logs" / "benchmarks" / "profile_phases.json", result)


if __name__ == "__main__":
    main()
