"""What an earlier command has left in a folder, and the refusal to overwrite it without a word."""

from collections.abc import Iterable
from pathlib import Path

from hrl_sarp.errors import HrlSarpError, OverwriteError

CONFIG = "config.yaml"
"""The merged configuration in the folder of a run."""
RUNNING = "running.pt"
"""Usual name of the state of an unfinished run."""


def require_one_way(*, resume: bool, overwrite: bool) -> None:
    """Refuse to go on with a run and to begin it anew at the same time.

    Raises:
        HrlSarpError: if both are asked for.
    """
    if resume and overwrite:
        raise HrlSarpError(
            "--resume goes on with what the folder holds and --overwrite begins anew: give one"
        )


def require_free_output(
    folder: Path, names: Iterable[str], *, resume: bool = False, overwrite: bool = False
) -> None:
    """Refuse to begin a training anew where one has stopped or finished.

    Args:
        folder: of the training (`--output`); need not exist.
        names: of the files that only a training leaves.
        resume: go on with what the folder holds.
        overwrite: replace what the folder holds.

    Raises:
        HrlSarpError: if both ways are asked for.
        OverwriteError: if neither is, naming the first such file.

    Examples:
        >>> from tempfile import mkdtemp
        >>> require_free_output(Path(mkdtemp()), ["best.pt"])
    """
    require_one_way(resume=resume, overwrite=overwrite)
    if resume or overwrite:
        return
    found = [name for name in names if (folder / name).is_file()]
    if found:
        raise OverwriteError(
            f"{folder} holds a training ({found[0]}): --resume goes on with it, --overwrite begins "
            "anew, another --output keeps it"
        )
