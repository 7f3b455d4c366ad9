"""Writes the deployed pair of a run as two graphs with their description and a worked example."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl_sarp.contracts import Goal
from hrl_sarp.daily.decision.decide import mean_policy
from hrl_sarp.daily.export.decisions import (
    DailyDecision,
    WeeklyDecision,
    daily_arrays,
    macro_agents,
    weekly_arrays,
)
from hrl_sarp.daily.export.facts import describe, has_networks
from hrl_sarp.daily.export.graphs import Exportable, Session, to_onnx
from hrl_sarp.daily.export.sectors import SectorEmbeddings
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.evaluation.policies import LoadedAgents
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.files import sha256_file, write_bytes, write_json
from hrl_sarp.run.session import require_extra
from hrl_sarp.simulator.limits import feasible_goal
from hrl_sarp.training.phase import PhaseContext

DESCRIPTION, EXAMPLE = "agents.json", "example.npz"
GRAPHS = {"sectors": "sectors.onnx", "weekly": "weekly.onnx", "daily": "daily.onnx"}
"""Graph -> its file, in the order in which they are run."""
EXPECTED = "expected"
"""Beginning of the names of outputs in the example, where inputs begin with their graph."""
TOLERANCE = 1e-5
"""Largest difference of a weight between the graphs and the package."""
SESSIONS = 30
"""Last sessions of the market on which the graphs are compared with the package."""

Arrays = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Exported:
    """An export that is written.

    Examples:
        >>> [field for field in Exported.__dataclass_fields__]
        ['folder', 'name', 'networks', 'difference', 'sessions']
    """

    folder: Path
    name: str
    """Of the pair."""
    networks: tuple[int, int]
    """That decide on weeks and on days; 0 where nothing that was learned is deployed."""
    difference: float
    """Largest one of a weight between the graphs and the package."""
    sessions: int
    """On which they were compared."""

    def sentence(self) -> str:
        """Say what was written and how well it agrees with the package.

        Returns:
            A sentence, and a second one where nothing that was learned decides.
        """
        counts = dict(zip(("weekly", "daily"), self.networks, strict=True))
        rules = " and ".join(name for name, count in counts.items() if not count)
        nothing = (
            f". Nothing that was learned is granted for the {rules} decision, where the classical "
            "portfolio decides; --pair exports a trained pair"
        )
        return (
            f"wrote '{self.name}' to {self.folder}: {counts['weekly']} weekly and "
            f"{counts['daily']} daily networks; on the last {self.sessions} sessions its numbers "
            f"differ from those of the package by at most {self.difference:.1g}"
            f"{nothing if rules else ''}"
        )


def require_room(folder: Path, *, overwrite: bool) -> None:
    """Refuse an export before anything is loaded for it.

    Args:
        folder: to write.
        overwrite: replace what it holds.

    Raises:
        OverwriteError: naming the file that is there.
        HrlSarpError: if the extra `onnx` is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_extra(package, "onnx")
    there = [name for name in (DESCRIPTION, *GRAPHS.values(), EXAMPLE) if (folder / name).exists()]
    if there and not overwrite:
        raise OverwriteError(
            f"{folder} holds an export ({there[0]}): --overwrite replaces it, another --output "
            "keeps it"
        )


def export_agents(
    agents: Sequence[LoadedAgents],
    folder: Path,
    pair: str | None = None,
    *,
    overwrite: bool = False,
) -> Exported:
    """Write both decisions of what is deployed, so that programs without torch can take them.

    Where a learned agent decides on weeks, the network of its sector embeddings is written, too.

    Before anything is written, the graphs decide on the last sessions of the market beside the
    package.

    Args:
        agents: of one run, or of several on one market, which differ in their seeds and decide as
            their mean.
        folder: gets `sectors.onnx`, `weekly.onnx`, `daily.onnx`, `agents.json`, `example.npz`.
        pair: row of the backtest's table; None takes what is deployed.
        overwrite: replace an export that the folder holds.

    Returns:
        What was written.

    Raises:
        OverwriteError: if the folder holds an export and may not be overwritten.
        HrlSarpError: if the extra `onnx` is not installed, no such pair is there, or a graph
            decides otherwise than the package.
    """
    require_room(folder, overwrite=overwrite)
    context = agents[0].context
    policy = mean_policy([one.policies()[0] for one in agents], pair)
    per_sector = context.tensors.slots_per_sector
    sectors = None
    if learned := macro_agents(policy.macro):
        sectors = SectorEmbeddings(learned, [seed.context for one in agents for seed in one.seeds])
    modules: dict[str, Exportable] = {
        **({} if sectors is None else {"sectors": sectors}),
        "weekly": WeeklyDecision(policy.macro, context.config.risk, per_sector),
        "daily": DailyDecision(policy.micro, context.micro_settings()),
    }
    days = list(_replayed(policy, context, sectors))
    last, expected = days[-1]
    graphs = {name: to_onnx(module, last[name]) for name, module in modules.items()}
    difference = _largest_difference(graphs, days)
    if not difference <= TOLERANCE:
        raise HrlSarpError(
            f"export of '{policy.name}': a graph gives weights that differ by {difference:.1g} "
            f"from those of the package, expected at most {TOLERANCE:g}; nothing was written: "
            "install the versions of constraints.txt"
        )
    facts = describe(policy, [one.context for one in agents], last)
    _write(folder, graphs, _example(last, expected), facts, context)
    return Exported(folder, policy.name, has_networks(policy), difference, len(days))


