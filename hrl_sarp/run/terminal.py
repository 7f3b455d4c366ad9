"""Log lines and progress bars on the terminal.

This module is apart from `session` because that one takes a second to import.
"""

import itertools
import re
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

PROGRAM, SCRIPT = "hrl-sarp", "main.py"
"""Names of the installed command and of the file that runs it from a clone."""
LABEL, NUMBERS = 30, 38
"""Characters of the bar's label at most, and of all that stands behind the bar."""
UNITS = 1000
"""Units of a whole run on the screen: a bar counts in whole numbers of them."""
FOLDERS = ("--data-dir", "--log-dir", "--account")
PLACES = (*FOLDERS, "--market", "--experiment", "--config")
"""Options that say what a command is about. A command that a message names is about the same."""
NAMED_COMMAND = re.compile(rf"`{PROGRAM} ([^`]+)`")
TRUSTED = 30.0
"""Seconds of work that it takes until the pace of this process counts as much as the expected one.
A first epoch compiles, and a phase that stops early finishes at once: alone, they tell no pace."""


def accept_any_console() -> None:
    """Show `?` for a sign that the encoding of stdout or stderr lacks; without this it is an error.

    Every entry point calls this once, before anything is printed.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none
        if reconfigure is not None:
            reconfigure(errors="replace")


_options_of_commands: list[Callable[[], Mapping[str, Collection[str]]]] = []
"""Tells which options each command takes; empty outside of the command line."""


def know_commands(options: Callable[[], Mapping[str, Collection[str]]]) -> None:
    """Let `say` complete the commands that a message names.

    Args:
        options: gives the options of each command by its name; asked where a message names one.
    """
    _options_of_commands[:] = [options]


def say(line: str, *, is_problem: bool = False) -> None:
    """Write a line to stdout, or to stderr if it tells of a problem.

    It names commands as this one was called, and about the same folders and configuration. Not
    `typer.echo`: on an ASCII console that writes UTF-8.
    """
    if _options_of_commands and (given := _given_places()) and NAMED_COMMAND.search(line):
        options = _options_of_commands[0]()
        line = NAMED_COMMAND.sub(lambda found: _completed(found[1], given, options), line)
    if Path(sys.argv[0]).name == SCRIPT:
        line = line.replace(f"{PROGRAM} ", f"python {shlex.quote(sys.argv[0])} ")
    stream = sys.stderr if is_problem else sys.stdout
    if stream is not None:  # a program without a console, such as pythonw
        stream.write(f"{line}\n")
        stream.flush()


def _given_places() -> dict[str, str]:
    """Return the options of `PLACES` of this command; one that is repeated tells no single place.

    Examples:
        >>> former, sys.argv = sys.argv, ["hrl-sarp", "train", "--config=mine", "--seed", "1"]
        >>> _given_places()
        {'--config': 'mine'}
        >>> sys.argv = former
    """
    words = [part for word in sys.argv[1:] for part in _halves(word)]
    pairs = [pair for pair in itertools.pairwise(words) if pair[0] in PLACES]
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def _halves(word: str) -> list[str]:
    name, sign, value = word.partition("=")
    return [name, value] if sign and name in PLACES else [word]


def _completed(
    command: str, given: Mapping[str, str], options: Mapping[str, Collection[str]]
) -> str:
    """Return a named command with the given places that it takes and does not state."""
    words = command.split()
    taken = next((options[name] for name in (" ".join(words[:2]), words[0]) if name in options), ())
    if set(taken).isdisjoint(FOLDERS):  # it is about no folder of a run, such as `init`
        return f"`{PROGRAM} {command}`"
    added = [
        f"{name} {shlex.quote(value)}"
        for name, value in given.items()
        if name in taken and name not in words
    ]
    return f"`{' '.join([PROGRAM, command, *added])}`"


def log_to_screen() -> None:
    """Send log lines to the screen alone, and close the files they went to."""
    logger.remove()
    # a function, because sys.stderr may be replaced later, for example by a test
    logger.add(_show, format=_screen_format, level="INFO", diagnose=False)


def _screen_format(record: Any) -> str:
    """Name the level of a problem alone, so that a line of numbers fits on a narrow screen."""
    is_problem = record["level"].no >= logger.level("WARNING").no
    level = "{level}: " if is_problem else ""
    return f"{{time:HH:mm:ss}} {level}{{message}}\n{{exception}}"


def _show(line: str) -> None:
    sys.stderr.write(line)


@dataclass
class _Line:
    """The one bar on the screen, which all parts of a run move."""

    progress: Progress
    task: Any
    stretches: list[tuple[float, float, str]] = field(default_factory=lambda: [(0.0, 1.0, "")])
    """Nested parts of the run: where each begins and ends, as shares of the run, and its label."""
    is_taken: bool = False
    """A part counts at the moment; parts inside it are silent."""
    done: float = 0.0
    """Share of the run that is finished."""
    found: float = 0.0
    """Share of the run that an earlier process had finished: it tells no pace."""
    seconds: float | None = None
    """How long the whole run is expected to take; None where nobody said so."""
    began: float | None = None
    """Time when the work began: at the first count, or when its seconds were said."""
    moved: float = 0.0
    """Time when `done` was set."""

    def label(self, title: str = "") -> None:
        """Show the labels of the nested parts, else a title."""
        labels = [label for _, _, label in self.stretches if label]
        text = ", ".join(labels) or title
        shown = text if len(text) <= LABEL else f"{text[: LABEL - 3]}..."
        self.progress.update(self.task, description=shown, rate="")

    def begin(self) -> None:
        """Start the clock of the work, once."""
        if self.began is None:
            self.began = self.moved = time.monotonic()

    def move(self, share: float, rate: str = "") -> None:
        """Show which share of the innermost part is done."""
        self.begin()
        low, high, _ = self.stretches[-1]
        self.done = max(self.done, low + share * (high - low))
        self.moved = time.monotonic()
        self.progress.update(self.task, completed=UNITS * self.done, rate=rate)

    def find(self, share: float) -> None:
        """Count a share of the innermost part as finished by an earlier process."""
        low, high, _ = self.stretches[-1]
        self.found += share * (high - low)

    def left(self) -> float | None:
        """Return the seconds that are left; None while nothing tells them.

        The estimate is made when something was counted, and runs down until the next count. It
        does not fall below what comes after the innermost part, because that is untouched.
        """
        worked = self.done - self.found
        if self.began is None or (self.seconds is None and worked < 1 / UNITS):
            return None
        spent = self.moved - self.began
        if self.seconds is None:
            whole = spent / worked
        else:  # expected seconds, times how much slower this process has been
            whole = self.seconds * (spent + TRUSTED) / (self.seconds * worked + TRUSTED)
        after = whole * (1 - self.stretches[-1][1])
        return max(1.0, after, whole * (1 - self.done) - (time.monotonic() - self.moved))


_lines: list[_Line] = []
"""The line on the screen, if there is one."""


class _TimeLeft(ProgressColumn):
    """Time that is left; never 0 while work goes on."""

    def render(self, task: Task) -> Text:
        left = _lines[-1].left() if _lines else None
        if left is None:
            return Text(f"{_clock(task.elapsed or 0)} so far")
        return Text(f"{_clock(left)} left")


def _clock(seconds: float) -> str:
    """Write a time as hours:minutes:seconds, however many hours: days would not fit."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def expect_seconds(seconds: float) -> None:
    """Say how long the innermost part of the run takes a process like the one that was measured.

    The time left on the screen follows from it until this process has shown a pace of its own.

    Args:
        seconds: above 0.
    """
    if _lines and not _lines[-1].is_taken:
        low, high, _ = _lines[-1].stretches[-1]
        _lines[-1].seconds = seconds / (high - low)
        _lines[-1].begin()


