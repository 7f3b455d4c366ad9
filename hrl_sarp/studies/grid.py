"""The runner of studies: each cell runs in a process of its own and leaves one file."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from loguru import logger

from hrl_sarp.errors import CheckpointError, DataError, HrlSarpError
from hrl_sarp.fitting.resume import differences
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.session import RunFolder
from hrl_sarp.run.terminal import accept_any_console, phase_progress

RESULT, FAILURE, SCREEN = "cell.json", "failed.json", "screen.log"
"""In the folder of a cell: what it measured, why it failed, what it printed."""
ORPHANED = 137
"""Exit code of a cell whose runner was killed, as of a process that was killed itself."""


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


Needs = Callable[[Cell], Sequence[Cell]]
"""Cell -> the cells whose results it reads."""


def no_needs(_cell: Cell) -> Sequence[Cell]:
    """Say that a cell reads no other cell's result."""
    return ()


def run_grid(
    study: Study,
    cells: Sequence[Cell],
    jobs: int = 1,
    *,
    needs: Needs = no_needs,
    in_process: bool = False,
) -> Results:
    """Run the cells that have not finished; the same call after a stop or a kill goes on.

    A cell that fails is recorded with its reason and the rest goes on. It is tried again by the
    next call. One line is logged for each cell that ends, with the time that is left.

    Args:
        study: what is run.
        cells: each once; their order is that of the results.
        jobs: processes at a time. Each cell has a fresh process, whose memory ends with it.
        needs: cells that a cell waits for; they stand before it in `cells`. A cell is not run, and
            counts as failed, where one of them has failed.
        in_process: run the cells one after another in this process instead.

    Returns:
        Measures and failures of all cells.

    Raises:
        CheckpointError: if a finished cell is of another configuration or other data; it names
            each value that differs.
    """
    with RunFolder(study.folder, "--output").lock():
        pace = _Pace(study, cells, needs, jobs)
        missing = list(pace.left)
        logger.info(f"{study.title}: {len(cells) - len(missing)} of {len(cells)} cells are there")
        with phase_progress(study.title, len(cells), len(cells) - len(missing)) as bar:
            for cell in _run_all(study, missing, jobs, needs, in_process=in_process):
                logger.info(f"{study.title}: {pace.ended(cell)}")
                bar.update(len(cells) - len(pace.left))
    return Results(
        {cell: pace.found[cell]["measures"] for cell in cells if cell in pace.found},
        {cell: reason_of(study, cell) for cell in cells if cell not in pace.found},
    )


@dataclass
class _Pace:
    """How long the cells that are left will take, by those that have finished.

    Cells are alike if they wait for equally many others in a row: baselines take seconds where
    trainings take minutes.
    """

    study: Study
    cells: Sequence[Cell]
    needs: Needs
    jobs: int
    found: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    """Files of the cells that have finished."""
    left: list[Cell] = field(default_factory=list)
    """Cells that have not ended, in their order."""

    def __post_init__(self) -> None:
        for cell in self.cells:
            content = _content(self.study, cell)
            if content is None:
                self.left.append(cell)
            else:
                self.found[cell] = content

    def ended(self, cell: Cell) -> str:
        """Count a cell that has ended, and say how it ended and what is left."""
        self.left.remove(cell)
        path = self.study.folder / cell.name / RESULT
        if path.is_file():
            self.found[cell] = read_file(path)
            told = f"{cell.name} took {self.found[cell]['seconds']:.0f} s"
        else:
            told = f"{cell.name} failed: {reason_of(self.study, cell)}"
        done = len(self.cells) - len(self.left)
        return f"{told}; {done} of {len(self.cells)} cells{self._outlook()}"

    def _outlook(self) -> str:
        seconds: dict[int, list[float]] = {}
        for cell, content in self.found.items():
            seconds.setdefault(self._depth(cell), []).append(content["seconds"])
        means = {depth: sum(found) / len(found) for depth, found in seconds.items()}
        depths = [self._depth(cell) for cell in self.left]
        known = [means[depth] for depth in depths if depth in means]
        if not known:
            return ""
        left = sum(known) / self.jobs
        word = "about" if len(known) == len(depths) else "more than"
        return f", {word} {left / 60:.0f} min left" if left >= 90 else f", {word} {left:.0f} s left"

    def _depth(self, cell: Cell) -> int:
        return 1 + max((self._depth(need) for need in self.needs(cell)), default=-1)


def has_result(study: Study, cell: Cell) -> bool:
    """Say whether a cell has finished, whatever its configuration."""
    return (study.folder / cell.name / RESULT).is_file()