def _replayed(
    policy: HierarchicalPolicy, context: PhaseContext, sectors: SectorEmbeddings | None
) -> Iterator[tuple[Arrays, dict[str, Tensor]]]:
    """Yield inputs and decisions of the last sessions, of a portfolio that begins in cash.

    The goal of the last one is new, whatever its weekday, so that both decisions follow each other
    in the example.
    """
    tensors = MarketTensors(context.market, torch.float64, "cpu")
    config, last = context.config, context.market.n_days - 1
    clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs=1)
    day = max(0, last - SESSIONS + 1)
    clocks.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
    for row in range(day, last + 1):
        weekly = weekly_arrays(policy, clocks)
        goal = policy.macro.goal(clocks.macro_observation())
        clocks.set_goal(goal, clocks.goal_is_due() | (row == last))
        arrays = {"weekly": weekly, "daily": daily_arrays(policy, clocks)}
        asked = policy.micro.target(clocks.micro_observation())
        expected = expected_decision(clocks, goal, asked)
        if sectors is not None:
            arrays["sectors"] = sectors.arrays(row)
            expected |= sectors.expected(row)
        yield arrays, expected
        if row < last:
            clocks.trade_day(asked.double())


def expected_decision(clocks: TwoClocks, goal: Goal, asked: Tensor) -> dict[str, Tensor]:
    """Return what the simulator makes of the decisions of one portfolio, by the outputs' names.

    Args:
        clocks: of the portfolio, at its close.
        goal: that its weekly policy would set.
        asked: what its daily policy asks for.
    """
    tensors, day, risk = clocks.tensors, clocks.day, clocks.risk
    weights = feasible_goal(tensors, day, goal.sector_weights.to(tensors.dtype), risk)
    target = clocks.targets(asked)
    slots = tensors.to_slots(target, day)
    away = target - tensors.to_assets(slots, day)
    kept = (away * (1 - tensors.halted[day])).sum(dim=1, keepdim=True)
    whole = Goal(weights.float(), goal.cash, goal.regime_probabilities)
    return {
        "goal": whole.to_vector(),
        "weights": slots.float(),
        "kept_elsewhere": kept.float(),
        "asked": asked,
    }


def _largest_difference(
    graphs: Mapping[str, bytes], days: Sequence[tuple[Arrays, Mapping[str, Tensor]]]
) -> float:
    """Return the largest difference of any output on any day; NaN if one is."""
    sessions = {name: Session(content) for name, content in graphs.items()}
    differences = [
        np.abs(found - expected[output].numpy()).max()
        for arrays, expected in days
        for name, session in sessions.items()
        for output, found in session.run({k: v.numpy() for k, v in arrays[name].items()}).items()
    ]
    return float(np.max(differences))


def _example(arrays: Arrays, expected: Mapping[str, Tensor]) -> bytes:
    parts = {**arrays, EXPECTED: expected}
    named = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    content = io.BytesIO()
    np.savez(content, **{key: value.numpy() for key, value in named.items()})  # type: ignore[arg-type]
    return content.getvalue()


def _write(
    folder: Path,
    graphs: Mapping[str, bytes],
    example: bytes,
    facts: dict[str, Any],
    context: PhaseContext,
) -> None:
    """Write all files, the description last: a folder without it is no export."""
    market = context.market
    for name in (DESCRIPTION, *GRAPHS.values()):
        (folder / name).unlink(missing_ok=True)
    contents = {GRAPHS[name]: content for name, content in graphs.items()} | {EXAMPLE: example}
    for name, content in contents.items():
        write_bytes(folder / name, content)
    files = {
        **{name: _file(folder / GRAPHS[name]) for name in graphs},
        "example": {
            **_file(folder / EXAMPLE),
            "day": str(market.dates[-1]),
            "stocks": [market.symbols[k] if k >= 0 else None for k in market.slots[-1]],
            "inputs": "GRAPH.INPUT",
            "outputs": f"{EXPECTED}.OUTPUT",
            "tolerance": TOLERANCE,
        },
    }
    write_json(folder / DESCRIPTION, {**facts, "files": files})


def _file(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_file(path)}
