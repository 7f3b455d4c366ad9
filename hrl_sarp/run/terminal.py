"""Log lines and progress bars on the terminal.

This module is apart from `session` because that one takes a second to import.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

SCREEN_FORMAT = "{time:HH:mm:ss} | {level: <7} | {message}"


def accept_any_console() -> None:
    """Show `?` for a sign that the encoding of stdout or stderr lacks; without this it is an error.

    Every entry point calls this once, before anything is printed.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none
        if reconfigure is not None:
            reconfigure(errors="replace")


def say(line: str, *, is_problem: bool = False) -> None:
    """Write a line to stdout, or to stderr if it tells of a problem.

    Not `typer.echo`: on an ASCII console that writes UTF-8.
    """
    stream = sys.stderr if is_problem else sys.stdout
    if stream is not None:  # a program without a console, such as pythonw
        stream.write(f"{line}\n")
        stream.flush()


def log_to_screen() -> None:
    """Send log lines to the screen alone, and close the files they went to."""
    logger.remove()
    # a function, because sys.stderr may be replaced later, for example by a test
    logger.add(_show, format=SCREEN_FORMAT, level="INFO", diagnose=False)


def _show(line: str) -> None:
    sys.stderr.write(line)


class PhaseBar:
    """The bar of one phase."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress, self._task = progress, task

    @classmethod
    def silent(cls) -> "PhaseBar":
        """Return a bar that shows nothing, for a part of a phase that has its own bar."""
        return cls()

    def update(self, done: int, note: str = "") -> None:
        """Move the bar to `done` finished units; the note is shown behind it."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)


@contextmanager
def phase_progress(title: str, total: int, done: int = 0) -> Iterator[PhaseBar]:
    """Show a bar on the terminal's error stream; nothing where that is not a terminal.

    `done` counts the units that an earlier run finished.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        yield PhaseBar(progress, progress.add_task(title, total=total, completed=done, note=""))
