"""The script: exit codes, what it prints and what it leaves."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hrl_sarp.data.store import write_raw
from tests.data.raw_factories import clean_raw

Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def script(repository: Path) -> Path:
    return repository / "scripts" / "validate_data.py"


@pytest.fixture(scope="module")
def main(script: Path) -> Main:
    """The script's entry, called in this process: importing everything anew takes seconds."""
    entry: Main = runpy.run_path(str(script))["main"]
    return entry


@pytest.mark.parametrize(("sectors_kept", "code"), [(2, 0), (1, 1)])
def test_exit_code_follows_the_structural_rules(
    main: Main, tmp_path: Path, sectors_kept: int, code: int
) -> None:
    raw = clean_raw()
    write_raw(replace(raw, sectors=raw.sectors.head(sectors_kept)), tmp_path)
    assert main(["--data-dir", str(tmp_path)]) == code
    assert json.loads((tmp_path / "validation.json").read_text())["has_failed"] == bool(code)


def test_empty_folder_is_one_line_and_exit_code_two(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data-dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "hrl-sarp collect-data" in message
    assert len(message.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_script_runs_from_any_folder_without_being_installed(script: Path, tmp_path: Path) -> None:
    write_raw(clean_raw(), tmp_path)
    result = subprocess.run(  # noqa: S603 (our own script and a temporary folder)
        [sys.executable, script, "--data-dir", "."],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "40 bars of 2 symbols" in result.stdout
