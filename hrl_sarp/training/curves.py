"""The curves of a finished run as tables: where each logged quantity began, went and ended."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.run.files import read_json
from hrl_sarp.training.phase import PHASES

STEP = "step"
COLUMNS = ("quantity", "first", "lowest", "highest", "last")


def phase_tables(log_dir: Path) -> list[Table]:
    """Make one table for each finished phase of a log folder.

    Raises:
        MissingArtifactError: if no phase has finished there.
    """
    tables = []
    for files in PHASES:
        path = log_dir / files.folder / files.metrics
        if path.is_file():
            found = read_json(path, f"python main.py train --phase {files.number}")
            tables.append(_table(f"phase {files.number} ({files.title})", found["history"]))
    if not tables:
        raise MissingArtifactError(
            f"no finished phase in {log_dir}: run `python main.py train` first"
        )
    return tables


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Collect each quantity's values in the order of the rows that have one; null is left out.

    Args:
        history: of a metrics file: rows of name -> value.
    """
    found: dict[str, list[float]] = {}
    for row in history:
        for name, value in row.items():
            if name != STEP and value is not None:
                found.setdefault(name, []).append(float(value))
    return found


def _table(title: str, history: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for name, values in sorted(curves(history).items()):
        marks = (values[0], min(values), max(values), values[-1])
        table.add_row(escape(name), *(f"{value:.3g}" for value in marks))
    return table
