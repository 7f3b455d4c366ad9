"""What outside code may rely on: the names of each package's `__all__`, and what they must say."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import hrl_sarp

WHOLE_MODULES = ("hrl_sarp.contracts", "hrl_sarp.errors", "hrl_sarp.metrics")
"""Public from end to end: they have no `__all__`."""


def packages() -> list[ModuleType]:
    """Import every package of ours and the modules that are public as a whole."""
    names = [
        found.name for found in pkgutil.walk_packages(hrl_sarp.__path__, "hrl_sarp.") if found.ispkg
    ]
    return [importlib.import_module(name) for name in ("hrl_sarp", *names, *WHOLE_MODULES)]


def public_objects() -> dict[str, Any]:
    """Return public classes and functions by their full name, each once."""
    found: dict[str, Any] = {}
    for module in packages():
        own = module.__name__ in WHOLE_MODULES
        for name in sorted(vars(module)) if own else getattr(module, "__all__", []):
            value = getattr(module, name)
            is_ours = getattr(value, "__module__", "").startswith("hrl_sarp")
            if not is_ours or not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if own and (name.startswith("_") or value.__module__ != module.__name__):
                continue
            found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def missing(name: str, value: Any) -> Iterator[str]:
    """List what the docstrings of a public class or function leave unsaid."""
    if not inspect.isclass(value):
        yield from _missing_of_function(name, value)
        return
    text = inspect.getdoc(value) if value.__doc__ else ""
    if not text:
        yield f"{name}: docstring"
    if not issubclass(value, BaseException) and ">>>" not in (text or ""):
        yield f"{name}: example"
    yield from (
        f"{name}: Args of __init__: {word}" for word in _undescribed_arguments(value, text or "")
    )
    for key, member in vars(value).items():
        if key.startswith("_"):
            continue
        if isinstance(member, property) and not member.__doc__:
            yield f"{name}.{key}: docstring"
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function):
            yield from _missing_of_function(f"{name}.{key}", function)


def _undescribed_arguments(value: type, text: str) -> list[str]:
    """Constructor arguments that neither the class docstring nor a field's own text names."""
    init = vars(value).get("__init__")
    # fields of a dataclass have texts of their own, a protocol is not constructed
    is_protocol = getattr(value, "_is_protocol", False)
    if init is None or is_protocol or "__dataclass_fields__" in vars(value):
        return []
    parameters = [word for word in inspect.signature(init).parameters if word != "self"]
    return [word for word in parameters if not re.search(rf"^\s*\*{{0,2}}{word}\b.*:", text, re.M)]


def _missing_of_function(name: str, function: Any) -> Iterator[str]:
    text = inspect.getdoc(function) if function.__doc__ else ""
    if not text:
        yield f"{name}: docstring"
        return
    signature = inspect.signature(function)
    words = [word for word in signature.parameters if word not in {"self", "cls"}]
    for word in words:
        if not re.search(rf"^\s+\*{{0,2}}{word}\b.*:", text, re.M):
            yield f"{name}: Args: {word}"
    returns = signature.return_annotation
    returns_nothing = returns in {None, inspect.Signature.empty, "None"}
    if not returns_nothing and not {"Returns:", "Yields:"} & set(text.split()):
        yield f"{name}: Returns"
    for error in _raised(function):
        if error not in text:
            yield f"{name}: Raises: {error}"


def _raised(function: Any) -> set[str]:
    """Names of our errors that the function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    names = [ast.unparse(node.func if isinstance(node, ast.Call) else node) for node in raised]
    return {name for name in names if name.endswith("Error")}
