"""A phase whose process is killed ends, once resumed, exactly as one that was left alone."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.training import run_phase
from hrl_sarp.training.phase import PhaseContext
from tests.end_to_end.phase_runs import (
    assert_same,
    copy_before,
    outcome,
    running_path,
    small_context,
)
from tests.fitting.kills import assert_kills_change_nothing

PATIENCE_SECONDS = 120.0

# After how many checkpoints each process is killed. Phases 1 and 2 write one after each of 3 and 4
# batches of an epoch and one at its end; a resumed phase 3 to 5 writes its first where the former
# stopped.
KILLS = [
    (1, [1, 5]),
    (2, [7]),
    (3, [1, 1]),
    (4, [3, 7, 4]),
    pytest.param(5, [2, 5], marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "kills"), KILLS)
def test_a_killed_phase_ends_as_the_undisturbed_one(
    number: int, kills: list[int], undisturbed: Path, tmp_path: Path
) -> None:
    context = small_context(copy_before(number, undisturbed, tmp_path))
    delays = np.random.default_rng(number).uniform(0.0, 0.02, len(kills))
    for i, (checkpoints, delay) in enumerate(zip(kills, delays, strict=True)):
        path = running_path(number, tmp_path)
        with _child(number, replace(context, resume=i > 0)) as process:
            _wait_for_checkpoints(path, checkpoints, process)
            time.sleep(delay)  # so that kills fall anywhere, writing a file included
            assert _is_alive(process), "the phase ended before it was killed"
            assert path.is_file()
    assert not context.has(number)
    run_phase(number, replace(context, resume=True))
    assert_same(outcome(number, tmp_path), outcome(number, undisturbed))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("number", [1, 2])
def test_a_supervised_phase_killed_at_random_batches_ends_as_the_undisturbed_one(
    number: int, seed: int, undisturbed: Path, tmp_path: Path
) -> None:
    def train(folder: Path, *, resume: bool) -> None:
        if not folder.exists():
            copy_before(number, undisturbed, folder)
        run_phase(number, small_context(folder, resume=resume))

    assert_kills_change_nothing(train, partial(outcome, number), tmp_path, seed)


@contextmanager
def _child(number: int, context: PhaseContext) -> Iterator[int]:
    """Run a phase in a child process; it is killed at the end of the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside idle threads
        process = os.fork()
    if process == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # a copy has none of PyTorch's threads to wait for
            run_phase(number, context)
            code = 0
        finally:
            os._exit(code)
    try:
        yield process
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _is_alive(process: int) -> bool:
    # WNOWAIT leaves an ended child for the waitpid of `_child`
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _wait_for_checkpoints(path: Path, count: int, process: int) -> None:
    """Wait until the file was replaced so many times, beside the one that is there already."""
    seen = {_version(path)}
    fresh = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while fresh < count:
        assert time.monotonic() < deadline, f"{path} saw {fresh} of {count} checkpoints"
        assert _is_alive(process), f"the phase ended after {fresh} of {count} checkpoints"
        version = _version(path)
        if version not in seen:
            fresh += 1
            seen.add(version)
        time.sleep(0.0005)


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
