"""What weights have seen before they are asked or trained further: times, and symbols."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from hrl_sarp.errors import CheckpointError, UsageError
from hrl_sarp.forecasters.training.run import CHECKPOINTS, DESCRIPTION, MODEL, WRITER
from hrl_sarp.run.files import read_json

RELEASED = {"toto": "2025-05-31", "kronos": "2025-08-31", "toto2": "2026-06-30"}
"""Last day of the month in which published weights came out. They may have seen all before it."""
DEEPEST = 4
"""Folders from a file of weights up to that of its run, `checkpoints/best/` the deepest."""


@dataclass(frozen=True)
class Seen:
    """What weights were fitted on.

    Examples:
        >>> published = Seen(end_of_day(RELEASED["toto"]), None, is_release=True)
        >>> str(published.until)
        '2025-05-31T23:59:59.999999'
    """

    until: np.datetime64
    """Time of the last bar."""
    symbols: frozenset[str] | None
    """None where nobody says."""
    is_release: bool = False
    """The time is that of the release, because the makers do not say more."""


def end_of_day(day: date | str) -> np.datetime64:
    """Return the last microsecond of a day: bars within it may have been seen, too."""
    return np.datetime64(day, "us") + np.timedelta64(1, "D") - np.timedelta64(1, "us")


def run_of(path: Path) -> Path | None:
    """Find the run that weights belong to.

    Args:
        path: folder of a run, folder of its weights, or a file there.

    Returns:
        Folder of the run; None for weights that lie in none.

    Raises:
        CheckpointError: if the run has not ended, so that it does not say what it has seen.
    """
    chain = [path.absolute(), *path.absolute().parents][:DEEPEST]
    for folder in chain:
        if (folder / DESCRIPTION).is_file() and (folder / MODEL).is_dir():
            return folder
    unfinished = [folder for folder in chain if (folder / CHECKPOINTS / "running.pt").is_file()]
    if unfinished:
        raise CheckpointError(
            f"{path}: expected weights of a run that has ended, found no {DESCRIPTION} in "
            f"{unfinished[0]}; go on with it by --resume first"
        )
    return None


def seen_by(path: Path, model: str, told: date | None = None) -> Seen:
    """Say what weights have seen.

    Args:
        path: folder of weights, file of them, or folder of a run.
        model: `toto`, `toto2`, `kronos` or `kronos-tokenizer`.
        told: last day of the data that published weights were fitted to.

    Returns:
        What the run says; for published weights what was told, or else the end of the month of
        their release.
    """
    run = run_of(path)
    if run is not None:
        description = read_json(run / DESCRIPTION, WRITER)
        symbols = description["symbols"]
        until = np.datetime64(description["fitted_to"], "us")
        return Seen(until, None if symbols is None else frozenset(symbols))
    released = RELEASED[model.removesuffix("-tokenizer")]
    return Seen(end_of_day(told or released), None, is_release=told is None)


def seen_by_all(paths: Sequence[Path], model: str, told: date | None) -> Seen:
    """Join what weights and the tokenizer beside them have seen.

    Args:
        paths: at least one.
        model: as in `seen_by`.
        told: as in `seen_by`.

    Returns:
        The later time and all symbols.

    Raises:
        UsageError: if a time was told of weights that say it themselves.
    """
    if told is not None and all(run_of(path) is not None for path in paths):
        raise UsageError(
            "--pretrained-until belongs to published weights, found those of a run in "
            f"{', '.join(map(str, paths))}; its {DESCRIPTION} says what they have seen"
        )
    found = [seen_by(path, model, told) for path in paths]
    known = [one.symbols for one in found if one.symbols is not None]
    symbols = frozenset[str]().union(*known) if len(known) == len(found) else None
    latest = max(found, key=lambda one: one.until)
    return Seen(latest.until, symbols, latest.is_release)
