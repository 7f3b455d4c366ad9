"""The annotated tree in README.md is compared with the folder, so that the map cannot rot."""

import re
from fnmatch import fnmatch
from pathlib import Path

ARTIFACTS = {"data", "logs"}
"""Made by runs and never committed; the tree may explain them."""


def listed_paths(text: str) -> set[str]:
    """Return the paths of the tree between the markers; indentation or branches show the depth."""
    block = re.search(r"<!-- tree -->\s*```\w*\n(.*?)```\s*<!-- /tree -->", text, re.DOTALL)
    assert block, "README.md has no fenced tree between <!-- tree --> and <!-- /tree -->"
    paths: set[str] = set()
    parents: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        entry = re.match(r"([\s│├└─|`]*)(\S+)", line)
        if entry is None:
            continue
        indent, name = len(entry[1]), entry[2].rstrip("/")
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = f"{parents[-1][1]}/{name}" if parents else name
        parents.append((indent, path))
        paths.add(path)
    return paths


def present_paths(repository: Path) -> set[str]:
    """Return the parts of the repository and of the package, without what .gitignore lists."""
    lines = (repository / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [line.strip("/") for line in lines]
    entries = [*repository.iterdir(), *(repository / "hrl_sarp").iterdir()]
    return {
        path.relative_to(repository).as_posix()
        for path in entries
        if not path.name.startswith((".", "__", "py.typed"))
        and not any(fnmatch(path.name, pattern) for pattern in ignored)
    }


def test_tree_lists_every_top_level_entry_and_every_part_of_the_package(repository: Path) -> None:
    listed = listed_paths((repository / "README.md").read_text(encoding="utf-8"))
    assert present_paths(repository) - listed == set()


def test_tree_lists_nothing_that_is_not_there(repository: Path) -> None:
    listed = listed_paths((repository / "README.md").read_text(encoding="utf-8"))
    explained = {path for path in listed if path.split("/")[0] in ARTIFACTS}
    assert [path for path in listed - explained if not (repository / path).exists()] == []


def test_tree_is_read_from_indentation_and_from_branches() -> None:
    expected = {"main.py", "hrl_sarp", "hrl_sarp/data", "hrl_sarp/data/store.py", "tests"}
    indented = "main.py  start\nhrl_sarp/\n  data/  raw\n    store.py\ntests/"
    branches = "├── main.py\n├── hrl_sarp/\n│   └── data/\n│       └── store.py\n└── tests/"
    for tree in (indented, branches):
        assert listed_paths(f"<!-- tree -->\n```text\n{tree}\n```\n<!-- /tree -->") == expected
