"""The checks of shapes miss nothing that a check of every call would find."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jaxtyping
import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from jaxtyping._import_hook import Typechecker, _JaxtypingLoader
from torch import Tensor

from hrl_sarp.contracts import session_growth
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from tests.checked_shapes import LONG, each_call_checked, each_kind_checked, kind_of


def added(
    first: Float[np.ndarray, " A"], second: Float[np.ndarray, " A"]
) -> Float[np.ndarray, " A"]:
    return first + second if len(first) < 9 else first[:-1]


def stacked(parts: tuple[Float[Tensor, " B"], ...], how: Literal["sum", "mean"]) -> Tensor:
    whole = torch.stack(parts)
    return whole.sum(0) if how == "sum" else whole.mean(0)


def told(name: str, rows: list[int], named: dict[str, int] | None = None) -> int | None:
    return len(rows) if name else named  # type: ignore[return-value]


def floats(*shape: int) -> Float[np.ndarray, "..."]:
    return np.ones(shape)


RIGHT: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (added, (floats(3), floats(3))),
    (stacked, ((torch.ones(2), torch.ones(2)), "sum")),
    (told, ("x", [1])),
]
WRONG: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (added, (floats(3), floats(1))),
    (added, (floats(3, 1), floats(3))),
    (added, (floats(3), np.ones(3, int))),
    (added, (floats(3), torch.ones(3))),
    (added, (floats(9), floats(9))),  # the result is too short
    (stacked, ((torch.ones(2, 2), torch.ones(2, 2)), "sum")),
    (stacked, ((torch.ones(2), torch.ones(2)), "median")),
    (stacked, ([torch.ones(2)], "sum")),
    (told, ("x", ["1"])),
    (told, (b"x", [1])),
    (told, ("", [1], {"a": 1})),  # the result is a dictionary
    (told, ("x", [1], {1: 1})),
]


@pytest.mark.parametrize("kwargs", [False, True])
@pytest.mark.parametrize(("fn", "given"), WRONG)
def test_what_is_wrong_is_refused_after_right_calls_as_by_the_library(
    fn: Callable[..., Any], given: tuple[Any, ...], *, kwargs: bool
) -> None:
    for decorator in (each_call_checked, each_kind_checked):
        checked = decorator(fn, typechecker=beartype)
        names = fn.__code__.co_varnames
        for right in (args for name, args in RIGHT if name is fn):
            for _ in range(3):
                checked(*right)
        for _ in range(2):  # what was refused is refused again
            with pytest.raises(TypeCheckError):
                checked(**dict(zip(names, given, strict=False))) if kwargs else checked(*given)


def test_a_result_of_another_kind_is_checked_though_the_arguments_are_known() -> None:
    results = [np.ones(3), np.ones(3), np.ones(2)]

    def drawn(size: int) -> Float[np.ndarray, "3"]:
        return results.pop(0)[:size]

    checked = each_kind_checked(drawn, typechecker=beartype)
    checked(5)
    checked(5)
    with pytest.raises(TypeCheckError, match="return value"):
        checked(5)


def test_fields_of_a_dataclass_are_checked() -> None:
    @each_kind_checked(typechecker=beartype)
    @dataclass(frozen=True)
    class Pair:
        left: Float[np.ndarray, " A"]
        right: Float[np.ndarray, " A"]

    for size in (2, 2, 5):
        Pair(floats(size), floats(size))
    with pytest.raises(TypeCheckError, match="right"):
        Pair(floats(2), floats(5))


def test_inner_functions_of_one_code_share_what_was_seen() -> None:
    asked = []

    def make(offset: float) -> Callable[..., Any]:
        def inner(values: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
            asked.append(offset)
            return values + offset

        return each_kind_checked(inner, typechecker=beartype)

    assert make(1.0)(floats(2))[0] == 2.0
    assert make(5.0)(floats(2))[0] == 6.0
    assert asked == [1.0, 5.0]
    with pytest.raises(TypeCheckError):
        make(1.0)(floats(2, 2))


def test_ends_of_long_containers_count() -> None:
    numbers = list(range(LONG + 1))
    assert kind_of(numbers) == kind_of([*numbers, 1])
    assert kind_of(numbers) != kind_of([*numbers, "1"])
    assert kind_of(dict.fromkeys(numbers)) != kind_of({**dict.fromkeys(numbers), 99: 1})


def test_values_without_a_hash_are_told_by_their_type() -> None:
    class Symbolic:
        dtype, shape = (), ([3],)

    assert kind_of(Symbolic()) is Symbolic
    assert kind_of({"a"}) is set
    weight = torch.nn.Parameter(torch.ones(2))
    assert kind_of(weight) == (torch.nn.Parameter, torch.float32, (2,))


def test_the_package_is_checked() -> None:
    assert PortfolioSimulator.step.checks_kinds  # type: ignore[attr-defined]
    assert not jaxtyping.config.jaxtyping_disable
    session_growth(floats(3), floats(3))
    with pytest.raises(TypeCheckError):
        session_growth(floats(3), floats(2))


def test_only_modules_of_the_package_have_compiled_files_of_their_own_name(tmp_path: Path) -> None:
    """Else each process that runs tests would compile thousands of modules of libraries again."""
    source = tmp_path / "imports.py"
    of_a_library = "importlib._bootstrap_external.cache_from_source('library.py')"
    source.write_text(f"import importlib\nNAME = {of_a_library}\n")
    loader = _JaxtypingLoader("imports", str(source), typechecker=Typechecker("beartype.beartype"))
    spec = importlib.util.spec_from_loader("imports", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", False)
        loader.exec_module(module)
    assert importlib.util.cache_from_source("library.py") == module.NAME
    (own,) = tmp_path.rglob("*.pyc")
    assert "jaxtyping" in own.name
