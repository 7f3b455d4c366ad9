"""A step that is killed at any moment: nothing is lost, nothing is booked twice."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.daily.paper.known import KnownMarkets
from hrl_sarp.daily.paper.step import step_account
from tests.daily.conftest import N_DAYS
from tests.daily.paper.conftest import DAYS, LAST_BAR, NOW, RULES, PaperSite

KILLS = 25


def test_kills_at_random_moments_change_nothing(paper_site: PaperSite, tmp_path: Path) -> None:
    killed_in_between, identical = kill_at_random(paper_site, tmp_path, KILLS, seed=0)
    assert killed_in_between > KILLS / 4
    assert identical


def kill_at_random(
    paper_site: PaperSite, folder: Path, n_kills: int, seed: int
) -> tuple[int, bool]:
    """Kill steps over all sessions, each in a process of its own, and read the file each time.

    Returns:
        How many kills met a step before its end; whether the end is that of an undisturbed account.
    """
    start, rng = DAYS[LAST_BAR + 5], np.random.default_rng(seed)
    whole, calm = paper_site.markets(N_DAYS - 1), folder / "calm.sqlite"
    paper_site.begin(calm, 1, N_DAYS - 1, start)
    content = calm.read_bytes()
    began = time.monotonic()
    with PaperAccount.open(calm) as account:
        step_account(account, whole, RULES, NOW)
        expected = account.days
    seconds, met, identical = time.monotonic() - began, 0, True
    path = folder / "killed.sqlite"
    done = 0
    while done < n_kills:
        path.write_bytes(content)
        known = 1
        while done < n_kills and known < len(expected):
            met += kill_once(path, whole, rng.uniform(0.0, 0.6 * seconds))
            done += 1
            with PaperAccount.open(path) as account:  # checks every row
                days = account.days
            assert days == expected[: len(days)]
            assert len(days) >= known, "a session was lost"
            known = len(days)
        with PaperAccount.open(path) as account:
            step_account(account, whole, RULES, NOW)
            identical &= account.days == expected
    return met, identical


def kill_once(path: Path, markets: KnownMarkets, after: float) -> int:
    """Step in a child, kill it after some seconds, and say whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            with PaperAccount.open(path) as account:
                step_account(account, markets, RULES, NOW)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return int(os.WIFSIGNALED(status))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
]
