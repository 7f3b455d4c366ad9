"""Constructs that have cost others their results, their data or their trust."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import PACKAGE, label, parse, source_files

VAGUE_NAMES = {"utils", "util", "common", "helpers", "base", "manager", "handler", "misc"}
RUNS_CODE = {
    "pickle.load",
    "pickle.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "eval",
    "exec",
}
RUNS_CODE_WHEN = {("weights_only", False), ("allow_pickle", True)}
NETWORK = {"socket", "urllib", "http", "requests", "aiohttp", "httpx", "yfinance"}
MODERN_NUMPY_RANDOM = {"Generator", "default_rng", "SeedSequence", "PCG64", "BitGenerator"}
SAVED_BY_CHECKPOINTS = {"get_state", "set_state"}
GLOBAL_STATE = {"numpy.random", "np.random"}


def findings(tree: ast.Module) -> Iterator[str]:
    """Yield what is forbidden everywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node):
            yield f"line {node.lineno}: catches every exception"
        if isinstance(node, ast.Call):
            yield from _unsafe_call(node)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield f"line {node.lineno}: __future__ import hides annotations from run-time checks"


def global_randomness(tree: ast.Module) -> Iterator[str]:
    """Yield draws from, and seeds of, NumPy's global generator."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) in GLOBAL_STATE
            and node.attr not in MODERN_NUMPY_RANDOM | SAVED_BY_CHECKPOINTS
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def imported(tree: ast.Module) -> set[str]:
    """Return the top-level names of all imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def _catches_everything(node: ast.ExceptHandler) -> bool:
    last = node.body[-1]
    if isinstance(last, ast.Raise) and (last.exc is None or last.cause is not None):
        return False  # it adds something and lets the error go on, or names what user code raised
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    names = {ast.unparse(kind) if kind else "BaseException" for kind in caught}
    return bool(names & {"Exception", "BaseException"})


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    if ast.unparse(node.func) in RUNS_CODE:
        yield f"line {node.lineno}: {ast.unparse(node.func)} can run code from a file"
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in RUNS_CODE_WHEN:
            yield f"line {node.lineno}: {keyword.arg}={value} can run code from a file"


def everywhere(
    check: Callable[[ast.Module], Iterator[str]], allowed: frozenset[str] | set[str] = frozenset()
) -> list[str]:
    return [
        f"{label(path)} {finding}"
        for path in source_files()
        if label(path) not in allowed
        for finding in check(parse(path))
    ]


def test_nothing_swallows_errors_or_runs_code_from_files() -> None:
    assert everywhere(findings) == []


def test_only_the_runtime_seeds_the_global_random_state() -> None:
    assert everywhere(global_randomness, allowed={"hrl_sarp/run/session.py"}) == []


def test_only_the_configuration_reader_knows_yaml() -> None:
    users = {label(path) for path in source_files() if "yaml" in imported(parse(path))}
    assert users == {"hrl_sarp/config/loading.py"}


def test_only_the_sources_may_reach_the_network() -> None:
    users = [label(path) for path in source_files() if imported(parse(path)) & NETWORK]
    assert [path for path in users if not path.startswith("hrl_sarp/data/sources/")] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    assert [path for path in names if VAGUE_NAMES & set(Path(path).with_suffix("").parts)] == []


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    x()\nexcept Exception:\n    pass",
        "try:\n    x()\nexcept (ValueError, BaseException):\n    pass",
        "try:\n    x()\nexcept:\n    pass",
        "pickle.load(file)",
        "yaml.load(text)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "from __future__ import annotations",
    ],
)
def test_forbidden_construct_is_found(source: str) -> None:
    assert len(list(findings(ast.parse(source)))) == 1


def test_global_draw_is_found_and_a_generator_is_not() -> None:
    tree = ast.parse("np.random.seed(1)\nrng = np.random.default_rng(1)\nrng.normal()")
    assert list(global_randomness(tree)) == ["line 1: np.random.seed"]
