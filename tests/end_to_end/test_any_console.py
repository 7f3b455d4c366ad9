"""Every command ends well on a console that lacks some signs: they are shown as `?`."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger
from rich.console import Console

from hrl_sarp.cli import entry as cli
from hrl_sarp.data.store import write_raw
from hrl_sarp.reporting import page
from hrl_sarp.reporting.table import Table, paragraphs
from hrl_sarp.run.terminal import accept_any_console, log_to_screen, say
from tests.architecture.source_tree import REPOSITORY
from tests.command_line import NOT_A_TERMINAL
from tests.data.raw_factories import clean_raw
from tests.end_to_end import tiny_site
from tests.end_to_end.tiny_site import EXPERIMENT, Site

ENCODINGS = ["ascii", "cp1252", "gbk", "latin-1", "utf-8"]
FOLDER = "dä\N{MINUS SIGN}名"  # UTF-8 alone has all of it
STRANGE = f"{FOLDER}\udcff"  # and half a character, which UTF-8 lacks, too
ENTRY = 'if __name__ == "__main__":\n'

Consoles = Callable[[str], tuple[io.BytesIO, io.BytesIO]]

SHOCKED = ("IT", "Financials", "Pharma")
"""Sectors of config/stress.yaml that stand for those of the site."""


@pytest.fixture
def consoles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Consoles]:
    """Return a function that gives this process a console of some encoding, strict at first."""

    def narrow(encoding: str) -> tuple[io.BytesIO, io.BytesIO]:
        screens = io.BytesIO(), io.BytesIO()
        for name, screen in zip(("stdout", "stderr"), screens, strict=True):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(screen, encoding, errors="strict"))
        return screens

    yield narrow
    monkeypatch.undo()
    log_to_screen()


@pytest.fixture
def strange(whole_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site in a folder whose name no console can show."""
    copy = whole_site.copy(tmp_path / FOLDER)
    tiny_site.use(copy, monkeypatch)
    for name, value in NOT_A_TERMINAL.items():
        monkeypatch.setenv(name, value)
    # pictures go to files, none to a console, and to draw them takes half of the time
    monkeypatch.setattr(page, "svg", lambda *_: "<svg/>")
    return copy


def shown(screen: io.BytesIO, stream: str, encoding: str) -> str:
    getattr(sys, stream).flush()
    return screen.getvalue().decode(encoding)  # strict: nothing in another encoding


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines_tables_and_log_lines_show_a_question_mark(encoding: str, consoles: Consoles) -> None:
    out, err = consoles(encoding)
    accept_any_console()
    log_to_screen()
    say(STRANGE)
    say(STRANGE, is_problem=True)
    logger.warning(STRANGE)
    Console().print(Table("t", ("name", "value"), [(STRANGE, "1")]), paragraphs([STRANGE]))
    assert shown(out, "stdout", encoding).count("?") >= 3
    assert shown(err, "stderr", encoding).count("?") >= 2


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_every_command_ends_well_on_any_console(
    encoding: str, strange: Site, consoles: Consoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [*strange.folders, "--experiment", EXPERIMENT]
    data = ["--data-dir", str(strange.raw), "--experiment", EXPERIMENT]
    like = dict(zip(strange.config().market_profile.sectors, SHOCKED, strict=False))
    strange.experiment("stressed", {"market_profile": {"stress": {"windows": [], "sectors": like}}})
    commands: list[list[str]] = [
        ["--help"],
        ["validate-data", *data],
        ["train", "--phase", "1", "--resume", *folders],
        ["backtest", *folders],
        ["stress-test", *strange.folders, "--experiment", "stressed"],
        ["report", str(strange.log_dir)],
        ["diagnose", "--log-dir", str(strange.log_dir)],
    ]
    for command in commands:
        out, err = consoles(encoding)
        monkeypatch.setattr(sys, "argv", ["main.py", *command])
        code = cli.main()
        told = shown(err, "stderr", encoding)
        assert code == 0, (command, told)
        assert shown(out, "stdout", encoding) + told


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_refusal_is_one_line_on_any_console(
    encoding: str, tmp_path: Path, consoles: Consoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = consoles(encoding)
    monkeypatch.setattr(sys, "argv", ["main.py", "report", str(tmp_path / STRANGE)])
    assert cli.main() == 1
    line = shown(err, "stderr", encoding)
    assert line.startswith("MissingArtifactError: ")
    assert "?" in line
    assert (line.count("\n"), out.getvalue()) == (1, b"")


@pytest.mark.parametrize("program", ["main.py", "scripts/validate_data.py"])
def test_a_program_of_its_own_accepts_what_python_was_told(program: str, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    write_raw(clean_raw(), folder)
    words = ["validate-data"] if program == "main.py" else []
    result = subprocess.run(  # noqa: S603 -- our own programs
        [sys.executable, program, *words, "--data-dir", os.fspath(folder)],
        env={**os.environ, "PYTHONIOENCODING": "gbk:strict"},
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode("gbk")
    assert b"?" in result.stdout + result.stderr


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "scripts").iterdir()))
def test_every_script_accepts_any_console_before_it_begins(script: str) -> None:
    path = REPOSITORY / "scripts" / script
    if path.suffix == ".py":
        entry = path.read_text(encoding="utf-8").partition(ENTRY)[2]
        assert entry.startswith("    accept_any_console()\n")
