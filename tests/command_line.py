"""Running the command line in this process, and what a refusal looks like."""

import sys
from collections.abc import Callable

import pytest

from hrl_sarp.cli import main

NOT_A_TERMINAL = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}

Result = tuple[int, str, str]
Command = Callable[..., Result]


def make_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hrl-sarp", *map(str, arguments)])
        for name, value in NOT_A_TERMINAL.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        code = main()
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run


def assert_refused(result: Result, *mentioned: str, code: int = 1) -> None:
    """Expect the exit code and exactly one line, on stderr, that says these words."""
    found, out, err = result
    assert (found, out) == (code, ""), err
    assert "Traceback" not in err
    lines = err.splitlines()
    assert len(lines) == 1, err
    for word in mentioned:
        assert word in lines[0], f"{word!r} not in {lines[0]!r}"
