"""pyproject.toml declares what the code imports, and nothing that nobody imports."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY, parse

OURS = {"hrl_sarp", "tests", "benchmarks", "examples", "scripts", "compare_runs"}
COMES_WITH = {
    "pydantic_core": "pydantic",
    "IPython": "ipykernel",
    "requests": "yfinance",
    "mlflow": "mlflow-skinny",
}
"""Modules that are part of how a declared distribution is used, or that it installs under another
name, and that distribution."""
EXTRAS = {
    "hrl_sarp/studies/tuning/": {"optuna", "SQLAlchemy"},
    "hrl_sarp/fitting/trackers.py": {"mlflow-skinny", "wandb"},
    "hrl_sarp/studies/ray_workers.py": {"ray"},
    "hrl_sarp/daily/export/": {"onnx", "onnxscript", "onnxruntime"},
    "hrl_sarp/forecasters/evaluation/baselines/statistical.py": {"statsforecast"},
}
"""What is used only where someone asks for it, and is refused in one line without its extra:
beginnings of paths, and the distributions of their extras."""
TOOLS = {
    "alembic": "mlflow makes its SQLite file with it",
    "beartype": "checks shapes while the tests run",
    "hrl-sarp": "dev takes the extras docs, tune, onnx and forecast in",
    "mkdocs-material": "builds the pages",
    "mkdocstrings": "makes the API pages from docstrings",
    "mutmut": "make mutants",
    "mypy": "the type checker",
    "types-PyYAML": "its stubs",
    "pre-commit": "runs the checks before a commit",
    "hatchling": "builds the wheel that a test installs",
    "ruff": "style and format",
    "nbmake": "runs the notebooks",
    "ipykernel": "runs the notebooks",
    "pytest-timeout": "ends a test that hangs",
    "pytest-xdist": "runs tests side by side",
    "tensorboard": "torch.utils.tensorboard writes through it, users read with it",
}
"""Distributions that are needed without an import in our code, and why."""


@cache
def declared() -> tuple[set[str], set[str]]:
    """Return the distributions of the package and those of its optional dependencies."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return names(project["dependencies"]), names([line for lines in extras for line in lines])


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in requirements}


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level name of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def cells(path: Path) -> ast.Module:
    """Return the code of a notebook, without its shell and magic lines."""
    content = json.loads(path.read_text())
    code = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    lines = [line for line in "\n".join(code).splitlines() if not line.startswith(("%", "!"))]
    return ast.parse("\n".join(lines))


@cache
def installed() -> dict[str, list[str]]:
    """Return the distributions that install each module."""
    return {module: list(found) for module, found in packages_distributions().items()}


def imported(*folders: str) -> dict[str, str]:
    """Return each distribution that the files below some folders import, and one of the files."""
    found: dict[str, str] = {}
    for folder in reversed(folders):
        found |= imported_below(folder)
    return found


@cache
def imported_below(folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    start = REPOSITORY / folder
    files = sorted(start.rglob("*.py")) if start.is_dir() else [start]
    trees = [(path, parse(path)) for path in files]
    trees += [(path, cells(path)) for path in sorted(start.rglob("*.ipynb"))]
    for path, tree in trees:
        for name in imports(tree):
            if name not in OURS and name not in sys.stdlib_module_names:
                found.setdefault(distribution(name), path.relative_to(REPOSITORY).as_posix())
    return found


def distribution(module: str) -> str:
    """Return the declared spelling of the distribution that installs a module."""
    if module in COMES_WITH:
        return COMES_WITH[module]
    providers = installed().get(module, [module])
    package, extras = declared()
    known = {canonical(name): name for name in package | extras}
    return next((known[canonical(p)] for p in providers if canonical(p) in known), providers[0])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_package_imports_only_what_it_declares() -> None:
    package, extras = declared()
    assert {name for names in EXTRAS.values() for name in names} <= extras
    found = imported("hrl_sarp", "main.py")
    assert {
        name: path
        for name, path in found.items()
        if name not in package and not any(name in EXTRAS[folder] for folder in folders_of(path))
    } == {}


def folders_of(path: str) -> list[str]:
    """Return the beginnings of a path that have an extra of their own."""
    return [beginning for beginning in EXTRAS if path.startswith(beginning)]


def test_scripts_tests_and_notebooks_import_only_what_is_declared() -> None:
    package, extras = declared()
    found = imported("scripts", "benchmarks", "notebooks", "tests")
    assert {name: path for name, path in found.items() if name not in package | extras} == {}


def test_nothing_is_declared_that_nobody_imports() -> None:
    package, extras = declared()
    assert package - imported("hrl_sarp", "main.py").keys() - TOOLS.keys() == set()
    used = imported("scripts", "benchmarks", "notebooks", "tests", "hrl_sarp").keys() | TOOLS.keys()
    assert extras - used - package == set()


def test_every_declared_distribution_is_pinned() -> None:
    package, extras = declared()
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {canonical(re.split(r"[=; ]", line)[0]) for line in lines if "==" in line}
    ours = {"hrl-sarp"}  # an extra may take in another
    assert {name for name in package | extras - ours if canonical(name) not in pinned} == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", {"a", "c"}),
        ("from d.e import f", {"d"}),
        ("def g():\n    import h", {"h"}),
        ("from . import i", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, expected: set[str]) -> None:
    assert set(imports(ast.parse(source))) == expected
