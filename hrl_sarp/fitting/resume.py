"""The state of a run that may be stopped: a file that only the same run may resume."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrl_sarp.config.loading import find_changes
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import CheckpointError, TrainingDivergedError
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.earlier import CONFIG, RUNNING

CONFIG_HASH = "config_hash"
"""Entry of an identity. If it differs, `config.yaml` can name the differing settings."""
MARKET, MARKET_FACTS = "market", "market_facts"
"""Entries of an identity: a hash of the market, and in words what it is."""
SHOWN_CHARACTERS = 60
"""Characters of a value that a message shows."""
SHOWN = 5
"""Names that a message lists."""
HASH_LENGTH, SHOWN_DIGITS = 64, 12
"""Digits of a hash, and how many of them a message shows."""


@dataclass(frozen=True)
class RunState:
    """The saved state of an unfinished run, and the check whether a run may resume it.

    Examples:
        >>> from tempfile import mkdtemp
        >>> state = RunState(Path(mkdtemp()), "a course", {"seed": 1}, resume=True)
        >>> state.load() is None
        True
        >>> state.save({"epoch": 3})
        >>> state.load()["epoch"]
        3
        >>> state.finish()
    """

    folder: Path
    """Folder of the run; `save` makes it if needed."""
    kind: str
    """Kind of run, for example `phase 1`; a file of another kind is refused."""
    identity: Mapping[str, Any]
    """Plain values (numbers, texts, nested dicts) that must agree: data, seed, configuration."""
    resume: bool
    """False begins anew and ignores the file."""
    config: RunConfig | None = None
    """Configuration to compare with the folder's `config.yaml` if `config_hash` differs."""
    file: str = RUNNING
    option: str = "--log-dir"
    """Option of the command that names the folder, for messages."""

    @property
    def path(self) -> Path:
        """File of the state."""
        return self.folder / self.file

    def load(self) -> dict[str, Any] | None:
        """Read the state to resume.

        Returns:
            The payload of `save`, with `kind` and `identity`; None if the run begins anew.

        Raises:
            CheckpointError: if the file is damaged, of another kind or of another run.
        """
        if not self.resume or not self.path.is_file():
            return None
        payload = load_payload(self.path)
        if payload["kind"] != self.kind:
            raise CheckpointError(
                f"{self.path}: expected the checkpoint of {self.kind}, found {payload['kind']}; "
                f"choose another {self.option} or begin anew with --overwrite"
            )
        self.require_same(payload.get("identity", {}), str(self.path))
        return payload

    def require_same(self, found: Mapping[str, Any], what: str) -> None:
        """Refuse the files of another run.

        Args:
            found: identity in the files; entries that this run's identity lacks are ignored.
            what: name of the files in the message.

        Raises:
            CheckpointError: if values differ; names each with its value there and here.
        """
        differences = self.find_differences(found)
        if differences:
            raise CheckpointError(
                f"{what} is of a run with another {'; another '.join(differences)}; resume with "
                "the same options, begin anew with --overwrite, or choose another "
                f"{self.option}"
            )

    def save(self, payload: Mapping[str, Any]) -> None:
        """Write the state in one step: a kill leaves the old file or the new one.

        Args:
            payload: tensors and plain values.
        """
        save_payload(self.path, {"kind": self.kind, "identity": dict(self.identity), **payload})

    def finish(self) -> None:
        """Remove the state of a run whose results are written."""
        self.path.unlink(missing_ok=True)

    def find_differences(self, found: Mapping[str, Any]) -> list[str]:
        """Name each entry in which another run differs from this one, with both values.

        Args:
            found: identity of the other run; entries that this run's identity lacks are ignored.

        Returns:
            One text for each; for another configuration the values that differ, if the folder holds
            it.
        """
        named = differences(found, self.identity)
        named.pop(MARKET_FACTS, None)  # they explain the hash, which decides
        if MARKET in named and MARKET_FACTS in self.identity:
            there, here = found.get(MARKET_FACTS) or {}, self.identity.get(MARKET_FACTS) or {}
            named[MARKET] = f"market: {name_difference(there, here)}"
        dumped = self.folder / CONFIG
        if CONFIG_HASH not in named or self.config is None or not dumped.is_file():
            return list(named.values())
        changes = find_changes(dumped.read_text(encoding="utf-8"), self.config)
        if not changes:
            return list(named.values())
        told = {"configuration": f"configuration: {', '.join(changes)}"}
        # the seed is part of the configuration
        rest = {key: line for key, line in named.items() if key not in (CONFIG_HASH, "seed")}
        return list({**told, **rest}.values())


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Name each entry of `here`, nested or not, that differs in `there`, with both values."""
    return {
        key: f"{key}: {_both(there.get(key), value)}"
        for key, value in here.items()
        if there.get(key) != value
    }


def _later(there: str, here: str) -> str:
    """Say what takes the new days where data have only gone on since; empty for anything else."""
    (begin, _, end), (now_begin, _, now_end) = there.partition(" to "), here.partition(" to ")
    if not end or begin != now_begin or end >= now_end:
        return ""
    return f" (`decide` and `paper` take the new days; this needs a data folder that ends {end})"


def name_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say in which facts two markets differ.

    Args:
        there: facts of the market in a file; empty if the file tells none.
        here: facts of the market at hand.

    Returns:
        Each fact with both values, lists by what only one of them has.
    """
    if not there:
        return "the file does not say which"
    told = []
    for name, value in here.items():
        first, second = (str(part).split(", ") for part in (there.get(name, ""), value))
        if first == second:
            continue
        if max(len(first), len(second)) == 1:
            cure = _later(first[0], second[0]) if name == "days" else ""
            told.append(f"{name} {first[0]} there, {second[0]} here{cure}")
            continue
        only = [
            _some([part for part in one if part not in other])
            for one, other in ((first, second), (second, first))
        ]
        told.append(f"{name} only there: {only[0]}, only here: {only[1]}")
    return "; ".join(told) or "the same days, stocks and features with other values"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more


def _both(there: Any, here: Any) -> str:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = [name for name in here if there.get(name) != here[name]]
        return ", ".join(f"{name} {_both(there.get(name), here[name])}" for name in names)
    return f"{_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:SHOWN_DIGITS] if len(value) == HASH_LENGTH else value[:SHOWN_CHARACTERS]
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def require_finite_weights(title: str, module: nn.Module, where: str) -> None:
    """Refuse weights that are not finite, so that no checkpoint and no selection holds them.

    Raises:
        TrainingDivergedError: at the first such weight; names the run and the place (`where`).
    """
    for name, weights in module.named_parameters():
        if not bool(torch.isfinite(weights).all()):
            raise TrainingDivergedError(
                f"{title}: weights {name} are not finite after {where}: "
                "lower the learning rate; the last good checkpoint is kept"
            )
