"""The command line: help, exit codes, and one line on stderr for every expected problem."""

import itertools
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from hrl_sarp.cli import app as cli
from hrl_sarp.cli.entry import STOPPED, options_of_commands
from hrl_sarp.run.session import RunFolder
from hrl_sarp.run.terminal import know_commands, say
from tests.command_line import NOT_A_TERMINAL, Command, assert_refused

OPTIONS = {
    "collect-data": (
        "--source",
        "--input",
        "--macro",
        "--symbols",
        "--start",
        "--end",
        "--data-dir",
        "--experiment",
        "--market",
        "--config",
    ),
    "update-data": (
        "--input",
        "--macro",
        "--symbols",
        "--start",
        "--end",
        "--accept-changes",
        "--json",
        "--data-dir",
        "--experiment",
        "--market",
        "--config",
    ),
    "validate-data": ("--data-dir", "--experiment", "--market", "--config"),
    "train": (
        "--phase",
        "--data-dir",
        "--log-dir",
        "--experiment",
        "--market",
        "--config",
        "--seed",
        "--device",
        "--resume",
    ),
    "backtest": (
        "--span",
        "--data-dir",
        "--log-dir",
        "--experiment",
        "--market",
        "--config",
        "--seed",
    ),
    "evaluate": (
        "--study",
        "--market",
        "--seeds",
        "--phases",
        "--jobs",
        "--output",
        "--summary-only",
    ),
    "tune": ("--trials", "--jobs", "--space", "--storage", "--name", "--output", "--trial-log"),
    "known-markets": ("--markets", "--seeds", "--jobs", "--output"),
    "runs": ("--logs",),
    "report": ("--readme", "runs"),
    "init": ("--overwrite", "--input", "--macro", "folder"),
}
USAGE_ERROR = 2


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the collected sample."""
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.data.collect import collect

    folder = tmp_path_factory.mktemp("sample") / "raw"
    collect("sample", folder, load_config(market="sample"))
    return folder


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(("name", "options"), OPTIONS.items())
def test_help_states_the_options_of_a_command(
    name: str, options: tuple[str, ...], command: Command
) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert [option for option in options if option not in out] == []


@pytest.mark.parametrize("name", sorted(options_of_commands()))
@pytest.mark.parametrize("columns", [80, 140])
def test_help_has_whole_lines_and_an_example_of_options_that_exist(
    name: str, columns: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NOT_A_TERMINAL, "COLUMNS", str(columns))
    code, out, _ = command(*name.split(), "--help")
    assert code == 0
    prose = out.partition("╭")[0].partition("Usage:")[2]
    for paragraph in re.split(r"\n\s*\n", prose)[1:]:
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        for line, following in itertools.pairwise(lines):
            room = columns - 2 - len(line)
            assert len(following.split()[0]) >= room, f"'{line}' ends too early"
    example = " ".join(prose.split()).partition("Example: hrl-sarp ")[2]
    assert example.startswith(f"{name} ") or example == name
    options = {word for word in example.split() if word.startswith("--")}
    assert options <= options_of_commands()[name]


def test_the_version_is_that_of_the_package(command: Command) -> None:
    code, out, err = command("--version")
    assert (code, out, err) == (0, f"hrl-sarp {version('hrl-sarp')}\n", "")


def test_a_shell_completes_commands_and_options() -> None:
    for words, place, expected in (
        ("hrl-sarp tr", 1, "train"),
        ("hrl-sarp train --see", 2, "--seeds"),
    ):
        asked = {
            "_HRL_SARP_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(place),
        }
        found = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv[0] = 'hrl-sarp'; "
             "from hrl_sarp.cli import main; sys.exit(main())"],
            capture_output=True, text=True, check=True, timeout=60, env={**os.environ, **asked},
        )  # fmt: skip
        assert expected in found.stdout.split()


def test_help_lists_the_commands(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert [name for name in OPTIONS if name not in out] == []


@pytest.mark.parametrize("name", OPTIONS)
def test_an_unknown_option_is_a_usage_error(name: str, command: Command) -> None:
    code, out, err = command(name, "--no-such-option")
    assert (code, out) == (USAGE_ERROR, "")
    assert "--no-such-option" in err


def test_an_unknown_command_is_a_usage_error(command: Command) -> None:
    code, _, err = command("trian")
    assert code == USAGE_ERROR
    assert "trian" in err


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (["train", "--phase", "6"], ["--phase", "[1, 2, 3, 4, 5]", "6"]),
        (["train", "--phase", "0"], ["--phase", "0"]),
        (["train", "--device", "tpu"], ["auto, cpu, cuda", "tpu"]),
        (["train", "--experiment", "smoek"], ["smoek", "smoke"]),
        (["train", "--market", "atlantis"], ["atlantis", "us"]),
        (["backtest", "--span", "future"], ["--span", "future", "validation"]),
        (["backtest", "--experiment", "smoek"], ["smoek"]),
        (["backtest"], ["train"]),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_written(
    arguments: list[str], mentioned: list[str], command: Command, sample: Path, tmp_path: Path
) -> None:
    before = everything(sample.parent)
    folders = ["--data-dir", sample, "--log-dir", tmp_path / "logs"]
    assert_refused(command(*arguments, *folders), *mentioned)
    assert everything(tmp_path) == set()
    assert everything(sample.parent) == before


def test_an_unknown_source_is_refused(command: Command, tmp_path: Path) -> None:
    result = command("collect-data", "--source", "bloomberg", "--data-dir", tmp_path / "raw")
    assert_refused(result, "bloomberg", "sample, synthetic, files, yahoo")
    assert everything(tmp_path) == set()


@pytest.mark.parametrize("name", ["train", "validate-data"])
def test_missing_data_name_the_command_that_collects_them(
    name: str, command: Command, tmp_path: Path
) -> None:
    options = ["--log-dir", tmp_path / "logs"] if name == "train" else []
    result = command(name, "--data-dir", tmp_path / "nowhere", *options)
    assert_refused(result, "nowhere", "collect-data")
    assert everything(tmp_path) == set()


def test_a_damaged_table_is_refused_in_one_line(
    command: Command, sample: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    for path in sample.rglob("*"):
        if path.is_file():
            copy = raw / path.relative_to(sample)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    damaged = max(raw.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    result = command("train", "--data-dir", raw, "--log-dir", tmp_path / "logs", "--phase", 1)
    assert_refused(result, damaged.name)


def test_a_log_folder_that_cannot_be_made_is_refused(
    command: Command, sample: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    log_dir = tmp_path / "file" / "logs"
    assert_refused(command("train", "--data-dir", sample, "--log-dir", log_dir), "--log-dir")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into read-only folders")
def test_a_read_only_log_folder_is_refused(command: Command, sample: Path, tmp_path: Path) -> None:
    log_dir = tmp_path / "logs"
    log_dir.mkdir(mode=0o555)
    assert_refused(command("train", "--data-dir", sample, "--log-dir", log_dir), "--log-dir")


def test_a_second_run_in_one_log_folder_is_refused(
    command: Command, sample: Path, tmp_path: Path
) -> None:
    log_dir = tmp_path / "logs"
    with RunFolder(log_dir).lock():
        result = command("train", "--data-dir", sample, "--log-dir", log_dir)
        assert_refused(result, "in use by process", str(os.getpid()))
        assert everything(log_dir) == {log_dir / "run.lock"}


def test_a_phase_without_its_predecessor_names_it(
    command: Command, sample: Path, tmp_path: Path
) -> None:
    options = ["--data-dir", sample, "--log-dir", tmp_path / "logs", "--experiment", "smoke"]
    code, out, err = command("train", "--phase", 3, *options)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    again = " ".join(map(str, ["hrl-sarp train --phase 1", *options]))
    assert f"run `{again}` first" in err.splitlines()[-1]


@pytest.mark.parametrize("name", sorted(options_of_commands()))
def test_a_named_command_is_about_the_folders_and_the_configuration_of_this_one(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--data-dir": "a b", "--log-dir": "x", "--config": "mine", "--market": "own"}
    words = [word for pair in given.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["hrl-sarp", "train", *words, "--seed", "3"])
    know_commands(options_of_commands)
    say(f"run `hrl-sarp {name} --market us` first, or `--resume`")
    takes = options_of_commands()[name]
    expected = {"--data-dir": "'a b'", "--log-dir": "x", "--config": "mine"}
    added = [f"{option} {value}" for option, value in expected.items() if option in takes]
    has_folder = bool({"--data-dir", "--log-dir", "--account"} & takes)
    whole = " ".join([f"hrl-sarp {name} --market us", *(added if has_folder else [])])
    assert capsys.readouterr().out == f"run `{whole}` first, or `--resume`\n"


def test_a_folder_that_is_given_twice_completes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--log-dir", "a", "--log-dir=b", "--data-dir=c"]
    monkeypatch.setattr(sys, "argv", ["hrl-sarp", "decide", *words])
    know_commands(options_of_commands)
    say("run `hrl-sarp train`")
    assert capsys.readouterr().out == "run `hrl-sarp train --data-dir c`\n"


def test_a_report_of_no_run_is_refused(command: Command, tmp_path: Path) -> None:
    assert_refused(command("report", tmp_path / "logs"), "logs")


def test_stopping_twice_ends_with_the_code_of_a_signal(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "read_config", interrupted)
    code, out, err = command("train")
    assert (code, out) == (STOPPED, "")
    assert "--resume" in err


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "polars", "numba", "stable_baselines3", "matplotlib", "pydantic")
    check = f"import hrl_sarp.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


MISSING = (
    ("train", "--data-dir", "nowhere"),
    ("train", "--experiment", "nowhere"),
    ("backtest", "--log-dir", "nowhere"),
    ("stress-test", "--log-dir", "nowhere"),
    ("diagnose", "--log-dir", "nowhere"),
    ("decide", "--log-dir", "nowhere"),
    ("export", "--log-dir", "nowhere"),
    ("paper", "init", "--account", "nowhere.sqlite", "--log-dir", "nowhere"),
    ("validate-data", "--data-dir", "nowhere"),
    ("update-data", "--data-dir", "nowhere"),
)
"""Commands about what is not there."""


@pytest.mark.parametrize("words", MISSING, ids=" ".join)
def test_what_is_missing_is_refused_before_anything_heavy_is_imported(
    words: tuple[str, ...], tmp_path: Path, repository: Path
) -> None:
    told = f"sys.argv = {['hrl-sarp', *words]}; code = main(); print(code, 'torch' in sys.modules)"
    check = f"import sys; from hrl_sarp.cli import main; {told}"
    found = subprocess.run(  # noqa: S603 -- our own interpreter
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert found.stdout.strip() == "1 False"
    assert "nowhere" in found.stderr
    assert not list(tmp_path.iterdir())


def test_own_file_is_laid_over_the_defaults_of_every_command(
    command: Command, tmp_path: Path
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("risk: {stock_cap: 2.0}\n")
    for name in ("collect-data", "validate-data", "train", "backtest", "stress-test"):
        assert_refused(
            command(name, "--config", own), "risk.stock_cap", "(was 2.0) [mine.yaml]", str(own)
        )


def test_own_folder_stands_for_the_defaults(command: Command, tmp_path: Path) -> None:
    code, out, err = command("init", tmp_path / "mine")
    assert (code, err) == (0, "")
    assert f"use them with --config {tmp_path / 'mine'}" in out
    (tmp_path / "mine" / "stress.yaml").unlink()
    assert_refused(
        command("validate-data", "--config", tmp_path / "mine"),
        "mine/*.yaml",
        "stress: required key is missing",
    )


def test_own_configuration_that_does_not_exist_is_refused(command: Command, tmp_path: Path) -> None:
    missing = tmp_path / "mine"
    assert_refused(command("train", "--config", missing), f"`hrl-sarp init {missing}`")


def test_init_does_not_overwrite(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert_refused(command("init", tmp_path), str(tmp_path), "--overwrite", code=2)
