"""Log lines on the screen; apart from `runtime`, which takes a second to import."""

import sys

from loguru import logger

SCREEN_FORMAT = "{time:HH:mm:ss} | {level: <7} | {message}"


def log_to_screen() -> None:
    """Send log lines to the screen alone, and close the files they went to."""
    logger.remove()
    # not sys.stderr itself: what it is may change, under test for example
    logger.add(_show, format=SCREEN_FORMAT, level="INFO", diagnose=False)


def _show(line: str) -> None:
    sys.stderr.write(line)
