"""Who runs the cells of a study on this machine: processes of their own, or this one."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.terminal import accept_any_console
from hrl_sarp.studies.cell import SCREEN, Cell, Study, record_failure, run_cell

ORPHANED = 137
"""Exit code of a cell whose runner was killed, as of a process that was killed itself."""
GIB = 2**30


@runtime_checkable
class Workers(Protocol):
    """Runs cells beside each other."""

    def __len__(self) -> int:
        """Return how many cells run."""
        ...

    def begin(self, study: Study, cell: Cell, needs: Sequence[Cell]) -> None:
        """Begin a cell.

        Args:
            study: that it belongs to.
            cell: to run; when it has ended, its folder holds its measures or a reason.
            needs: finished cells whose folders it reads.
        """
        ...

    def first_to_end(self, study: Study) -> Cell:
        """Wait until a cell has ended, well or not.

        Args:
            study: that it belongs to.

        Returns:
            The cell, which runs no longer.
        """
        ...

    def stop(self) -> None:
        """End all cells that run."""
        ...


@dataclass
class ThisProcess:
    """Runs one cell after the other, here."""

    ended: list[Cell] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many cells run."""
        return len(self.ended)

    def begin(self, study: Study, cell: Cell, needs: Sequence[Cell]) -> None:
        """Run a cell to its end."""
        run_cell(study, cell)
        self.ended.append(cell)

    def first_to_end(self, study: Study) -> Cell:
        """Return the cell that was run."""
        return self.ended.pop()

    def stop(self) -> None:
        """Do nothing: no cell runs."""


@dataclass
class LocalProcesses:
    """Runs each cell in a fresh process, whose memory ends with it."""

    memory_gib: float | None = None
    """Limit of a cell; one that asks for more fails, and the others go on."""
    running: dict[int, tuple[Cell, BaseProcess]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory_gib is not None and sys.platform == "win32":
            raise HrlSarpError("--memory: this system cannot limit a process; leave it out")

    def __len__(self) -> int:
        """Return how many cells run."""
        return len(self.running)

    def begin(self, study: Study, cell: Cell, needs: Sequence[Cell]) -> None:
        """Start the process of a cell."""
        spawn = multiprocessing.get_context("spawn")
        arguments = (study, cell, self.memory_gib)
        process = spawn.Process(target=_run_apart, args=arguments, name=cell.name)
        process.start()
        self.running[process.sentinel] = (cell, process)

    def first_to_end(self, study: Study) -> Cell:
        """Wait until a process ends; if it left no word of its own, say how it ended."""
        ended = set(connection.wait(list(self.running)))
        first = next(sentinel for sentinel in self.running if sentinel in ended)
        cell, process = self.running.pop(first)
        process.join()
        if process.exitcode:
            told = f"the process ended with exit code {process.exitcode}; see {SCREEN} beside this"
            record_failure(study, cell, told)
        return cell

    def stop(self) -> None:
        """End the processes: Ctrl-C reaches those of the same terminal, other signals do not."""
        for _, process in self.running.values():
            process.terminate()
        for _, process in self.running.values():
            process.join()


def _run_apart(study: Study, cell: Cell, memory_gib: float | None) -> None:
    """Run a cell in a process of its own."""
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    with printed_to(study.folder / cell.name / SCREEN):
        if memory_gib is not None:
            _limit_memory(memory_gib)
        run_cell(study, cell)


@contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Let everything that this process prints go to a file, also what libraries in C print."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as screen:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(screen.fileno(), stream.fileno())
        accept_any_console()
        yield


def _limit_memory(gib: float) -> None:
    """Let the process fail where it asks for more memory, before the machine kills another one."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_DATA, (round(gib * GIB), round(gib * GIB)))


def _end_with_the_runner() -> NoReturn:
    """End this process when the one that began it is gone.

    A runner that was killed cannot end its cells. The next one would run them a second time in the
    same folders.
    """
    runner = multiprocessing.parent_process()
    if runner is not None:
        connection.wait([runner.sentinel])
    os._exit(ORPHANED)
