"""Examples in docstrings are run as they stand."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import hrl_sarp


def modules_with_examples() -> list[str]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [found.name for found in pkgutil.walk_packages(hrl_sarp.__path__, "hrl_sarp.")]
    modules = [importlib.import_module(name) for name in ("hrl_sarp", *names)]
    return [module.__name__ for module in modules if any(t.examples for t in finder.find(module))]


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_give_what_they_show(name: str) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    told: list[str] = []
    for test in examples_of(importlib.import_module(name)):
        runner.run(test, out=told.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)