def reason_of(study: Study, cell: Cell) -> str:
    """Return why a cell has failed, or that it has not run."""
    path = study.folder / cell.name / FAILURE
    if not path.is_file():
        return "it has not run"
    reason: str = read_file(path)["reason"]
    return reason


def read_file(path: Path) -> dict[str, Any]:
    """Read a JSON file that a study has written.

    Raises:
        DataError: if it is damaged. Nothing is lost without it: a cell goes on from its phases.
    """
    try:
        content: dict[str, Any] = read_json(path, "the same command")
    except DataError as error:
        raise DataError(f"{path} is damaged: remove it, then repeat the command") from error
    return content


def _content(study: Study, cell: Cell) -> dict[str, Any] | None:
    """Read the file of a finished cell, which has to be of the same study."""
    path = study.folder / cell.name / RESULT
    if not path.is_file():
        return None
    content = read_file(path)
    different = differences(content["identity"], study.identity(cell))
    if different:
        raise CheckpointError(
            f"{path} is a result with another {'; another '.join(different.values())}; give the "
            "same options, remove the folder, or choose another --output"
        )
    return content


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
        _record_failure(study, cell, f"{type(error).__name__}: {error}")
        return
    content = {"identity": dict(study.identity(cell)), "measures": measures}
    write_json(folder / RESULT, {**content, "seconds": time.perf_counter() - began})


def _record_failure(study: Study, cell: Cell, reason: str) -> None:
    folder = study.folder / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILURE, {"reason": reason})


@dataclass
class _Queue:
    """Cells that wait for a process, or for what they read."""

    study: Study
    needs: Needs
    waiting: list[Cell]
    open: set[Cell]
    """Cells that have not ended, running ones included."""

    def take(self) -> Cell | None:
        """Return the first cell that waits for no other, and let it wait no longer."""
        ready = (cell for cell in self.waiting if self.open.isdisjoint(self.needs(cell)))
        cell = next(ready, None)
        if cell is not None:
            self.waiting.remove(cell)
        return cell

    def cannot_run(self, cell: Cell) -> bool:
        """Record the cells that this one reads and that have failed, if there are any."""
        lacking = [need.name for need in self.needs(cell) if not has_result(self.study, need)]
        if lacking:
            _record_failure(self.study, cell, f"it needs {', '.join(lacking)}, which failed")
        return bool(lacking)


def _run_all(
    study: Study, cells: Sequence[Cell], jobs: int, needs: Needs, *, in_process: bool
) -> Iterator[Cell]:
    """Run cells and yield each when it has ended, well or not."""
    queue = _Queue(study, needs, list(cells), set(cells))
    running: dict[int, tuple[Cell, BaseProcess]] = {}
    try:
        while queue.open:
            cell = queue.take() if len(running) < jobs else None
            can_run = cell is not None and not queue.cannot_run(cell)
            if cell is None:
                cell = _first_to_end(study, running)
            elif can_run and in_process:
                run_cell(study, cell)
            elif can_run:
                process = _begun(study, cell)
                running[process.sentinel] = (cell, process)
                continue
            queue.open.discard(cell)
            yield cell
    finally:  # a stop: Ctrl-C reaches processes of the same terminal, a signal to this one does not
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _begun(study: Study, cell: Cell) -> BaseProcess:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_run_apart, args=(study, cell), name=cell.name)
    process.start()
    return process


def _first_to_end(study: Study, running: dict[int, tuple[Cell, BaseProcess]]) -> Cell:
    """Wait until a process ends, and take it out of those that run."""
    ended = set(connection.wait(list(running)))
    first = next(sentinel for sentinel in running if sentinel in ended)
    cell, process = running.pop(first)
    process.join()
    _record_death(study, cell, process)
    return cell


def _run_apart(study: Study, cell: Cell) -> None:
    """Run a cell in a process of its own; everything that it prints goes to a file."""
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    path = study.folder / cell.name / SCREEN
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as screen:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(screen.fileno(), stream.fileno())
        accept_any_console()
        run_cell(study, cell)


def _end_with_the_runner() -> NoReturn:
    """End this process when the one that began it is gone.

    A runner that was killed cannot end its cells. The next one would run them a second time in the
    same folders.
    """
    runner = multiprocessing.parent_process()
    if runner is not None:
        connection.wait([runner.sentinel])
    os._exit(ORPHANED)


def _record_death(study: Study, cell: Cell, process: BaseProcess) -> None:
    """Write why a process ended without a word of its own: killed for memory, for example."""
    if process.exitcode:
        _record_failure(
            study,
            cell,
            f"the process ended with exit code {process.exitcode}; see {SCREEN} beside this",
        )
