"""Finds and calls the user's functions that a configuration names, `package.module:function`."""

import contextlib
import copy
import dataclasses
import difflib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from hrl_sarp.errors import ConfigError, HrlSarpError, OwnCodeError

PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


def is_dotted(name: str) -> bool:
    """Say whether a name is of the form `package.module:function`.

    Args:
        name: any text.

    Returns:
        True if it is.
    """
    return re.match(PATTERN, name) is not None


def _dotted_name(name: str) -> str:
    if is_dotted(name):
        return name
    module, _, function = name.rpartition(".")
    meant = f"{module}:{function}"
    cure = f"; write '{meant}'" if is_dotted(meant) else ""
    raise ValueError(f"expected package.module:function, a colon before the function{cure}")


DottedName = Annotated[str, AfterValidator(_dotted_name)]
"""`package.module:function`, importable from the working folder or from what is installed."""


def load_function(name: str, key: str) -> Callable[..., Any]:
    """Import a function of the user's.

    Args:
        name: `package.module:function`. The working folder is searched last.
        key: of the configuration, for messages.

    Returns:
        The function.

    Raises:
        ConfigError: if the module cannot be imported or has no such function, in one line.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{key}: cannot import {module_name} of '{name}': {type(error).__name__}: "
            f"{_one_line(error)}; expected package.module:function, importable from {here} or "
            "installed"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [entry for entry, value in vars(module).items() if callable(value)]
        own = sorted(entry for entry in names if not entry.startswith("_"))
        near = difflib.get_close_matches(function_name, own, n=1)
        cure = f"did you mean '{module_name}:{near[0]}'?" if near else f"correct '{name}'"
        raise ConfigError(
            f"{key}: expected the function {function_name} in {module.__file__}, found "
            f"{', '.join(own) or 'none'}; {cure}"
        )
    loaded: Callable[..., Any] = function
    return loaded


def call(function: Callable[..., Any], name: str, *given: Any) -> Any:
    """Call a function of the user's; errors become one line, what it prints goes to stderr.

    Args:
        function: of `load_function`.
        name: for messages.
        given: its arguments.

    Returns:
        What it returns.

    Raises:
        OwnCodeError: naming the function, the error and its line.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be the JSON of a command
            return function(*given)
    except HrlSarpError:
        raise
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise OwnCodeError(
            f"{name} failed with {type(error).__name__}: {_one_line(error)} "
            f"({last.filename} line {last.lineno}); correct the function"
        ) from error


def read_only(given: Any) -> Any:
    """Return a value whose arrays cannot be written, for functions of the user's.

    A function that works on its input in place would change what all others read, in silence.

    Args:
        given: an array, or a mapping or frozen dataclass of such; anything else stays as it is.

    Returns:
        Views of the same arrays, in new containers. What a dataclass computes on first use it
        computes for itself.

    Examples:
        >>> shown = read_only({"mood": np.zeros(3)})
        >>> shown["mood"] += 1
        Traceback (most recent call last):
        ...
        ValueError: output array is read-only
    """
    if isinstance(given, np.ndarray):
        view = given.view()
        view.flags.writeable = False
        return view
    if isinstance(given, dict):
        return {key: read_only(value) for key, value in given.items()}
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        shown = copy.copy(given)
        vars(shown).update(read_only(vars(given)))
        return shown
    return given


def real_numbers(given: Any) -> np.ndarray | None:
    """Return what a function of the user's gave as float64, masked values as NaN.

    Args:
        given: an array, a list, a tensor, a table.

    Returns:
        The numbers, or None where it holds something else.

    Examples:
        >>> real_numbers(np.ma.masked_array([1, 2], mask=[False, True]))
        array([ 1., nan])
        >>> real_numbers([1j]) is real_numbers("many") is None
        True
    """
    if np.iscomplexobj(given):
        return None
    try:
        if np.ma.isMaskedArray(given):
            return np.where(np.ma.getmaskarray(given), np.nan, np.ma.getdata(given))
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def summary_line(function: Any) -> str:
    """Return the first line of a function's docstring, also of one with bound arguments.

    Args:
        function: any callable.

    Returns:
        The line without its full stop; empty where the function has no docstring of its own.
    """
    bare = function
    while isinstance(bare, partial):
        bare = bare.args[0] if bare.func is call else bare.func
    text = inspect.getdoc(bare) if inspect.isroutine(bare) else ""
    return (text or "").split("\n")[0].rstrip(".")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
