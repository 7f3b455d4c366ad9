"""Shapes and types are checked once for each kind of call, not once for each call.

jaxtyping decorates every function of the package. What it finds depends only on the kinds of the
arguments and of the result: their types, and the shapes and types of arrays. A rollout repeats the
same kinds a thousand times, and to check them again took two fifths of the time of the tests.
"""

import dataclasses
import inspect
from collections.abc import Callable, Hashable
from functools import cache, partial, wraps
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any
from unittest.mock import patch

import jaxtyping
from jaxtyping._import_hook import _JaxtypingLoader, _optimized_cache_from_source

each_call_checked = jaxtyping.jaxtyped
"""The decorator of the library."""
LONG = 32
"""Of longer containers the first and the last item are looked at, of longer texts no letter."""

Function = Callable[..., Any]
Seen = dict[Hashable, set[Hashable]]
"""Kinds of arguments -> kinds of the results."""


def check_each_kind_once() -> None:
    """Replace the decorator of jaxtyping, before the package is imported."""
    jaxtyping.jaxtyped = each_kind_checked


def keep_compiled_libraries() -> None:
    """Rename the compiled file of a module of the package only, not of what the module imports.

    jaxtyping renames it while the module runs, so that most libraries would be compiled again.
    """
    if "get_code" not in vars(_JaxtypingLoader):
        _JaxtypingLoader.get_code = _get_code
        _JaxtypingLoader.exec_module = SourceFileLoader.exec_module


def _get_code(loader: Any, name: str) -> CodeType | None:
    with patch(
        "importlib._bootstrap_external.cache_from_source",
        partial(_optimized_cache_from_source, loader._typechecker.get_hash()),
    ):
        return SourceFileLoader.get_code(loader, name)


def each_kind_checked(fn: Any = None, *, typechecker: Any = None) -> Any:
    """Decorate a function or a dataclass as `jaxtyping.jaxtyped` does."""
    if fn is None:
        return partial(each_kind_checked, typechecker=typechecker)
    checked = partial(each_call_checked, typechecker=typechecker)
    if not inspect.isclass(fn):
        return _of_kinds(fn, checked)
    own = vars(fn).get("__init__")
    if dataclasses.is_dataclass(fn) and own is not None and not hasattr(own, "checks_kinds"):
        fn.__init__ = _of_kinds(own, checked)  # type: ignore[misc]
    return fn


def _of_kinds(fn: Function, checked: Callable[[Function], Function]) -> Function:
    """Check calls of a new kind, and results of a new kind."""
    seen = _seen_by_closures(fn.__code__) if "<" in fn.__qualname__ else {}
    check = cache(partial(checked, fn))  # made with the first call: many functions have none
    config = jaxtyping.config

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if config.jaxtyping_disable:
            return fn(*args, **kwargs)
        given = (*map(kind_of, args), *kwargs, *map(kind_of, kwargs.values()))
        results = seen.get(given)
        if results is None:
            out = check()(*args, **kwargs)
            seen[given] = {kind_of(out)}
            return out
        out = fn(*args, **kwargs)
        kind = kind_of(out)
        if kind not in results:  # the same arguments, with another result
            checked(wraps(fn)(lambda *_, **__: out))(*args, **kwargs)
            results.add(kind)
        return out

    call.checks_kinds = True  # type: ignore[attr-defined]
    return call


@cache
def _seen_by_closures(_: object) -> Seen:
    """Return what has been seen of all functions of one code: an inner one is made often."""
    return {}


def kind_of(value: Any) -> Hashable:
    """Return what the check of a value depends on."""
    of_type = type(value)
    look = _how_to_look(of_type)
    return look(value) if look else of_type


@cache
def _how_to_look(of_type: type) -> Callable[[Any], Hashable] | None:
    """Return what tells the kind of a value; None where its type does."""
    if _is_array(of_type):
        return _of_array
    if issubclass(of_type, type):
        return _itself
    return {str: _of_text, tuple: _of_items, list: _of_items, dict: _of_pairs}.get(of_type)


def _of_array(value: Any) -> Hashable:
    return type(value), value.dtype, value.shape


def _itself(value: type) -> Hashable:
    return value


def _of_text(value: str) -> Hashable:
    return value if len(value) <= LONG else str


def _of_items(value: Any) -> Hashable:
    items = value if len(value) <= LONG else (value[0], value[-1])
    return type(value), *map(kind_of, items)


def _of_pairs(value: dict[Any, Any]) -> Hashable:
    if len(value) > LONG:
        return dict, kind_of(list(value.items()))
    return dict, *map(kind_of, value), *map(kind_of, value.values())


def _is_array(of_type: type) -> bool:
    """Tell arrays of NumPy and PyTorch: those of other libraries may have shapes without a hash."""
    is_ours = any(base.__module__ in ("numpy", "torch") for base in of_type.__mro__)
    return is_ours and hasattr(of_type, "dtype") and hasattr(of_type, "shape")
