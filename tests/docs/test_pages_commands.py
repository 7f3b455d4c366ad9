"""Every command that a page shows is one that the package takes; those about own data are run."""

import inspect
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import hrl_sarp
from hrl_sarp.cli.app import app
from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
from tests.command_line import Command
from tests.docs.test_pages_code import python_blocks
from tests.end_to_end.tiny_site import merged
from tests.own_inputs.test_draft import written
from tests.tiny_runs import TINY

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CALLS = ("python main.py ", "hrl-sarp ", "python scripts/", "python -m benchmarks")
NAMED = {"--experiment": "experiments", "--market": "markets", "--study": "studies"}
"""Options whose values are files of a folder of the configuration."""
COMMANDS = typer.main.get_command(app)


def shell_blocks(page: Path) -> list[list[str]]:
    """Return the lines of each block without a language; continued lines are one."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block.replace("\\\n", " ").splitlines() for block in blocks]


def in_text(page: Path) -> list[str]:
    """Return the commands that stand inside sentences and tables."""
    words = [
        " ".join(code.split()) for code in re.findall(r"`([^`\n]+\n?[^`\n]*)`", page.read_text())
    ]
    whole = [code for code in words if code.startswith(CALLS) and "..." not in code]
    return [code for code in whole if not re.search(r"\b(FILE|NAME|N|LOG_DIR)\b", code)]


def commands() -> list[Any]:
    found = []
    for page in PAGES:
        lines = [line for block in shell_blocks(page) for line in block]
        told = [line for line in (*lines, *in_text(page)) if line.startswith(CALLS)]
        found += [pytest.param(line, id=f"{page.stem}: {line[:60]}") for line in told]
    return found


def values_of(words: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == option]


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_page_is_one_that_the_package_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    for option, folder in NAMED.items():
        names = [] if "--config" in words else values_of(words, option)
        for name in (value.partition("=")[0] for value in names):
            if name.endswith("/best.yaml"):  # which `tune` writes
                continue
            assert (DEFAULT_CONFIG_DIR / folder / f"{name}.yaml").is_file(), name
    if words[1].startswith(("scripts/", "-m")):
        path = words[1] if words[1] != "-m" else words[2].replace(".", "/") + ".py"
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        assert [w for w in words if w.startswith("--") and f'"{w}"' not in source] == []
        return
    name, *given = words[2:] if words[0] == "python" else words[1:]
    command = COMMANDS.get_command(typer.Context(COMMANDS), name)  # type: ignore[attr-defined]
    assert command is not None, name
    command.make_context(name, list(given))  # raises at an option or a value that is none


FEW = {"baselines": ["equal_weight"], "random_portfolios": 0, "bootstrap_samples": 20}
"""Of `evaluation`: a report within seconds."""
RUN = {
    "own market": (
        "your_data.md",
        "python main.py collect-data --source files --input DIR --market own",
    ),
    "drafted market": ("your_data.md", "python main.py init"),
    "own features": ("own_code.md", "python main.py collect-data"),
    "own functions": ("own_code.md", "python main.py train --experiment smoke --config examples"),
}
"""Blocks of pages that are run as they stand: page, and how the first line begins."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_commands_about_own_data_and_own_code_end_in_a_report(
    name: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, first = RUN[name]
    blocks = shell_blocks(REPOSITORY / "docs" / page)
    (block,) = [lines for lines in blocks if lines[0].startswith(first)]
    files = written(tmp_path / "my files", ["Chips", "Shops", "Pills"])
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    short = {**TINY, "evaluation": FEW}
    for line in [*BEFORE.get(name, []), *block]:
        words = [str(files) if w == "DIR" else w for w in shlex.split(line, comments=True)[2:]]
        if words[0] == "train":
            words = [*words, *shortened(words, short)]
        code, out, err = command(*words)
        assert code == 0, err
        assert "refuse" not in err
    assert "certified" in out
    (report,) = tmp_path.rglob("backtest/report.html")
    assert report.is_file()


BEFORE = {"own functions": ["python main.py collect-data --source sample"]}
"""Commands that a page takes for granted."""


def shortened(words: list[str], values: dict[str, Any]) -> list[str]:
    """Lay values over the configuration that `train` reads; return the option that is needed."""
    given = dict(pairwise(words)).get("--config")
    path = Path(given or "short.yaml")
    path = path / "market.yaml" if path.is_dir() else path
    text = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(yaml.safe_dump(merged(values, text)), encoding="utf-8")
    return [] if given else ["--config", str(path)]


def test_the_code_about_settings_calls_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = python_blocks(REPOSITORY / "docs" / "your_policy.md")[2]
    calls: list[dict[str, Any]] = []

    def noted(name: str) -> Any:
        form = inspect.signature(getattr(hrl_sarp, name))

        def call(*arguments: Any, **options: Any) -> str:
            calls.append(form.bind(*arguments, **options).arguments)
            return name

        return call

    for name in ("train", "backtest"):
        monkeypatch.setattr(hrl_sarp, name, noted(name))
    names = {"hrl_sarp": hrl_sarp, "market": "market", "buy_what_fell": "policy"}
    exec(compile(settings, "your_policy.md", "exec"), names)  # noqa: S102 -- our own page
    trained, shown = calls
    assert trained["config"].risk.stock_cap == 0.2
    assert shown["config"] is trained["config"]
    assert shown["policy"] == ["policy", "train"]
