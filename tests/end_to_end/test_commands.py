"""Whole runs as a user starts them: killed and interrupted ones leave what an undisturbed one does.

Both runs begin anew in folders of their own, so equality also says that equal commands give equal
bits.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import collect
from hrl_sarp.run.files import read_json
from tests.end_to_end.phase_runs import assert_same, outcome, running_path

pytestmark = pytest.mark.slow

STOPPED = 130
PATIENCE_SECONDS = 400.0

# In which phase, and by what. Phase 4 is disturbed twice; every run after the first resumes.
DISTURBANCES = [
    (1, signal.SIGKILL),
    (3, signal.SIGKILL),
    (4, signal.SIGKILL),
    (4, signal.SIGINT),
    (5, signal.SIGKILL),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market") / "raw"
    collect("sample", folder, load_config(market="sample"))
    return folder


@pytest.fixture(scope="module")
def undisturbed_log(raw: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    log_dir = tmp_path_factory.mktemp("first") / "logs"
    process = _start(repository, raw, log_dir)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    return log_dir


@pytest.fixture(scope="module")
def disturbed_log(raw: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    log_dir = tmp_path_factory.mktemp("second") / "logs"
    delays = np.random.default_rng(0).uniform(0.0, 0.3, len(DISTURBANCES))
    for i, ((number, kind), delay) in enumerate(zip(DISTURBANCES, delays, strict=True)):
        process = _start(repository, raw, log_dir, *(["--resume"] if i else []))
        path = running_path(number, log_dir)
        _wait_for_change(path, process)
        time.sleep(delay)
        unfinished = set(log_dir.rglob("*.tmp*"))  # left by earlier kills
        assert process.poll() is None, "the run ended before it was disturbed"
        assert path.is_file()
        process.send_signal(kind)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        if kind == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == STOPPED, err
            assert "--resume" in err.splitlines()[-1]
            assert "Traceback" not in out + err
            assert set(log_dir.rglob("*.tmp*")) <= unfinished
    process = _start(repository, raw, log_dir, "--resume")
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    return log_dir


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_agents_and_metrics_are_the_same(
    number: int, undisturbed_log: Path, disturbed_log: Path
) -> None:
    assert_same(outcome(number, disturbed_log), outcome(number, undisturbed_log))
    assert not running_path(number, disturbed_log).exists()


@pytest.mark.parametrize("name", ["ledger.parquet", "daily.parquet"])
def test_ledgers_are_the_same(name: str, undisturbed_log: Path, disturbed_log: Path) -> None:
    first, second = (folder / "backtest" / name for folder in (undisturbed_log, disturbed_log))
    assert first.read_bytes() == second.read_bytes()


def test_the_figures_of_the_backtest_are_the_same(
    undisturbed_log: Path, disturbed_log: Path
) -> None:
    first, second = (
        read_json(folder / "backtest" / "metrics.json", "this test")
        for folder in (undisturbed_log, disturbed_log)
    )
    assert_same(first, second)


def test_a_finished_run_is_not_repeated(raw: Path, undisturbed_log: Path, repository: Path) -> None:
    best = list(undisturbed_log.rglob("best_*.pt"))
    before = {path: path.stat().st_mtime_ns for path in best}
    process = _start(repository, raw, undisturbed_log, "--resume", "--phase", "4")
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "finished already" in err
    assert {path: path.stat().st_mtime_ns for path in best} == before


def _start(repository: Path, raw: Path, log_dir: Path, *options: str) -> subprocess.Popen[str]:
    folders = ["--data-dir", str(raw), "--log-dir", str(log_dir)]
    command = [sys.executable, "main.py", "train", "--experiment", "smoke", *folders, *options]
    return subprocess.Popen(  # noqa: S603 -- our own interpreter
        command,
        cwd=repository,
        # each run counts its own trials: what a run before it has tried would lower its ratios
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HRL_SARP_TRIAL_LOG": str(log_dir.parent / "trials.jsonl"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_change(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the checkpoint is there and is none that an earlier process wrote."""
    former = path.stat().st_mtime_ns if path.is_file() else None
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert time.monotonic() < deadline, f"no checkpoint at {path}"
        assert process.poll() is None, process.communicate()[1]
        try:
            if path.stat().st_mtime_ns != former:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.002)
