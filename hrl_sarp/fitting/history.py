"""The history of a run: a part of its checkpoint, also written as JSON and for TensorBoard."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_json

if TYPE_CHECKING:  # TensorBoard takes a second to import; only training needs it
    from torch.utils.tensorboard.writer import SummaryWriter

STAGE = "curriculum/stage"
"""Name of the value that says which curriculum stage a row belongs to."""
TIMING = "time/"
"""Prefix of values that depend on the machine; the history leaves them out."""
TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's files, in the folder of the run."""


class History:
    """Rows of (step, name -> value).

    TensorBoard's files are written anew when a run resumes, so that it shows each point once.

    Args:
        folder: folder of the run, for TensorBoard's files; None writes none.
        rows: rows of the run that is resumed; they are copied.
        prefix: text before each name, with a slash between.

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
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self.offset = 0
        """Number added to each step, because each part of phase 5 counts from 0."""
        self.stage: int | None = None
        """Curriculum stage of the rows to come; None leaves it out."""
        self._folder, self._prefix = folder, f"{prefix}/" if prefix else ""
        self._writer: SummaryWriter | None = None
        self.restore(rows or [])

    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Replace all rows by those of the run that is resumed.

        Args:
            rows: rows of the checkpoint; they are copied.
        """
        self.rows = list(rows)
        if self._folder is None:
            return
        from torch.utils.tensorboard.writer import SummaryWriter

        self.close()
        shutil.rmtree(self._folder / TENSORBOARD, ignore_errors=True)
        self._writer = SummaryWriter(str(self._folder / TENSORBOARD))
        for row in self.rows:
            self._show(row)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one row.

        Args:
            step: epoch or environment step.
            values: name -> number. Texts and timings are left out. NaN is kept (null in the file).
        """
        row: dict[str, Any] = {"step": int(step) + self.offset}
        if self.stage is not None:
            row[STAGE] = float(self.stage)
        for name, value in values.items():
            if not name.startswith(TIMING) and isinstance(value, int | float | np.number):
                row[self._prefix + name] = float(value)
        self.rows.append(row)
        self._show(row)

    def _show(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "step" and self._writer is not None:
                self._writer.add_scalar(name, value, row["step"])

    def write(self, path: Path, summary: Mapping[str, Any]) -> Path:
        """Write summary and rows as JSON and flush TensorBoard's files.

        Args:
            path: the JSON file.
            summary: values that precede the rows, which have the key `history`.

        Returns:
            The path.
        """
        write_json(path, {**summary, "history": self.rows})
        if self._writer is not None:
            self._writer.flush()
        return path

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def curve_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Show the first, lowest, highest and last value of each quantity; null values are skipped."""
    curves: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and value is not None:
                curves.setdefault(name, []).append(float(value))
    cells = [
        (name, *(f"{value:.3g}" for value in (curve[0], min(curve), max(curve), curve[-1])))
        for name, curve in sorted(curves.items())
    ]
    return Table(title, ("quantity", "first", "lowest", "highest", "last"), cells)
