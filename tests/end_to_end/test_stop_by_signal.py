"""Ctrl-C and SIGTERM end a run within seconds, wherever it is, and say how to resume."""

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hrl_sarp.cli.entry import STOPPED
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import collect
from hrl_sarp.fitting import Fit
from hrl_sarp.market import assemble
from hrl_sarp.run import session
from hrl_sarp.run.session import LOCK_FILE
from hrl_sarp.training import certify, rl_loop
from tests.command_line import Command, Result
from tests.end_to_end.tiny_site import EXPERIMENT, Site

EVALUATION = importlib.import_module("hrl_sarp.evaluation.backtest")  # the package has a function
SIGNALS = [signal.SIGTERM, signal.SIGINT]
AT_A_BOUNDARY = "the same command with --resume instead of --overwrite continues exactly there"
AT_ONCE = "the same command with --resume continues from the last checkpoint"
ANEW_PHASE = ("--overwrite", "--phase")
INSTEAD = AT_ONCE.replace("--resume", "--resume instead of --overwrite")
ANEW = "the same command begins anew"


def assert_stopped(result: Result, site: Site, how: str) -> None:
    code, _, err = result
    assert code == STOPPED
    assert "Traceback" not in err
    assert how in err.splitlines()[-1]
    assert not (site.log_dir / LOCK_FILE).exists()
    assert [path for path in site.root.rglob("*") if ".tmp" in path.name] == []


def then(action: Callable[[], object], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with something that happens before each call."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        action()
        return function(*arguments, **options)

    return wrapped


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("phase", [1, 3])
def test_a_phase_stops_at_its_next_boundary(
    phase: int,
    number: signal.Signals,
    site: Site,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "STOP_SECONDS", 600.0)  # a busy machine is no fault
    module, name = {1: (Fit, "_run_epoch"), 3: (rl_loop.PhaseLoop, "evaluate")}[phase]
    sent = then(lambda: signal.raise_signal(number), getattr(module, name))
    monkeypatch.setattr(module, name, sent)
    result = command(
        "train", "--overwrite", "--phase", phase, *site.folders, "--experiment", EXPERIMENT
    )
    assert_stopped(result, site, AT_A_BOUNDARY)


@pytest.mark.parametrize("phase", [1, 3])
def test_a_phase_that_reaches_no_boundary_is_interrupted(
    phase: int, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work_for_long() -> None:
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait(60.0)

    monkeypatch.setattr(session, "STOP_SECONDS", 0.05)
    module, name = {1: (Fit, "_run_epoch"), 3: (rl_loop.PhaseLoop, "evaluate")}[phase]
    monkeypatch.setattr(module, name, then(work_for_long, getattr(module, name)))
    began = time.monotonic()
    result = command(
        "train", "--overwrite", "--phase", phase, *site.folders, "--experiment", EXPERIMENT
    )
    assert time.monotonic() - began < 60.0
    assert_stopped(result, site, INSTEAD)


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("arguments", "module", "name", "how"),
    [
        (["train", "--overwrite"], assemble, "assemble_market", INSTEAD),
        (["train", "--resume"], assemble, "assemble_market", AT_ONCE),
        (["backtest"], EVALUATION, "run_backtest", ANEW),
    ],
    ids=["market", "market of a resumed run", "backtest"],
)
def test_outside_of_phases_a_run_ends_at_once(
    arguments: list[str],
    module: Any,
    name: str,
    how: str,
    number: signal.Signals,
    site: Site,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in (site.root / "data" / "market").iterdir():
        if name == "assemble_market":
            path.unlink()
    before = site.content()
    sent = then(lambda: signal.raise_signal(number), getattr(module, name))
    monkeypatch.setattr(module, name, sent)
    assert_stopped(command(*arguments, *site.folders, "--experiment", EXPERIMENT), site, how)
    assert site.content() == before


@pytest.mark.parametrize("number", SIGNALS, ids=["SIGTERM", "SIGINT"])
def test_no_backtest_begins_after_a_signal_in_the_certification(
    number: signal.Signals, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(certify, "run_curriculum", lambda _: None)
    monkeypatch.setattr(certify, "certify", lambda *_: signal.raise_signal(number))
    monkeypatch.setattr(EVALUATION, "run_backtest", lambda *_: begun.append("backtest"))
    result = command("train", "--resume", *site.folders, "--experiment", EXPERIMENT)
    assert_stopped(result, site, AT_A_BOUNDARY.replace(" instead of --overwrite", ""))
    assert begun == []


# Real processes of the bundled sample


LONGEST_CPU_SECONDS = 10.0
"""Between a signal and the end. Processor time, for other work on the machine is no fault."""
PATIENCE_SECONDS = 600.0
PLACES = {
    "import": "",
    "market": "",
    **{f"phase {n}": rf"phase {n} (\(.*\) begins|continues)" for n in range(1, 6)},
    "backtest": "phase 5 (wrote|has finished already)",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market") / "raw"
    collect("sample", folder, load_config(market="sample"))
    return folder


@pytest.mark.slow
def test_real_runs_end_within_seconds_everywhere(
    raw: Path, tmp_path: Path, repository: Path
) -> None:
    work = {"import": 1.0, "market": 4.0}  # processor seconds before the signal
    for i, (place, pattern) in enumerate(PLACES.items()):
        screen = tmp_path / f"{i}.txt"
        process = _start(repository, raw, tmp_path, screen)
        _wait_for(pattern, screen, process)
        used = _cpu_seconds(process.pid)
        until = max(used + 0.3, work.get(place, 0.0))
        while used < until:
            time.sleep(0.02)
            used = _cpu_seconds(process.pid)
        process.send_signal(SIGNALS[i % 2])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        text = screen.read_text()
        assert process.returncode == STOPPED, f"{place}: {text}"
        assert "Traceback" not in text
        assert "--resume continues" in text.splitlines()[-1]
        assert usage.ru_utime + usage.ru_stime - used < LONGEST_CPU_SECONDS, place


def _start(repository: Path, raw: Path, folder: Path, screen: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "main.py", "train", "--experiment", "smoke", "--resume"]
    command += ["--data-dir", str(raw), "--log-dir", str(folder / "logs")]
    with screen.open("wb") as out:
        return subprocess.Popen(  # noqa: S603 -- our own interpreter
            command,
            cwd=repository,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
        )


def _wait_for(pattern: str, screen: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not re.search(pattern, screen.read_text()):
        assert time.monotonic() < deadline, f"{pattern} not in {screen.read_text()}"
        assert process.poll() is None, screen.read_text()
        time.sleep(0.02)


def _cpu_seconds(process: int) -> float:
    """Return what a process has used so far (Linux tells only there)."""
    values = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
