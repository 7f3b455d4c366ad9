"""Saves and loads agents, and checks that a file fits the market."""

import copy
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import nn

from hrl_sarp.contracts import CONTINUED_TABLE
from hrl_sarp.errors import CheckpointError, TrainingDivergedError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.checkpoints import load_module, load_payload, save_payload


@runtime_checkable
class Saveable(Protocol):
    """An agent made of an actor and a critic for one market."""

    kind: str
    tensors: MarketTensors

    @property
    def actor(self) -> nn.Module:
        """The network that acts."""

    @property
    def critic(self) -> nn.Module:
        """The network that values what the actor does."""


Agent = TypeVar("Agent", bound=Saveable)
_NO_RISK_INPUTS: dict[str, Any] = {"risk_inputs": [], "sector_risk_inputs": []}


def market_identity(tensors: MarketTensors) -> dict[str, Any]:
    """Return what must agree between an agent and its market; the number of stocks may differ.

    These are the names of sectors, columns and risk inputs, the width of a stock's row and a hash
    of the embeddings.
    """
    market = tensors.market
    risk = market.risk
    width = tensors.slot_features.shape[2]
    return {
        "sectors": list(market.sector_names),
        "stock_features": list(market.feature_names),
        "macro_features": [*market.macro_names, *market.portfolio_names],
        "stock_columns": int(width),
        "stock_embeddings": market.embeddings_hash,
        "risk_inputs": [] if risk is None else list(risk.input_names),
        "sector_risk_inputs": [] if risk is None else list(risk.sector_input_names),
    }


def sector_table_hash(tensors: MarketTensors) -> str:
    """Hash the sector table that a macro agent reads, or the one that it goes on from.

    It is empty where there is none.
    """
    table = tensors.sector_embeddings
    if table is None:
        return ""
    return tensors.market.manifest.get(CONTINUED_TABLE) or table_hash(table.cpu().numpy())


def table_hash(table: np.ndarray) -> str:
    """Hash a sector table."""
    return hashlib.sha256(table.tobytes()).hexdigest()


def networks_of(agent: Saveable) -> dict[str, dict[str, Any]]:
    """Copy the weights of an agent's `actor` and `critic`."""
    return copy.deepcopy({"actor": agent.actor.state_dict(), "critic": agent.critic.state_dict()})


def set_networks(agent: Agent, networks: Mapping[str, Any]) -> Agent:
    """Fill an agent's networks."""
    agent.actor.load_state_dict(networks["actor"])
    agent.critic.load_state_dict(networks["critic"])
    return agent


def save_agent(path: Path, agent: Saveable) -> Path:
    """Write an agent's networks and the market they are for."""
    payload = {
        "kind": agent.kind,
        "market": market_identity(agent.tensors),
        "sector_table": sector_table_hash(agent.tensors) if agent.kind == "macro" else "",
        **networks_of(agent),
    }
    return save_payload(path, payload)


def load_agent(path: Path, agent: Agent) -> Agent:
    """Fill `agent` from a file that `save_agent` wrote for a market like its own."""
    payload = load_payload(path)
    if payload["kind"] != agent.kind:
        raise CheckpointError(f"{path}: expected a {agent.kind} agent, found {payload['kind']}")
    missing = [name for name in ("market", "actor", "critic") if name not in payload]
    if missing:
        raise CheckpointError(f"{path}: expected {', '.join(missing)}, found none; train again")
    # a file that does not name a part was written when no market had it
    found = {**_NO_RISK_INPUTS, **payload["market"]}
    other = [
        f"expected {key} {expected}, found {found[key]}"
        for key, expected in market_identity(agent.tensors).items()
        if found[key] != expected
    ]
    if other:
        raise CheckpointError(f"{path}: was trained for another market: {'; '.join(other)}")
    _require_same_action(path, payload["actor"], agent.actor.state_dict())
    if agent.kind == "macro" and payload["sector_table"] != sector_table_hash(agent.tensors):
        raise CheckpointError(
            f"{path}: was trained on another sector table: phase 1 has run again since; run the "
            "phases after it again"
        )
    for name in ("actor", "critic"):
        load_module(path, getattr(agent, name), payload[name])
    return agent


def _require_same_action(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse networks that decide on cash where the agent does not, and the other way round."""
    decides_there, decides_here = ("cash.weight" in networks for networks in (there, here))
    if decides_there == decides_here:
        return
    kinds = {True: "decides on cash (`objective.kind: risk`)", False: "does not (`growth`)"}
    raise CheckpointError(
        f"{path}: was trained for another action: expected an agent that {kinds[decides_here]}, "
        f"found one that {kinds[decides_there]}; set `objective.kind` as in its run, or train again"
    )


def require_finite(
    name: str, value: float, step: int, days: tuple[int, int], tensors: MarketTensors
) -> None:
    """Refuse a loss that is not finite; the error names step, market rows and their dates."""
    if not math.isfinite(value):
        raise TrainingDivergedError(
            f"{name} is {value} at step {step}, batch of {describe_days(tensors, *days)}: lower "
            "the learning rate; the last good checkpoint (running.pt of the phase) is kept"
        )


def describe_days(tensors: MarketTensors, first: int, last: int) -> str:
    """Return a range of market rows with their dates, for a message."""
    dates = tensors.market.dates
    return f"market rows {first} to {last} ({dates[first]} to {dates[last]})"
