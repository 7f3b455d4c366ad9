"""The history of a run: a part of its checkpoint, also written as JSON and for trackers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrl_sarp.fitting.trackers import Ending, Tracker, trackers_of
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_json

STAGE = "curriculum/stage"
"""Name of the value that says which curriculum stage a row belongs to."""
TIMING = "time/"
"""Prefix of values that depend on the machine; the history leaves them out."""
STEP, DECISIONS = "step", "decisions"
"""The two axes of a row. All other names are curves."""


@dataclass(frozen=True)
class Axis:
    """Counts the decisions that all phases so far were trained on, from a phase's own steps.

    Examples:
        >>> Axis.of_epochs(1000, decisions=52).at(-1)  # before the first epoch
        1000
        >>> Axis.of_epochs(1000, decisions=52).at(0)  # after it
        1052
    """

    first: int
    """Decisions at step 0."""
    per_step: int = 1

    @staticmethod
    def of_epochs(start: int, decisions: int) -> "Axis":
        """Make the axis of a phase whose steps are epochs.

        Args:
            start: decisions of the phases before.
            decisions: decisions of one epoch.

        Returns:
            An axis on which epoch -1 is the start.
        """
        return Axis(start + decisions, decisions)

    def at(self, step: int) -> int:
        """Count the decisions at a step.

        Args:
            step: epoch or environment step of the phase.

        Returns:
            Decisions since the beginning of the first phase.
        """
        return self.first + self.per_step * step


class History:
    """Rows of (step, name -> value).

    Trackers show each point once, also when a run resumes. As a context manager it ends them on
    every way out, and tells them which one it was.

    Args:
        folder: folder of the run, for the files of trackers; None writes none.
        rows: rows of the run that is resumed; they are copied.
        prefix: text before each name, with a slash between.
        axis: common axis of several runs, written into each row and used by trackers; None
            leaves the steps.
        trackers: names of `trackers.trackers_of` that get the curves beside TensorBoard.

    Examples:
        >>> history = History(prefix="pretrain")
        >>> history.add(0, {"loss": 0.5})
        >>> history.rows
        [{'step': 0, 'pretrain/loss': 0.5}]
    """

    def __init__(
        self,
        folder: Path | None = None,
        rows: list[dict[str, Any]] | None = None,
        prefix: str = "",
        axis: Axis | None = None,
        trackers: Sequence[str] = (),
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.offset = 0
        """Number added to each step, because each part of phase 5 counts from 0."""
        self.stage: int | None = None
        """Curriculum stage of the rows to come; None leaves it out."""
        self._folder, self._prefix, self._axis = folder, f"{prefix}/" if prefix else "", axis
        self._names = tuple(trackers)
        self._trackers: list[Tracker] = []
        self.restore(rows or [])

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Replace all rows by those of the run that is resumed.

        Args:
            rows: rows of the checkpoint; they are copied.
        """
        is_shown = bool(self._trackers) and repr(rows) == repr(self.rows)  # NaN is not equal
        self.rows = list(rows)
        if self._folder is None or is_shown:
            return
        self.close()
        shown = [(_step(row), curves(row)) for row in self.rows]
        self._trackers = trackers_of(self._folder, self._names, shown)

    def __enter__(self) -> "History":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.close(Ending.of(error))

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row.

        Args:
            step: epoch or environment step.
            values: name -> number. Texts and timings are left out. NaN is kept (null in the file).
        """
        row: dict[str, Any] = {STEP: int(step) + self.offset}
        if self._axis is not None:
            row[DECISIONS] = self._axis.at(row[STEP])
        if self.stage is not None:
            row[STAGE] = float(self.stage)
        for name, value in values.items():
            if not name.startswith(TIMING) and isinstance(value, int | float | np.number):
                row[self._prefix + name] = float(value)
        self.rows.append(row)
        for tracker in self._trackers:
            tracker.show(_step(row), curves(row))

    def write(self, path: Path, summary: Mapping[str, Any]) -> Path:
        """Write summary and rows as JSON and flush the files of trackers.

        Args:
            path: the JSON file.
            summary: values that precede the rows, which have the key `history`.

        Returns:
            The path.
        """
        write_json(path, {**summary, "history": self.rows})
        for tracker in self._trackers:
            tracker.flush()
        return path

    def close(self, ending: Ending = Ending.FINISHED) -> None:
        """Close the files of trackers.

        Args:
            ending: of the phase, for trackers that mark it.
        """
        trackers, self._trackers = self._trackers, []
        for tracker in trackers:
            tracker.close(ending)


def _step(row: Mapping[str, Any]) -> int:
    """Return where a row stands on the axis of trackers."""
    return int(row.get(DECISIONS, row[STEP]))


def curves(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row without its axes."""
    return {name: value for name, value in row.items() if name not in (STEP, DECISIONS)}


def curve_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Show the first, lowest, highest and last value of each quantity; null values are skipped."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in curves(row).items():
            if value is not None:
                found.setdefault(name, []).append(float(value))
    cells = [
        (name, *(f"{value:.3g}" for value in (curve[0], min(curve), max(curve), curve[-1])))
        for name, curve in sorted(found.items())
    ]
    return Table(title, ("quantity", "first", "lowest", "highest", "last"), cells)