def found_finished() -> None:
    """Say that an earlier process had finished the innermost part of the run."""
    if _lines and not _lines[-1].is_taken:
        _lines[-1].find(1.0)


@contextmanager
def run_progress() -> Iterator[None]:
    """Show one bar for all parts of a run on the terminal's error stream, until the block ends.

    Nothing is shown where that is not a terminal. `stretch` says which part is which share.
    """
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=max(8, min(40, console.width - LABEL - NUMBERS))),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        _TimeLeft(),
        console=console,
        transient=True,
        redirect_stdout=False,  # it may be a file
        refresh_per_second=4,
        disable=not console.is_terminal,
    )
    with progress:
        _lines.append(_Line(progress, progress.add_task("", total=UNITS, rate="")))
        try:
            yield
        finally:
            _lines.pop()


@contextmanager
def stretch(low: float, high: float, label: str = "") -> Iterator[None]:
    """Let the parts inside the block move the run's bar between two shares of the part around it.

    Args:
        low: share at which the block begins.
        high: share at which it ends.
        label: name on the screen.
    """
    if not _lines or _lines[-1].is_taken:
        yield
        return
    line = _lines[-1]
    begin, end, _ = line.stretches[-1]
    inside = begin + low * (end - begin), begin + high * (end - begin)
    line.stretches.append((*inside, label))
    line.label()
    try:
        yield
        line.move(1.0)
    finally:
        line.stretches.pop()


class PhaseBar:
    """The count of one part of a run."""

    def __init__(self, line: _Line | None = None, total: int = 1, done: int = 0, unit: str = ""):
        self._line, self._total, self._first, self._unit = line, total, done, unit
        self._began, self._offset = time.monotonic(), 0

    @classmethod
    def silent(cls) -> "PhaseBar":
        """Return a count that shows nothing."""
        return cls()

    def shifted(self, offset: int) -> "PhaseBar":
        """Return the same count for a piece of work that begins after `offset` units."""
        bar = PhaseBar(self._line, self._total, self._first, self._unit)
        bar._began, bar._offset = self._began, offset
        return bar

    def update(self, done: int) -> None:
        """Move the bar to `done` finished units, with their rate."""
        if self._line is None:
            return
        done += self._offset
        spent = time.monotonic() - self._began
        rate = (done - self._first) / spent if spent > 0 and self._unit else 0.0
        digits = 0 if rate >= 10 else 1
        shown = f"{rate:,.{digits}f} {self._unit}/s" if rate else ""
        self._line.move(min(1.0, done / max(1, self._total)), shown)


@contextmanager
def phase_progress(title: str, total: int, done: int = 0, unit: str = "") -> Iterator[PhaseBar]:
    """Count a part of a run on the run's bar, or on a bar of its own outside of a run.

    Args:
        title: shown where no `stretch` has a label.
        total: units of the part.
        done: units that an earlier process finished.
        unit: name of a unit, for the rate; empty shows none.

    Yields:
        The count; a silent one inside another count.
    """
    with nullcontext() if _lines else run_progress():
        line = _lines[-1]
        if line.is_taken:
            yield PhaseBar.silent()
            return
        line.is_taken = True
        line.label(title)
        line.find(done / max(1, total))
        line.move(done / max(1, total))
        try:
            yield PhaseBar(line, total, done, unit)
        finally:
            line.is_taken = False
