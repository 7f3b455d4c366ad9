"""What the architecture tests measure on the syntax tree of our own source files."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "hrl_sarp"

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True)
class Function:
    """Size of one function."""

    name: str
    n_lines: int
    """From `def` to the last line, without the docstring."""
    n_parameters: int
    """Without self and cls."""
    nesting: int
    """Blocks inside each other; elif counts as its if."""


def source_files() -> list[Path]:
    """Return every Python file that the size budget covers: the package, main.py and scripts."""
    callers = [REPOSITORY / "main.py", *(REPOSITORY / "scripts").glob("*.py")]
    return sorted(PACKAGE.rglob("*.py")) + [path for path in callers if path.exists()]


def parse(path: Path) -> ast.Module:
    """Parse a source file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def label(path: Path) -> str:
    """Return a path as it is written in messages."""
    return path.relative_to(REPOSITORY).as_posix()


def functions(tree: ast.Module) -> Iterator[Function]:
    """Measure every function and method of a module, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode):
            yield Function(node.name, _lines(node), _parameters(node), _depth(node.body))


def class_bases(tree: ast.Module) -> dict[str, set[str]]:
    """Return the last part of the names of every class's bases."""
    return {
        node.name: {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def _lines(node: FunctionNode) -> int:
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return total
    return total - ((first.end_lineno or first.lineno) - first.lineno + 1)


def _parameters(node: FunctionNode) -> int:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    return sum(argument.arg not in {"self", "cls"} for argument in every)


def _depth(body: list[ast.stmt]) -> int:
    return max((_depth_of(statement) for statement in body), default=0)


def _depth_of(node: ast.AST) -> int:
    if isinstance(node, SCOPES):
        return 0
    inner = max((_depth_of(child) for child in _children(node)), default=0)
    chained = _elif(node)
    own = inner + 1 if isinstance(node, BLOCKS) else inner
    return max(own, _depth_of(chained)) if chained else own


def _children(node: ast.AST) -> Iterator[ast.AST]:
    chained = _elif(node)
    yield from (child for child in ast.iter_child_nodes(node) if child is not chained)


def _elif(node: ast.AST) -> ast.If | None:
    if not isinstance(node, ast.If) or len(node.orelse) != 1:
        return None
    only = node.orelse[0]
    return only if isinstance(only, ast.If) else None
