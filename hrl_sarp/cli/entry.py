"""The entry point: runs a command, and turns what can go wrong into one line and an exit code."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from hrl_sarp.cli.app import app
from hrl_sarp.cli.options import FORMER_NAMES
from hrl_sarp.errors import HrlSarpError, OverwriteError, StoppedEarly, UsageError
from hrl_sarp.run.terminal import accept_any_console, know_commands, log_to_screen, say

STOPPED = 130
"""Exit code after Ctrl-C or SIGTERM."""
TUNE_FORECASTER = "tune-forecaster"
"""Goes on by itself, without --resume."""
OPTION_MISSING = 2
"""Exit code of a command that would have overwritten something, as of one with a wrong option."""


def _as_line(error: HrlSarpError) -> str:
    """Return the message; a heading with a single line below it becomes one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines) if len(lines) <= 2 else str(error)


def options_of_commands() -> dict[str, set[str]]:
    """Return the options of each command by its name; a command of a group has two words."""

    def found(command: Any, name: str) -> dict[str, set[str]]:
        inner = getattr(command, "commands", {})
        if not inner:
            return {name: {option for parameter in command.params for option in parameter.opts}}
        return {
            word: options
            for part, each in inner.items()
            for word, options in found(each, f"{name} {part}".lstrip()).items()
        }

    return found(typer.main.get_command(app), "")


def main() -> int:
    """Run the command line. An expected problem prints one line and gives an exit code above 0.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM, or 1 or 2 for a problem.
    """
    accept_any_console()
    log_to_screen()
    know_commands(options_of_commands)
    try:
        with _stopped_by_sigterm():
            code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        return _complain(_as_usage(error.format_message()), error.exit_code)
    except StoppedEarly:
        how = "" if sys.argv[1:2] == [TUNE_FORECASTER] else f" {_resumed()}"
        return _complain(f"stopped; the same command{how} continues exactly there", STOPPED)
    except KeyboardInterrupt:
        code = STOPPED
    except HrlSarpError as error:
        code = OPTION_MISSING if isinstance(error, OverwriteError | UsageError) else 1
        return _complain(f"{type(error).__name__}: {_as_line(error)}", code)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "; make room, then repeat the command (train: with --resume)" if is_full else ""
        return _complain(f"{type(error).__name__}: {error.strerror or error}{where}{cure}", 1)
    if code == STOPPED:
        return _complain(_stopped_at_once(), STOPPED)
    return int(code)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C. Phases have handlers of their own, which stop at a boundary."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.getsignal(number) for number in numbers}
    # in the background of a script Ctrl-C is ignored, and stays so
    changed = {n: handler for n, handler in former.items() if handler is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _complain(line: str, code: int) -> int:
    if line:
        say(line, is_problem=True)
    return code


def _as_usage(message: str) -> str:
    """Add the given arguments; an empty message means that the help was shown."""
    if not message:
        return ""
    words = [word.partition("=")[0] for word in sys.argv[1:]]
    # an option of ours may stand beside the wrong one, so only those that the message is about
    names = [word for word in words if word in FORMER_NAMES and word in message]
    if "extra argument" in message and "--freeze-encoder" in words:
        names.append("--freeze-encoder")
    cures = "".join(f"; {name} is {FORMER_NAMES[name]} here" for name in dict.fromkeys(names))
    given = " ".join(sys.argv[1:])
    return f"UsageError: {message.rstrip('.')}{cures}; found `{given}`, see --help"


def _resumed() -> str:
    return "with --resume" + (" instead of --overwrite" if "--overwrite" in sys.argv else "")


def _stopped_at_once() -> str:
    given = sys.argv[1:]
    how = "begins anew"
    if given[:1] and given[0] in ("train", "pretrain-encoder", "finetune-encoder"):
        how = f"{_resumed()} continues from the last checkpoint"
    elif given[:1] in (["evaluate"], ["known-markets"], ["tune"], [TUNE_FORECASTER]):
        how = "continues"
    elif given[:1] == ["collect-data"] and any("yahoo" in word for word in given):
        how = "fetches the rest"
    elif given[:2] == ["paper", "step"]:
        how = "goes on after the last session that was booked"
    return f"stopped at once; the same command {how}"
