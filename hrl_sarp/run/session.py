"""Sets up a run: folder, lock, threads, seeds, device, log and stop signals."""

import _thread
import importlib.util
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from loguru import logger
from threadpoolctl import threadpool_limits

from hrl_sarp.errors import ConfigError, HrlSarpError
from hrl_sarp.run.terminal import log_to_screen

LOCK_FILE = "run.lock"
LOCK_SECONDS = 0.2
"""How long a run waits for its folder, in case another run is just ending."""
FILE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level} | {module} | {message}"
DEVICES = ("auto", "cpu", "cuda")
STOP_SECONDS = 5.0
"""How long a stop waits for the next safe boundary before it interrupts the computation."""


class RunFolder:
    """The folder a run writes to; made when it is missing.

    Messages name the command's `option` for it.
    """

    def __init__(self, path: Path, option: str = "--log-dir") -> None:
        self.path, self.option = path, option
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HrlSarpError(
                f"cannot make run folder {path}: {error.strerror}; choose another {option}"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other run out of the folder while the block runs.

        The operating system holds the lock, so it ends with the process even after a crash. The
        process id in the file is for the message. At the end the file is removed, and so are
        folders that were made here and are still empty.
        """
        lock = FileLock(
            self.path / LOCK_FILE, timeout=LOCK_SECONDS, is_singleton=False, on_acquired=_sign
        )
        try:
            lock.acquire()
        except Timeout as error:
            raise HrlSarpError(
                f"run folder {self.path} is in use by process {_holder(lock.lock_file)}; wait "
                f"until it ends, stop it, or choose another {self.option}"
            ) from error
        except OSError as error:
            raise HrlSarpError(
                f"cannot write to run folder {self.path}: {error.strerror}; "
                f"choose another {self.option}"
            ) from error
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)  # before the release: nobody else's
            lock.release()
            with suppress(OSError):  # something was written
                for folder in self._made:
                    folder.rmdir()


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())


def _holder(lock_file: str) -> str:
    try:
        return Path(lock_file).read_text(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


def configure_threads(n_threads: int) -> None:
    """Let PyTorch and the algebra of NumPy use this many CPU threads.

    Results are bit-identical for equal counts only. The matrices of a market are so small that more
    threads wait for each other longer than they compute.
    """
    torch.set_num_threads(n_threads)
    threadpool_limits(n_threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one CPU thread while the block runs.

    For tensors so small that threads would wait for each other longer than they compute.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def seed_everything(seed: int) -> None:
    """Seed the global generators that libraries draw from; our own code is handed generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- Stable-Baselines3 and hmmlearn draw from it
    torch.manual_seed(seed)


def derive_seed(seed: int, *role: int) -> int:
    """Return an independent seed for one role of a run, so that no two streams share draws.

    `role` holds numbers that name the stream, for example phase and part. Seeds are below 2**32.
    """
    return int(np.random.SeedSequence([seed, *role]).generate_state(1)[0])


def resolve_device(name: str) -> torch.device:
    """Turn "auto" (CUDA if there is one), "cpu" or "cuda" into a device that exists."""
    if name not in DEVICES:
        raise HrlSarpError(f"device must be one of {', '.join(DEVICES)}, found '{name}'")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise HrlSarpError(
            f"device 'cuda' was asked for, but PyTorch {torch.__version__} sees no CUDA device; "
            "use --device cpu or --device auto"
        )
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def require_extra(package: str, extra: str) -> None:
    """Refuse work that needs a package of an optional extra, before it begins.

    Args:
        package: that is imported.
        extra: of `pip install hrl-sarp[EXTRA]`, which brings it.

    Raises:
        HrlSarpError: if the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise HrlSarpError(
            f"{package} is not installed, and this needs it: pip install 'hrl-sarp[{extra}]'"
        )


def require_bfloat16(setting: str, device: torch.device) -> None:
    """Refuse to compute in bfloat16 on a processor that cannot, before the work begins.

    Args:
        setting: of the configuration that asks for it.
        device: of the computation; CUDA devices are not asked.

    Raises:
        ConfigError: on a CPU whose LSTMs have no bfloat16.
    """
    if device.type == "cpu" and not cpu_has_bfloat16():
        raise ConfigError(
            f"{setting} is true, but this processor cannot compute in bfloat16 (no AVX512); "
            "set it to false"
        )


@cache
def cpu_has_bfloat16() -> bool:
    """Return whether LSTMs have bfloat16 here; PyTorch can only be asked by trying."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        try:
            torch.nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
        except RuntimeError:
            return False
    return True


def configure_logging(log_dir: Path, name: str | None = None) -> Path:
    """Send log lines to the screen and to a file of `log_dir`; return its path.

    `train_YYYYMMDD_HHMMSS.log` (local time), or the file `name` that every run adds to, is made
    with the first message and holds ASCII lines `time | LEVEL | module | message`.
    """
    started = datetime.now().astimezone()
    path = RunFolder(log_dir).path / (name or f"train_{started:%Y%m%d_%H%M%S}.log")
    log_to_screen()
    logger.add(
        path,
        format=FILE_FORMAT,
        level="DEBUG",
        diagnose=False,
        encoding="ascii",
        errors="backslashreplace",
        delay=True,
        catch=False,  # a full disk ends the run in one line, not in a traceback per message
    )
    return path


@contextmanager
def file_errors_shown_once() -> Iterator[None]:
    """Print no OSError of other threads: TensorBoard raises it again in the thread that uses it."""
    former = threading.excepthook
    threading.excepthook = lambda problem: (
        None if issubclass(problem.exc_type, OSError) else former(problem)
    )
    try:
        yield
    finally:
        threading.excepthook = former


class StopFlag:
    """Ctrl-C and SIGTERM as a flag that a training loop reads at its next safe boundary.

    Use it as a context manager in the main thread; the former handlers come back at the end.
    The first signal sets the flag. If the loop does not read it within `STOP_SECONDS`, or at a
    second Ctrl-C, KeyboardInterrupt ends the run at once. The work since the last checkpoint is
    lost then, as after a kill.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._wait: threading.Timer | None = None
        self._former: dict[signal.Signals, Any] = {}

    @property
    def is_set(self) -> bool:
        """True once a stop was asked for."""
        if self._is_set:  # a boundary is reached: saving may take longer than the wait
            self._end_wait()
        return self._is_set

    def __enter__(self) -> "StopFlag":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_wait()
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._is_set and number == signal.SIGINT:  # the time is over, or Ctrl-C again
            raise KeyboardInterrupt
        if not self._is_set:
            self._is_set = True
            self._wait = threading.Timer(STOP_SECONDS, _interrupt_main_thread)
            self._wait.daemon = True
            self._wait.start()

    def _end_wait(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
            if self._wait.is_alive():
                self._wait.join()


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # wakes it from a system call, too
    else:
        _thread.interrupt_main()
