import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from loguru import logger
from threadpoolctl import threadpool_info

import hrl_sarp
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run import session
from hrl_sarp.run.session import (
    LOCK_FILE,
    RunFolder,
    StopFlag,
    configure_logging,
    configure_threads,
    file_errors_shown_once,
    resolve_device,
    seed_everything,
)
from tests.limits import largest_file


def test_run_folder_makes_missing_parents(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "logs" / "phase_1").path.is_dir()


def test_run_folder_over_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(HrlSarpError, match=r"cannot make run folder .*choose another --log-dir"):
        RunFolder(tmp_path / "logs")


def test_second_run_in_a_locked_folder_is_refused_and_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        folder.lock(),
        pytest.raises(HrlSarpError, match=f"in use by process {os.getpid()}; wait until it ends"),
        folder.lock(),
    ):
        pytest.fail("two runs hold one folder")


def test_lock_is_free_again_after_the_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path).lock():
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_lock_is_free_again_after_an_error_in_the_run(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path).lock():
        raise ZeroDivisionError
    with RunFolder(tmp_path).lock():
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    # The child dies by SIGKILL inside the lock, so it cannot tidy up.
    child = (
        "import os, signal, sys, pathlib\n"
        "from hrl_sarp.run.session import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(hrl_sarp.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", child, str(tmp_path)], cwd=root, check=False)  # noqa: S603 -- our own text
    assert ended.returncode == -signal.SIGKILL
    assert int((tmp_path / LOCK_FILE).read_text()) != os.getpid()
    with RunFolder(tmp_path).lock():
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_the_lock_file_goes_with_the_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path).lock():
        assert (tmp_path / LOCK_FILE).is_file()
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_a_run_that_wrote_nothing_go_with_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "logs" / "0").lock():
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_folders_made_for_a_run_stay_with_what_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "0"
    with RunFolder(folder).lock():
        (folder / "metrics.json").touch()
    assert list(folder.iterdir()) == [folder / "metrics.json"]


def test_no_two_runs_hold_a_folder_while_others_come_and_go(tmp_path: Path) -> None:
    # Each holder removes the lock file, so that others may have opened the file that is gone.
    inside, held, crowds = [], [], []

    def come_and_go() -> None:
        for _ in range(25):
            with suppress(HrlSarpError), RunFolder(tmp_path).lock():
                inside.append(1)
                crowds.append(len(inside))
                time.sleep(0.0005)
                held.append(inside.pop())

    runs = [threading.Thread(target=come_and_go) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(held) >= 25
    assert set(crowds) == {1}


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with (
        pytest.raises(HrlSarpError, match="cannot write to run folder"),
        RunFolder(tmp_path).lock(),
    ):
        pytest.fail("locked without a lock file")


def test_seeding_repeats_every_global_generator() -> None:
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002, S311 -- the global state is the subject
    assert draws[0] == draws[1]


def test_threads_are_set_for_torch_and_numpy() -> None:
    before = torch.get_num_threads()
    for n_threads in (2, 1):
        configure_threads(n_threads)
        assert torch.get_num_threads() == n_threads
        algebra = [part for part in threadpool_info() if part["user_api"] == "blas"]
        # a library that was built for one thread stays at one
        assert max(part["num_threads"] for part in algebra) == n_threads
    configure_threads(before)


def test_waiting_threads_do_not_spin() -> None:
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    ("name", "n_cuda_devices", "expected"),
    [
        ("cpu", 0, "cpu"),
        ("cpu", 1, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cuda", 1, "cuda"),
    ],
)
def test_device_is_resolved(
    name: str, n_cuda_devices: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda_devices > 0)
    assert resolve_device(name) == torch.device(expected)


def test_missing_cuda_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HrlSarpError, match=r"sees no CUDA device; use --device cpu"):
        resolve_device("cuda")


def test_unknown_device_is_refused_with_the_choices() -> None:
    with pytest.raises(HrlSarpError, match="one of auto, cpu, cuda, found 'tpu'"):
        resolve_device("tpu")


def test_log_file_is_named_by_time_and_holds_ascii_lines(tmp_path: Path) -> None:
    path = configure_logging(tmp_path)
    logger.info("Sharpe 1.2 \N{PLUS-MINUS SIGN} 0.3")
    logger.remove()
    assert re.fullmatch(r"train_\d{8}_\d{6}\.log", path.name)
    line = path.read_bytes().decode("ascii").rstrip("\n")
    day = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(day + r" \| INFO \| test_session \| Sharpe 1\.2 \\xb1 0\.3", line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_sets_the_flag_and_the_run_goes_on(number: signal.Signals) -> None:
    with StopFlag() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set


def test_second_ctrl_c_interrupts_at_once() -> None:
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.is_set


def test_a_second_sigterm_changes_nothing() -> None:
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set


def test_work_without_a_boundary_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STOP_SECONDS", 0.02)
    with StopFlag():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(30.0)


def test_what_follows_a_boundary_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "STOP_SECONDS", 0.02)
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set
        threading.Event().wait(0.1)  # a checkpoint that takes longer to write


def test_former_signal_handlers_come_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with StopFlag():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in numbers] == before
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_log_without_a_message_is_no_file(tmp_path: Path) -> None:
    configure_logging(tmp_path)
    logger.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_raises_where_it_is_used(tmp_path: Path) -> None:
    configure_logging(tmp_path)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        logger.debug("x" * 200)
    logger.remove()


def test_only_file_errors_of_other_threads_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda problem: shown.append(problem.exc_type))
    with file_errors_shown_once():
        for error in (OSError("disk full"), ValueError("a bug")):
            thread = threading.Thread(target=_raise, args=[error])
            thread.start()
            thread.join()
    assert shown == [ValueError]


def _raise(error: Exception) -> None:
    raise error


def test_busy_work_is_interrupted_where_no_signal_reaches_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(signal, "pthread_kill")
    monkeypatch.setattr(session, "STOP_SECONDS", 0.02)
    with StopFlag():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            _work_for(30.0)


def _work_for(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass
