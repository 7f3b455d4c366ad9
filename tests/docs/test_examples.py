"""Examples in docstrings are run as they stand."""

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import hrl_sarp

SOURCE = Path(hrl_sarp.__file__).parent


def modules_with_examples() -> list[str]:
    # by their text, for to import the whole package takes each process of the tests ten seconds
    files = [path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    names = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in files]
    return sorted(name.removesuffix(".__init__") for name in names)


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    told: list[str] = []
    examples = examples_of(importlib.import_module(name))
    assert examples, "an example that no docstring shows"
    for test in examples:
        runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)
