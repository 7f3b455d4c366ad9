"""Running phases on a tiny market, stopping them at chosen moments and reading what they left."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import StoppedEarly
from hrl_sarp.run.checkpoints import load_payload
from hrl_sarp.run.earlier import RUNNING
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.session import StopFlag
from hrl_sarp.training import run_phase
from hrl_sarp.training.phase import PhaseContext
from tests.tiny_runs import changed, context_of, tiny_config, tiny_market

Outcome = dict[str, Any]

SMALL: dict[str, Any] = {
    "macro_agent": {
        "network": {"dropout": 0.2},
        "pretrain": {"epochs": 3},
        "ppo": {"total_timesteps": 48, "n_envs": 4, "n_steps": 4},
    },
    "micro_agent": {"pretrain": {"epochs": 3}, "td3": {"total_timesteps": 192, "n_envs": 8}},
    "curriculum": {
        "checkpoint_seconds": 0.0,
        "joint": {"max_rounds": 1, "macro_steps": 16, "micro_steps": 96},
    },
}
"""Boundaries: 3 epochs in phases 1 and 2, 3 rollouts in phase 3, 24 in phase 4, 1 + 12 in 5."""


class StopAfter(StopFlag):
    """A stop flag that nobody sets: it becomes true at the given look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def is_set(self) -> bool:
        """Count down."""
        self.looks -= 1
        return self.looks <= 0


def small_config(**values: Any) -> RunConfig:
    """Return a configuration with dropout that writes a checkpoint at every boundary."""
    return changed(changed(tiny_config(), SMALL), values)


def small_context(log_dir: Path, *, resume: bool = False, **values: Any) -> PhaseContext:
    """Return a context over the one market of these tests."""
    return context_of(tiny_market(), small_config(**values), log_dir, resume=resume)


def copy_before(number: int, source: Path, target: Path) -> Path:
    """Copy the folders of all phases before one."""
    for files in PHASES[: number - 1]:
        shutil.copytree(source / files.folder, target / files.folder)
    return target


def run_with_stops(number: int, context: PhaseContext, looks: list[int]) -> int:
    """Stop at each of these looks at the flag, resume after each, then run to the end.

    Returns:
        How many stops really came before the end.
    """
    stops = 0
    for count in looks:
        stopping = replace(context, stop=StopAfter(count), resume=stops > 0)
        try:
            run_phase(number, stopping)
        except StoppedEarly:
            stops += 1
            continue
        return stops
    run_phase(number, replace(context, resume=True))
    return stops


def outcome(number: int, log_dir: Path) -> Outcome:
    """Read the metrics and every tensor of the best files of a finished phase."""
    files = PHASES[number - 1]
    folder = log_dir / files.folder
    left: Outcome = {"metrics": read_json(folder / files.metrics, "this test")}
    for name in files.best:
        left[name] = load_payload(folder / name)
    return left


def running_path(number: int, log_dir: Path) -> Path:
    """Return where an unfinished phase keeps its checkpoint."""
    return log_dir / PHASES[number - 1].folder / RUNNING


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Compare nested values: tensors by torch.equal, everything else exactly."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype, where
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for position, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}/{position}")
    else:
        assert first == second, where


def differs(first: Any, second: Any) -> bool:
    """Say whether `assert_same` would fail."""
    try:
        assert_same(first, second)
    except AssertionError:
        return True
    return False
