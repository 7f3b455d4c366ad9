"""One cell of a study: its work, its file, and the reason where it failed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hrl_sarp.errors import DataError, HrlSarpError
from hrl_sarp.run.files import read_json, write_json

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


def run_cell(study: Study, cell: Cell) -> None:
    """Run one cell and write its file, or why it was refused.

    A bug goes on its way: it ends the process of the cell, and the runner records that.
    """
    folder = study.folder / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE).unlink(missing_ok=True)
    began = time.perf_counter()
    try:
        # before the work: files that change meanwhile are not those of this result
        identity = dict(study.identity(cell))
        measures = study.run(cell, folder)
    except HrlSarpError as error:
        record_failure(study, cell, f"{type(error).__name__}: {error}")
        return
    content = {"identity": identity, "measures": measures}
    write_json(folder / RESULT, {**content, "seconds": time.perf_counter() - began})


def record_failure(study: Study, cell: Cell, reason: str) -> None:
    """Write why a cell has no result."""
    folder = study.folder / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILURE, {"reason": reason})
