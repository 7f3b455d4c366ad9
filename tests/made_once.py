"""Folders that take seconds to make, made by one of the processes that run the tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

WORKER = "PYTEST_XDIST_WORKER"
"""Set by pytest-xdist in processes of one run, whose temporary folders lie side by side."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that no test may change; the first process that asks makes it.

    Only a folder that tests read and copy may be shared: one into which a test writes, be it a
    cache, changes while another process copies it. A folder whose making failed is made again.
    """
    base = factory.getbasetemp()
    base = base.parent if WORKER in os.environ else base
    folder, done = base / f"once-{name}", base / f"once-{name}.done"
    with FileLock(base / f"once-{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
