"""The history of a phase: kept in its checkpoint, written as JSON and for TensorBoard."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

from hrl_sarp.run.files import write_json

STAGE = "curriculum/stage"
"""Name under which each row says which curriculum stage it belongs to."""
TIMING = "time/"
"""Names that begin so depend on the machine and stay out of the metrics."""


class MetricLog:
    """Rows of (step, name -> value).

    TensorBoard files are rewritten from the history at the start, never appended to, so a resumed
    run shows each point once. `offset` is added to steps: the parts of phase 5 each count from 0.
    `stage`, where there is one, stands in every row.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]] | None = None) -> None:
        # TensorBoard takes a second to import; only training needs it
        from torch.utils.tensorboard.writer import SummaryWriter

        self.history: list[dict[str, Any]] = list(history or [])
        self.offset = 0
        self.stage: int | None = None
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        for row in self.history:
            self._show(row)

    def add(self, step: int, values: dict[str, Any]) -> None:
        """Append one row; values become plain floats."""
        row: dict[str, Any] = {"step": int(step) + self.offset}
        if self.stage is not None:
            row[STAGE] = float(self.stage)
        for name, value in values.items():
            if not name.startswith(TIMING) and isinstance(value, int | float | np.number):
                row[name] = float(value)
        self.history.append(row)
        self._show(row)

    def _show(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def write(self, path: Path, summary: dict[str, Any]) -> Path:
        """Write summary and history as JSON and flush TensorBoard's files."""
        write_json(path, {**summary, "history": self.history})
        self._writer.flush()
        return path

    def close(self) -> None:
        """Close TensorBoard's files."""
        self._writer.close()


class _HistoryWriter(KVWriter):
    """Stable-Baselines3's side of `MetricLog`."""

    def __init__(self, log: MetricLog) -> None:
        self.log = log

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Append what the algorithm recorded."""
        self.log.add(step, key_values)

    def close(self) -> None:
        """The log closes itself."""


def algorithm_logger(log: MetricLog) -> Logger:
    """Return a Stable-Baselines3 logger that writes into `log` only."""
    return Logger(folder=None, output_formats=[_HistoryWriter(log)])
