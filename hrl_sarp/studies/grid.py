"""The runner of studies: each cell runs in a process of its own and leaves one file."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from loguru import logger

from hrl_sarp.errors import CheckpointError, HrlSarpError
from hrl_sarp.fitting.resume import differences
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.session import RunFolder
from hrl_sarp.run.terminal import accept_any_console, phase_progress

RESULT, FAILURE, SCREEN = "cell.json", "failed.json", "screen.log"
"""In the folder of a cell: what it measured, why it failed, what it printed."""


@dataclass(frozen=True, order=True)
class Cell:
    """One job of a study.

    Examples:
        >>> Cell("jade", 1).name
        'jade-1'
    """

    setting: str
    """What is varied; part of the folder's name."""
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.setting}-{self.seed}"


@runtime_checkable
class Study(Protocol):
    """What is run; an object that other processes can be sent (plain values and paths).

    Examples:
        >>> class Squares:
        ...     title, folder = "squares", Path("logs/squares")
        ...
        ...     def identity(self, cell):
        ...         return {"power": 2}
        ...
        ...     def run(self, cell, folder):
        ...         return {"square": cell.seed**2}
        >>> isinstance(Squares(), Study)
        True
    """

    @property
    def title(self) -> str:
        """Name on the progress bar and in messages."""
        ...

    @property
    def folder(self) -> Path:
        """Gets one folder per cell."""
        ...

    def identity(self, cell: Cell) -> Mapping[str, Any]:
        """Return what a result depends on.

        Args:
            cell: of the study.

        Returns:
            Plain values by name: configuration, data, lengths. A finished cell with other values
            is refused.
        """
        ...

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Do the work of a cell.

        Args:
            cell: to run.
            folder: of the cell; a killed run may have left a part of the work there.

        Returns:
            What it measured, as plain values.
        """
        ...


@dataclass(frozen=True)
class Results:
    """What the cells of a study came to.

    Examples:
        >>> Results({Cell("jade", 0): {"rank_ic": 0.01}}, {}).by_seed("jade", "rank_ic")
        {0: 0.01}
    """

    found: Mapping[Cell, dict[str, Any]]
    """Measures of the cells that have finished."""
    failed: Mapping[Cell, str]
    """Reasons of those that have not."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings with at least one finished cell, in the order of the study."""
        return tuple(dict.fromkeys(cell.setting for cell in self.found))

    def by_seed(self, setting: str, measure: str) -> dict[int, float]:
        """Collect one measure of one setting.

        Args:
            setting: of the study.
            measure: key of the measures.

        Returns:
            Seed -> value of the finished cells, in the order of the study.
        """
        return {
            cell.seed: values[measure]
            for cell, values in self.found.items()
            if cell.setting == setting
        }


def run_grid(
    study: Study, cells: Sequence[Cell], jobs: int = 1, *, in_process: bool = False
) -> Results:
    """Run the cells that have not finished; the same call after a stop or a kill goes on.

    A cell that fails is recorded with its reason and the rest goes on. It is tried again by the
    next call.

    Args:
        study: what is run.
        cells: each once; their order is that of the results.
        jobs: processes at a time. Each cell has a fresh process, whose memory ends with it.
        in_process: run the cells one after another in this process instead.

    Returns:
        Measures and failures of all cells.

    Raises:
        CheckpointError: if a finished cell is of another configuration or other data; it names
            each value that differs.
    """
    with RunFolder(study.folder, "--output").lock():
        missing = [cell for cell in cells if finished(study, cell) is None]
        logger.info(f"{study.title}: {len(cells) - len(missing)} of {len(cells)} cells are there")
        with phase_progress(study.title, len(cells), len(cells) - len(missing)) as bar:
            done = len(cells) - len(missing)
            for _ in _run_all(study, missing, jobs, in_process=in_process):
                done += 1
                bar.update(done)
    found, failed = {}, {}
    for cell in cells:
        measures = finished(study, cell)
        if measures is not None:
            found[cell] = measures
        else:
            failed[cell] = read_json(study.folder / cell.name / FAILURE, study.title)["reason"]
    return Results(found, failed)


def finished(study: Study, cell: Cell) -> dict[str, Any] | None:
    """Return what a finished cell measured."""
    path = study.folder / cell.name / RESULT
    if not path.is_file():
        return None
    content: dict[str, Any] = read_json(path, study.title)
    different = differences(content["identity"], study.identity(cell))
    if different:
        raise CheckpointError(
            f"{path} is a result with another {'; another '.join(different.values())}; give the "
            "same options, remove the folder, or choose another --output"
        )
    measures: dict[str, Any] = content["measures"]
    return measures


def run_cell(study: Study, cell: Cell) -> None:
    """Run one cell and write its file, or why it was refused.

    A bug goes on its way: it ends the process of the cell, and the runner records that.
    """
    folder = study.folder / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    began = time.perf_counter()
    try:
        measures = study.run(cell, folder)
    except HrlSarpError as error:
        write_json(folder / FAILURE, {"reason": f"{type(error).__name__}: {error}"})
        return
    content = {"identity": dict(study.identity(cell)), "measures": measures}
    write_json(folder / RESULT, {**content, "seconds": time.perf_counter() - began})


def _run_all(study: Study, cells: Sequence[Cell], jobs: int, *, in_process: bool) -> Iterator[Cell]:
    """Run cells and yield each when it has ended, well or not."""
    if in_process:
        for cell in cells:
            run_cell(study, cell)
            yield cell
        return
    spawn, waiting = multiprocessing.get_context("spawn"), list(cells)
    running: dict[int, tuple[Cell, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                begun = spawn.Process(target=_run_apart, args=(study, cell), name=cell.name)
                begun.start()
                running[begun.sentinel] = (cell, begun)
            ended = set(connection.wait(list(running)))
            for sentinel in [sentinel for sentinel in running if sentinel in ended]:
                cell, process = running.pop(sentinel)
                process.join()
                _record_death(study, cell, process)
                yield cell
    finally:  # a stop: Ctrl-C reaches processes of the same terminal, a signal to this one does not
        for _, process in running.values():
            process.terminate()
            process.join()


def _run_apart(study: Study, cell: Cell) -> None:
    """Run a cell in a process of its own; everything that it prints goes to a file."""
    path = study.folder / cell.name / SCREEN
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as screen:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(screen.fileno(), stream.fileno())
        accept_any_console()
        run_cell(study, cell)


def _record_death(study: Study, cell: Cell, process: BaseProcess) -> None:
    """Write why a process ended without a word of its own: killed for memory, for example."""
    if process.exitcode:
        reason = f"the process ended with exit code {process.exitcode}; see {SCREEN} beside this"
        write_json(study.folder / cell.name / FAILURE, {"reason": reason})
