"""Options that several commands share, and the folder a command runs in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hrl_sarp.run.terminal import log_to_screen

DataDir = Annotated[Path, typer.Option(help="Folder of the collected raw data.")]
LogDir = Annotated[Path, typer.Option(help="Folder of checkpoints, metrics and reports.")]
Experiment = Annotated[
    str | None, typer.Option(help="File of config/experiments/ laid over the defaults.")
]
MarketName = Annotated[str | None, typer.Option(help="Profile of config/markets/.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run exactly.")]

DEFAULT_DATA_DIR = Path("data/raw")
DEFAULT_LOG_DIR = Path("logs")
LOG_DIR_OPTION, OUTPUT_OPTION = "--log-dir", "--output"


@contextmanager
def running(folder: Path, option: str = LOG_DIR_OPTION) -> Iterator[None]:
    """Hold a folder, tidy up after killed runs and log into it.

    Args:
        folder: made if needed.
        option: the command's name for it, for messages.
    """
    # torch loads here, inside the commands, so that --help is instant
    from hrl_sarp.run.files import remove_unfinished
    from hrl_sarp.run.session import RunFolder, configure_logging, file_errors_shown_once

    with RunFolder(folder, option).lock(), file_errors_shown_once():
        remove_unfinished(folder)
        configure_logging(folder)
        try:
            yield
        finally:
            log_to_screen()
