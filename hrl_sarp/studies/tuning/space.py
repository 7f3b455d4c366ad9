"""The search space of tuning: which values of the configuration are tried, and their check."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from hrl_sarp.config.loading import flattened, overlaid
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import FloatRange, IntRange, TuningConfig
from hrl_sarp.errors import ConfigError

TUNABLE = ("macro_agent", "micro_agent", "curriculum", "objective", "risk_model", "rewards")
"""Sections of the agents: how they learn. All trials share the others."""
FIXED = ("curriculum.certification", "curriculum.acceptance")
"""What evaluates, in these sections."""


@runtime_checkable
class Tried(Protocol):
    """What any search draws its values from: keys with ranges, and keys with choices."""

    @property
    def floats(self) -> dict[str, FloatRange]:
        """Ranges of numbers."""
        ...

    @property
    def ints(self) -> dict[str, IntRange]:
        """Ranges of whole numbers."""
        ...

    @property
    def choices(self) -> dict[str, list[Any]]:
        """Values to choose from."""
        ...


def require_search(tuning: TuningConfig, config: RunConfig, origin: str) -> None:
    """Refuse a search space whose values do not fit the configuration, before the first trial.

    Every end of a range and every choice is laid over the configuration alone. A trial whose values
    contradict each other fails by itself.

    Args:
        tuning: the search space.
        config: of the experiment.
        origin: name of the file, for messages.

    Raises:
        ConfigError: naming every key that is none of the configuration, with the near one; every
            key that tuning may not change; and every value of the wrong type or out of range.
    """
    keys = [*tuning.floats, *tuning.ints, *tuning.choices]
    problems = [told for key in keys for told in _problems_of_key(key, config)]
    problems = problems or [
        line
        for key, value in ends_of(tuning)
        for line in _problems_of_value(key, value, config, origin)
    ]
    if problems:
        raise ConfigError("\n  ".join([f"cannot use the search space {origin}:", *problems]))


def _problems_of_key(key: str, config: RunConfig) -> Iterator[str]:
    known = list(flattened(config.model_dump()))
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        yield f"{key}: no value of the configuration{hint}"
    elif key.split(".")[0] not in TUNABLE or key.startswith(FIXED):
        yield (
            f"{key}: trials share it, because they are compared by it or on it; expected a value "
            f"of {', '.join(TUNABLE)}, none of {', '.join(FIXED)}"
        )


def ends_of(tuning: Tried) -> Iterator[tuple[str, Any]]:
    """Yield every key with each end of its range, or with each of its choices."""
    for ranges in (tuning.floats, tuning.ints):
        yield from ((key, end) for key, found in ranges.items() for end in (found.low, found.high))
    for key, choices in tuning.choices.items():
        yield from ((key, value) for value in choices)


def _problems_of_value(key: str, value: Any, config: RunConfig, origin: str) -> list[str]:
    try:
        overlaid(config, {key: value}, origin)
    except ConfigError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def as_label(value: Any) -> bool | int | float | str | None:
    """Write a choice as Optuna stores it: a list or a mapping as its JSON.

    Examples:
        >>> as_label([0.0, 1.0]), as_label("gat")
        ('[0.0, 1.0]', 'gat')
    """
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else json.dumps(value, sort_keys=True)


def choice_of(label: Any, choices: list[Any]) -> Any:
    """Return the choice that a label stands for."""
    return next(value for value in choices if as_label(value) == label and _alike(value, label))


def _alike(value: Any, label: Any) -> bool:
    """Tell True from 1, which are equal in Python."""
    return isinstance(value, bool) == isinstance(label, bool)


def differing(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """Return the values in which a configuration differs from another one, by dotted key."""
    there, here = (flattened(each.model_dump()) for each in (base, config))
    return {key: value for key, value in here.items() if key not in there or there[key] != value}


def shown_values(values: Mapping[str, Any]) -> str:
    """Write the values of a trial in one line.

    Examples:
        >>> shown_values({"macro_agent.ppo.gamma": 0.123456, "macro_agent.graph.layer": "gat"})
        'macro_agent.ppo.gamma 0.1235, macro_agent.graph.layer gat'
    """
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in values.items()
    )
