"""A step that is killed at any moment: nothing is lost, nothing is booked twice."""

import os
import signal
import sys
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.cli import main
from hrl_sarp.daily.paper.account import PaperAccount
from tests.daily.conftest import N_DAYS, Site
from tests.daily.paper.conftest import DAYS, PaperSite

KILLS = 20
FIRST_ROW = 660
"""Of the account; forty sessions are missing."""
MOMENTS = ("at any time", "while it writes", "after it has written")
"""When a command is killed; each in turn."""
MOST_ROWS = 5
"""Rows that a command may write before it is killed at one."""
LONGEST_WRITE = 0.004
"""Seconds after the journal appears, or is gone, in which the kill comes."""
PRELOADED = (
    *("hrl_sarp.cli.live", "hrl_sarp.daily.paper.step", "hrl_sarp.data.quality.validation"),
    *("hrl_sarp.training.phase", "torch_geometric.nn", "exchange_calendars"),
)
"""Modules that take most of the seconds of a command, so that its processes begin with them."""


def test_killed_commands_change_nothing(site: Site, tmp_path: Path) -> None:
    met = kill_commands(site, tmp_path, KILLS, seed=1)
    assert met["at work"] > KILLS / 2
    assert met["row unfinished"] > 0
    assert met["row finished"] > 0


def kill_commands(site: Site, folder: Path, n_kills: int, seed: int) -> Counter[str]:
    """Kill `hrl-sarp paper step` in processes of their own, and read the file after each kill.

    The journal of SQLite stands beside the file while a row is written. A third of the kills comes
    at any time, a third just after the journal appeared, a third just after it is gone.

    Returns:
        How many kills met a command at work, left a journal (`row unfinished`), and came after a
        new row (`row finished`).
    """
    paper_site, rng = PaperSite(site, site.raw, folder), np.random.default_rng(seed)
    path, met = folder / "killed.sqlite", Counter[str]()
    paper_site.begin(path, 1, N_DAYS - 1, DAYS[FIRST_ROW])
    content = path.read_bytes()
    for _ in range(2):  # the first one also starts the server, and fills caches
        path.write_bytes(content)
        began = time.monotonic()
        assert end_of(start_step(path, paper_site)) == 0
        seconds = time.monotonic() - began
    with PaperAccount.open(path) as account:
        expected = account.days
    assert len(expected) == N_DAYS - FIRST_ROW
    path.write_bytes(content)
    known = 1
    for number in range(n_kills):
        if known + MOST_ROWS > len(expected):
            path.write_bytes(content)
            known = 1
        child = start_step(path, paper_site)
        wait_for(MOMENTS[number % len(MOMENTS)], child, path, rng, seconds)
        child.kill()
        met["at work"] += end_of(child) == -signal.SIGKILL
        met["row unfinished"] += journal(path).exists()
        with PaperAccount.open(path) as account:  # checks every row
            days = account.days
        assert days == expected[: len(days)]
        assert len(days) >= known, "a session was lost"
        met["row finished"] += len(days) > known
        known = len(days)
    assert end_of(start_step(path, paper_site)) == 0
    with PaperAccount.open(path) as account:
        assert account.days == expected
    return met


def start_step(path: Path, paper_site: PaperSite) -> ForkServerProcess:
    """Start the command in a process of its own."""
    context = get_context("forkserver")  # this process has threads, which a fork would lose
    context.set_forkserver_preload(list(PRELOADED))
    given = ["--account", path, "--data-dir", paper_site.whole, "--settings", paper_site.settings]
    child = context.Process(target=step, args=([*map(str, given)],))
    child.start()
    return child


def step(options: list[str]) -> None:
    """Run the command in this process."""
    sys.argv = ["hrl-sarp", "paper", "step", *options]
    sys.exit(main())


def end_of(child: ForkServerProcess) -> int | None:
    """Wait for a process; its exit code, or the negative number of the signal that ended it."""
    child.join()
    return child.exitcode


def journal(path: Path) -> Path:
    """Return where SQLite keeps what a transaction changes, until it is done."""
    return path.with_name(f"{path.name}-journal")


def wait_for(
    moment: str,
    child: ForkServerProcess,
    path: Path,
    rng: np.random.Generator,
    seconds: float,
) -> None:
    """Wait until a command is to be killed, at the latest until it ends."""
    if moment == "at any time":
        time.sleep(rng.uniform(0.0, 0.9 * seconds))
        return
    changes = 2 * int(rng.integers(0, MOST_ROWS)) + (1 if moment == "while it writes" else 2)
    for number in range(changes):
        while journal(path).exists() == (number % 2 == 1) and child.is_alive():
            time.sleep(1e-4)  # a row takes some milliseconds
    time.sleep(rng.uniform(0.0, LONGEST_WRITE))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
]
