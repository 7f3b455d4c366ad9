"""A run that is killed at random batches and resumed must end as one that nobody disturbed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np

from hrl_sarp.fitting import Fit
from tests.end_to_end.phase_runs import assert_same

KILLS = 3
"""At most, of one run."""


class Train(Protocol):
    """Makes a run in a folder, or continues it there."""

    def __call__(self, folder: Path, *, resume: bool) -> object: ...


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` of the package sees it, nothing is saved after."""


def assert_kills_change_nothing(
    train: Train,
    outcome: Callable[[Path], Any],
    folder: Path,
    seed: int,
) -> None:
    """Train once undisturbed and once killed up to three times; compare every bit of the results.

    Args:
        train: runs to the end in a folder. Let it write a checkpoint at every batch
            (`checkpoint_seconds` 0) or at some of them.
        outcome: reads what a finished run left: nested dicts and lists of tensors and values
            without anything that depends on the clock.
        folder: for both runs.
        seed: of the batches at which the run is killed.
    """
    whole, killed = folder / "whole", folder / "killed"
    with _killed_after(None) as updates:
        train(whole, resume=False)
    rng = np.random.default_rng(seed)
    deaths = 0
    for _ in range(KILLS):
        with _killed_after(int(rng.integers(1, updates[0]))):
            try:
                train(killed, resume=deaths > 0)
            except Killed:
                deaths += 1
    if deaths == KILLS:
        train(killed, resume=True)
    assert deaths > 0
    assert_same(outcome(killed), outcome(whole))


@contextmanager
def _killed_after(updates: int | None) -> Iterator[list[int]]:
    """Kill the run within an update: it is made, but nothing has looked at it. Yields the count."""
    made, step = [0], Fit._step

    def counted(self: Fit, *arguments: Any) -> Any:
        result = step(self, *arguments)
        made[0] += 1
        if made[0] == updates:
            raise Killed
        return result

    with patch.object(Fit, "_step", counted):
        yield made
