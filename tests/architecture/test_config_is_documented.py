"""A reader of the schema learns what every value means, without searching its uses."""

import ast
from pathlib import Path

from tests.architecture.source_tree import PACKAGE, parse

SCHEMA = [
    PACKAGE / "config" / name
    for name in (
        *("schema.py", "market_schema.py", "objective_schema.py", "encoder_schema.py"),
        "study_schema.py",
    )
]


def sections() -> list[ast.ClassDef]:
    return [node for path in SCHEMA for node in parse(path).body if isinstance(node, ast.ClassDef)]


def undocumented_fields(section: ast.ClassDef, section_names: set[str]) -> list[str]:
    # A field that is a section itself is explained by that section's docstring.
    return [
        f"{section.name}.{ast.unparse(node.target)}"
        for node, after in zip(section.body, [*section.body[1:], None], strict=True)
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.annotation) not in section_names
        and not _is_docstring(after)
    ]


def _is_docstring(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_every_section_says_what_it_is() -> None:
    assert [node.name for node in sections() if not ast.get_docstring(node)] == []


def test_every_field_says_what_it_means() -> None:
    found = sections()
    names = {node.name for node in found}
    assert [field for node in found for field in undocumented_fields(node, names)] == []


def test_no_field_has_a_default_beside_the_one_in_yaml() -> None:
    defaults = [
        f"{section.name}.{ast.unparse(node.target)} = {ast.unparse(node.value)}"
        for section in sections()
        for node in section.body
        if isinstance(node, ast.AnnAssign)
        and node.value is not None
        and not _is_plain_field(node.value)
    ]
    assert defaults == []


def _is_plain_field(value: ast.expr) -> bool:
    return (
        isinstance(value, ast.Call)
        and ast.unparse(value.func) == "Field"
        and not value.args
        and not {keyword.arg for keyword in value.keywords} & {"default", "default_factory"}
    )


def test_schema_files_hold_every_section() -> None:
    others = [path for path in Path(PACKAGE / "config").glob("*.py") if path not in SCHEMA]
    strays = [
        node.name
        for path in others
        for node in parse(path).body
        if isinstance(node, ast.ClassDef) and "Section" in map(ast.unparse, node.bases)
    ]
    assert strays == []


def test_field_without_docstring_is_found() -> None:
    source = (
        'class Part(Section):\n    risk: Risk\n    a: int\n    """Documented."""\n    b: float = 1'
    )
    (section,) = ast.parse(source).body
    assert isinstance(section, ast.ClassDef)
    assert undocumented_fields(section, {"Risk"}) == ["Part.b"]
