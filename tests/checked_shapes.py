"""Shapes and types are checked once for each kind of call, not once for each call.

jaxtyping decorates every function of the package. What it finds depends only on the kinds of the
arguments and of the result: their types, and the shapes and types of arrays. A rollout repeats the
same kinds a thousand times, and to check them again took two fifths of the time of the tests.
"""

import dataclasses
import inspect
from collections.abc import Callable, Hashable
from functools import cache, partial, wraps
from typing import Any

import jaxtyping

each_call_checked = jaxtyping.jaxtyped
"""The decorator of the library."""
PLAIN = frozenset((int, float, bool, type(None)))
LONG = 32
"""Of longer containers the first and the last item are looked at, of longer texts no letter."""

Function = Callable[..., Any]
Seen = tuple[set[Hashable], set[Hashable]]


def check_each_kind_once() -> None:
    """Replace the decorator of jaxtyping, before the package is imported."""
    jaxtyping.jaxtyped = each_kind_checked


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
    called, returned = _seen_by_closures(fn.__code__) if "<" in fn.__qualname__ else _nothing_seen()
    check = cache(partial(checked, fn))  # made with the first call: many functions have none

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        given = (*map(kind_of, args), *kwargs, *map(kind_of, kwargs.values()))
        is_new = given not in called
        out = check()(*args, **kwargs) if is_new else fn(*args, **kwargs)
        found = given, kind_of(out)
        if found not in returned:
            if not is_new:  # the same arguments, with another result
                checked(wraps(fn)(lambda *_, **__: out))(*args, **kwargs)
            called.add(given)
            returned.add(found)
        return out

    call.checks_kinds = True  # type: ignore[attr-defined]
    return call


def _nothing_seen() -> Seen:
    return set(), set()


@cache
def _seen_by_closures(_: object) -> Seen:
    """Return what has been seen of all functions of one code: an inner one is made often."""
    return _nothing_seen()


def kind_of(value: Any) -> Hashable:
    """Return what the check of a value depends on."""
    of_type = type(value)
    if of_type in PLAIN:
        return of_type
    if _is_array(of_type):
        return of_type, value.dtype, value.shape
    if of_type is str:
        return value if len(value) <= LONG else str
    if of_type is tuple or of_type is list:
        items = value if len(value) <= LONG else (value[0], value[-1])
        return of_type, *map(kind_of, items)
    if of_type is dict:
        return of_type, kind_of(list(value.items()))
    return value if isinstance(value, type) else of_type


@cache
def _is_array(of_type: type) -> bool:
    """Tell arrays of NumPy and PyTorch: those of other libraries may have shapes without a hash."""
    is_ours = any(base.__module__ in ("numpy", "torch") for base in of_type.__mro__)
    return is_ours and hasattr(of_type, "dtype") and hasattr(of_type, "shape")
