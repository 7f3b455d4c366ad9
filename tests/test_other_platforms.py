"""What other operating systems lack is needed by nothing that is imported."""

import subprocess
import sys
from pathlib import Path

WITHOUT = """
import signal, sys, warnings
sys.modules["fcntl"] = None  # `import fcntl` now fails, as on Windows
del signal.setitimer, signal.getitimer, signal.SIGALRM, signal.pthread_kill
warnings.simplefilter("ignore")  # filelock says that it has native locks on neither
"""
HELP = """
import hrl_sarp
from hrl_sarp.cli import main
from hrl_sarp.cli.app import app
for name in (None, *(command.name for command in app.registered_commands)):
    sys.argv = ["hrl-sarp", *filter(None, [name]), "--help"]
    assert main() == 0
"""
IMPORTS = """
import importlib, pkgutil
import hrl_sarp
for module in pkgutil.walk_packages(hrl_sarp.__path__, "hrl_sarp."):
    importlib.import_module(module.name)
"""


def run_without_them(repository: Path, code: str) -> str:
    ended = subprocess.run(  # noqa: S603 -- our own text
        [sys.executable, "-c", WITHOUT + code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_help_of_every_command_needs_neither_file_locks_nor_timers(repository: Path) -> None:
    assert "--data-dir" in run_without_them(repository, HELP)


def test_every_module_can_be_imported_without_file_locks_and_timers(repository: Path) -> None:
    run_without_them(repository, IMPORTS)
