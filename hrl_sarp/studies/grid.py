"""The runner of studies: which cell runs when, what is left, and what they came to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from hrl_sarp.errors import CheckpointError
from hrl_sarp.fitting.resume import differences
from hrl_sarp.run.session import RunFolder
from hrl_sarp.run.terminal import phase_progress
from hrl_sarp.studies.cell import (
    RESULT,
    Cell,
    Study,
    has_result,
    read_file,
    reason_of,
    record_failure,
)
from hrl_sarp.studies.workers import LocalProcesses, ThisProcess, Workers


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
    workers: Workers | None = None,
    in_process: bool = False,
) -> Results:
    """Run the cells that have not finished; the same call after a stop or a kill goes on.

    A cell that fails is recorded with its reason and the rest goes on. It is tried again by the
    next call. One line is logged for each cell that ends, with the time that is left.

    Args:
        study: what is run.
        cells: each once; their order is that of the results.
        jobs: cells at a time. Each has a fresh process, whose memory ends with it.
        needs: cells that a cell waits for; they stand before it in `cells`. A cell is not run, and
            counts as failed, where one of them has failed.
        workers: run the cells; None takes processes of this machine.
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
            own = LocalProcesses() if workers is None else workers
            chosen = ThisProcess() if in_process else own
            for cell in _run_all(study, missing, 1 if in_process else jobs, needs, chosen):
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
            record_failure(self.study, cell, f"it needs {', '.join(lacking)}, which failed")
        return bool(lacking)


def _run_all(
    study: Study, cells: Sequence[Cell], jobs: int, needs: Needs, workers: Workers
) -> Iterator[Cell]:
    """Run cells and yield each when it has ended, well or not."""
    queue = _Queue(study, needs, list(cells), set(cells))
    try:
        while queue.open:
            cell = queue.take() if len(workers) < jobs else None
            if cell is None:
                cell = workers.first_to_end(study)
            elif not queue.cannot_run(cell):
                workers.begin(study, cell, needs(cell))
                continue
            queue.open.discard(cell)
            yield cell
    finally:
        workers.stop()
