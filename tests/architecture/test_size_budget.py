"""The size budget: a page of code fits on a screen. CONTRIBUTING.md states the numbers."""

import ast
from collections import Counter
from functools import cache

from tests.architecture.source_tree import (
    PACKAGE,
    Function,
    class_bases,
    functions,
    label,
    parse,
    source_files,
)

FILES = source_files()


@cache
def measured() -> list[tuple[str, Function]]:
    return [(label(path), function) for path in FILES for function in functions(parse(path))]


def too_large(measure: str, limit: int) -> list[str]:
    return [
        f"{path}: {function.name} has {getattr(function, measure)}"
        for path, function in measured()
        if getattr(function, measure) > limit
    ]


def test_no_function_is_longer_than_60_lines() -> None:
    assert too_large("n_lines", 60) == []


def test_nine_of_ten_functions_fit_on_40_lines() -> None:
    assert len(too_large("n_lines", 40)) <= 0.1 * len(measured())


def test_no_function_nests_deeper_than_3_blocks() -> None:
    assert too_large("nesting", 3) == []


def test_modules_stay_short() -> None:
    lengths = {label(path): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 500} == {}


def test_no_folder_holds_more_than_nine_files() -> None:
    folders = Counter(label(path.parent) for path in FILES if path.is_relative_to(PACKAGE))
    assert {folder: count for folder, count in folders.items() if count > 9} == {}


def test_classes_inherit_once_within_the_package() -> None:
    bases = {name: found for path in FILES for name, found in class_bases(parse(path)).items()}
    chains = [
        f"{name} <- {base} <- {sorted(bases[base] & bases.keys())}"
        for name, found in bases.items()
        for base in found & bases.keys()
        if bases[base] & bases.keys()
    ]
    assert chains == []


def test_measures_are_right_on_a_known_function() -> None:
    # def, if, for, return, elif, return: 6 lines without the docstring; if > for is 2 deep and the
    # elif adds none; self is not counted, *rest is.
    source = '''
class Shelf:
    def put(self, book, *rest, shelf=1):
        """Two lines
        of docstring."""
        if book:
            for _ in rest:
                return 1
        elif shelf:
            return 2
'''
    (found,) = functions(ast.parse(source))
    assert (found.n_lines, found.n_parameters, found.nesting) == (6, 3, 2)
