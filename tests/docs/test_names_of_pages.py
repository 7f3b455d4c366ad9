"""What the pages for developers name is in the tree: files, functions, classes, keys."""

import re
from pathlib import Path

import pytest

FOLDERS = ("hrl_sarp", "config", "tests", "scripts", "examples", "benchmarks", "notebooks")
FILES = ("pyproject.toml", "Makefile", "main.py")
SUFFIXES = {".py", ".yaml", ".ipynb", ".css", ".html", ".j2"}


@pytest.fixture(scope="module")
def words(repository: Path) -> set[str]:
    """Every word of every source file, and the name of each file and folder."""
    paths = [path for name in FOLDERS for path in (repository / name).rglob("*")]
    paths += [repository / name for name in FILES]
    found = {part for path in paths for part in (path.name, path.stem)}
    for path in paths:
        if path.name in FILES or path.suffix in SUFFIXES:
            found.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return found


def named(text: str) -> list[str]:
    """Return the last part of each name that stands in backticks."""
    names = re.findall(r"`([A-Za-z_][\w.]*)`", text)
    return [name if name.endswith((".py", ".yaml")) else name.split(".")[-1] for name in names]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_a_name_of_a_page_for_developers_is_in_the_tree(
    page: str, repository: Path, words: set[str]
) -> None:
    missing = [name for name in named((repository / page).read_text()) if name not in words]
    assert missing == []
    assert named("a `Name.of_it` in `x.py`, not `a b`") == ["of_it", "x.py"]
