"""The trained pairs of agents of a run, as policies of a backtest, and what they were granted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    ProportionalGoal,
    mixed_pair,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.attribution import (
    CLASSICAL_PRIOR,
    GOAL_FOLLOWING,
    MACRO_SHARE,
    MICRO_SHARE,
    LevelSwaps,
)
from hrl_sarp.evaluation.trials import SELECTION
from hrl_sarp.reporting.figure import Curve, Panel
from hrl_sarp.reporting.page import block_html
from hrl_sarp.reporting.table import percent
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import PHASES, seed_folders
from hrl_sarp.training.acceptance import Acceptance
from hrl_sarp.training.certify import read_certification
from hrl_sarp.training.curriculum import phase_tables
from hrl_sarp.training.phase import PREFIXES, PhaseContext, with_sector_table
from hrl_sarp.training.rl_loop import EVALUATION
from hrl_sarp.training.seeds import members

CERTIFIED = "certified"
MACRO_ONLY, MICRO_ONLY = "trained macro + rule micro", "rule macro + trained micro"
"""Name of the last pair as it is deployed: as far from the classical policy as was granted."""


@dataclass(frozen=True)
class Run:
    """A finished run, as `hrl_sarp.load_run` finds it.

    Examples:
        >>> [field for field in Run.__dataclass_fields__]
        ['log_dir', 'config', 'market', 'agents']
    """

    log_dir: Path
    config: RunConfig
    """The configuration that the run wrote beside its first phase."""
    market: Market
    agents: HierarchicalPolicy
    """The certified pair; the pair of the last finished phase where nothing was certified."""

    def _repr_html_(self) -> str:
        """The curves of each finished phase and what it was granted, as a notebook shows them."""
        folders = seed_folders(self.log_dir).values()
        return "".join(block_html(table) for folder in folders for table in phase_tables(folder))


@dataclass(frozen=True)
class LoadedAgents:
    """The agents of a run, loaded once, which decide on any market of the same columns.

    Examples:
        >>> [field for field in LoadedAgents.__dataclass_fields__]
        ['context', 'seeds']
    """

    context: PhaseContext
    seeds: Sequence["_Seed"]

    @classmethod
    def of(cls, context: PhaseContext) -> "LoadedAgents":
        """Load the agents of every seed of a run.

        Args:
            context: of the run.

        Raises:
            MissingArtifactError: if phases 1 and 2 have not finished.
            CheckpointError: if a file is damaged or belongs to another market.
        """
        return cls(context, [_Seed.of(member) for member in members(context)])

    def policies(
        self, change: Callable[[Market], Market] = lambda market: market
    ) -> tuple[list[HierarchicalPolicy], LevelSwaps]:
        """Let the agents read the market that `change` makes of theirs; see `trained_policies`."""
        seeds = [each.pairs(change) for each in self.seeds]
        return _named_policies(self.context, seeds)


def trained_policies(
    context: PhaseContext, change: Callable[[Market], Market] = lambda market: market
) -> tuple[list[HierarchicalPolicy], LevelSwaps]:
    """Load the agents of the phases, each with the trained agent and with the rule as partner.

    Phases 1 and 2 give the pretrained policies, without reinforcement learning. Later phases are
    added if they have finished, and the certified pair if `train` has certified the run. Of a run
    of several seeds every row is their mean, and the last pair of each seed is a row as well. Two
    rows have no trained agent: the classical prior, which is the rule of both levels, and the 1/N
    goal with the classical portfolio inside the sectors.

    Args:
        context: of the run.
        change: makes the market that the policies read from the one of the run.

    Returns:
        The policies, and the names of those that show the gain of each level of the last pair over
        its rule.
    """
    return LoadedAgents.of(context).policies(change)


def _named_policies(
    context: PhaseContext, seeds: Sequence[tuple[PhaseContext, "_Pairs"]]
) -> tuple[list[HierarchicalPolicy], LevelSwaps]:
    reads, first = seeds[0]
    learned = {
        name: mixed_pair([pairs[name] for _, pairs in seeds])
        for name in first
        if all(name in pairs for _, pairs in seeds)
    }
    last = next(reversed(learned))
    macro, micro = learned[last]
    follow, classical = FollowGoal(reads.tensors, context.config.risk), ClassicalGoal(reads.tensors)
    swaps = LevelSwaps(
        both=last,
        macro_only=MACRO_ONLY,
        micro_only=MICRO_ONLY,
        neither=CLASSICAL_PRIOR,
    )
    pairs: dict[str, tuple[MacroPolicy, MicroPolicy]] = {
        last: (macro, micro),  # reports lead with the first policy
        CLASSICAL_PRIOR: (classical, follow),
        GOAL_FOLLOWING: (ProportionalGoal(reads.tensors), follow),
        **{name: pair for name, pair in learned.items() if name != last},
        swaps.macro_only: (macro, follow),
        swaps.micro_only: (classical, micro),
    }
    if len(seeds) > 1:
        pairs |= {f"{last}, seed {seen.config.seed}": found[last] for seen, found in seeds}
    policies = [
        HierarchicalPolicy(name, *pair, _description(name, last, len(seeds)))
        for name, pair in pairs.items()
    ]
    certified = read_certification(context.log_dir)
    if certified is not None:
        deployed = certified.policy(CERTIFIED, reads.tensors, context.config, macro, micro)
        deployed.description = (
            f"What is deployed: {percent(certified.macro.granted, 0)} of the macro agent and "
            f"{percent(certified.micro.granted, 0)} of the micro agent of '{last}', the share that "
            "evidence granted; the rest is the classical prior"
        )
        policies.insert(0, deployed)  # the report is about what is deployed
    return policies, swaps


PAIRS = {
    "joint": "Both agents after phase 5, in which they were trained in turns",
    "phases 1+2": "Both agents after supervised training, before reinforcement learning",
    "phase 3 macro + phase 2 micro": "The macro agent after PPO, the micro agent before TD3",
    "phases 3+4": "The macro agent after PPO (phase 3), the micro agent after TD3 (phase 4)",
    CLASSICAL_PRIOR: "No trained agent: the classical portfolio of low risk that both start from",
    GOAL_FOLLOWING: "No trained agent: sectors as in 1/N, the classical portfolio inside them",
    MACRO_ONLY: "The macro agent of '{last}', the classical portfolio inside the sectors",
    MICRO_ONLY: "The micro agent of '{last}', sectors and cash of the classical prior",
}
"""Row of a trained run -> what it is."""


def _description(name: str, last: str, n_seeds: int) -> str:
    """Say what a row of a trained run is, whose last pair is `last`."""
    if name not in PAIRS:
        return f"The pair '{last}' of one seed alone"
    is_mean = n_seeds > 1 and name not in (CLASSICAL_PRIOR, GOAL_FOLLOWING)
    mean = f"; the mean of the decisions of {n_seeds} seeds" if is_mean else ""
    return PAIRS[name].format(last=last) + mean


_Pairs = dict[str, tuple[MacroPolicy, MicroPolicy]]


@dataclass(frozen=True)
class _Seed:
    """The agents that the phases of one seed have left, by the number of the phase."""

    context: PhaseContext
    """With the sector table that its agents read."""
    macros: Mapping[int, MacroAgent]
    micros: Mapping[int, MicroAgent]

    @classmethod
    def of(cls, context: PhaseContext) -> "_Seed":
        context = with_sector_table(context)
        macros, micros = {1: context.load_macro(1)}, {2: context.load_micro(2)}
        if context.has(3):
            macros[3] = context.load_macro(3)
        if context.has(4):
            micros[4] = context.load_micro(4)
        if context.has(5):
            macros[5], micros[5] = context.load_macro(5), context.load_micro(5, 1)
        return cls(context, macros, micros)

    def pairs(self, change: Callable[[Market], Market]) -> tuple[PhaseContext, _Pairs]:
        """Return what the policies read, and the pair after each finished phase."""
        reads = self.context.with_market(change(self.context.market))
        settings = reads.micro_settings()
        macro, micro = self.macros[1].on(reads.tensors), self.micros[2].on(settings)
        pairs: _Pairs = {"phases 1+2": (macro, micro)}
        if 3 in self.macros:
            macro = self.macros[3].on(reads.tensors)
            pairs["phase 3 macro + phase 2 micro"] = macro, micro
        if 4 in self.micros:
            micro = self.micros[4].on(settings)
            pairs["phases 3+4"] = macro, micro
        if 5 in self.macros:
            pairs["joint"] = self.macros[5].on(reads.tensors), self.micros[5].on(settings)
        return reads, pairs


def granted(log_dir: Path) -> dict[str, Acceptance]:
    """Read what each finished phase asked for and was granted, and the shares that are deployed.

    A phase without evaluations after its start asked for nothing and is left out.
    """
    found: dict[str, Acceptance] = {}
    for seed, folder in seed_folders(log_dir).items():
        whose = "" if seed is None else f"seed {seed}, "
        found |= {f"{whose}{name}": share for name, share in _granted_phases(folder)}
    certified = read_certification(log_dir)
    if certified is not None:
        found |= {MACRO_SHARE: certified.macro, MICRO_SHARE: certified.micro}
    return found


def _granted_phases(folder: Path) -> Iterator[tuple[str, Acceptance]]:
    for files in PHASES:
        path = folder / files.folder / files.metrics
        if not path.is_file():
            continue
        found = read_json(path, f"hrl-sarp train --phase {files.number}").get("acceptance")
        if found:
            kind = "temperature" if files.number in PREFIXES else "evaluation"
            yield f"phase {files.number}, {kind}", Acceptance.from_dict(found)


def training_curves(log_dir: Path) -> list[Panel]:
    """Draw how the validation of each finished phase went, a curve for each seed.

    The panel of a single seed says which epoch or evaluation was kept.

    Phases 1 and 2 show the objective of their epochs with that of the training span beside it,
    phases 3 to 5 the evaluations that selection chose from. A phase of an older version, whose
    history has other names, is left out.
    """
    found: dict[int, dict[str, Any]] = {}
    for seed, folder in seed_folders(log_dir).items():
        for files in PHASES:
            path = folder / files.folder / files.metrics
            if path.is_file():
                whose = "" if seed is None else f", seed {seed}"
                metrics = read_json(path, f"hrl-sarp train --phase {files.number}")
                found.setdefault(files.number, {})[whose] = metrics
    panels = [_panel(number, by_seed) for number, by_seed in found.items()]
    return [panel for panel in panels if all(len(x) for x, _ in panel.curves.values())]


def _panel(number: int, by_seed: dict[str, Any]) -> Panel:
    """Make the panel of a phase from the metrics of its seeds, by the text that names each."""
    first = next(iter(by_seed.values()))
    if number in PREFIXES:
        prefix, x_label = PREFIXES[number], "epoch"
        measure, y_label = "objective", "reward of a decision, %"
        if f"val_{measure}" not in first:  # under the objective `growth`
            measure, y_label = "total_loss", "loss"
        shown = {"validation": f"{prefix}/val_{measure}", "training": f"{prefix}/{measure}"}
    else:
        x_label, y_label = "evaluation", "objective over the rule, % a year"
        shown = {"validation": f"{EVALUATION}/{SELECTION}"}
    curves: dict[str, Curve] = {}
    for whose, metrics in by_seed.items():
        for name, key in shown.items():
            rows = [row for row in metrics["history"] if key in row]
            steps = [row["step"] if x_label == "epoch" else at for at, row in enumerate(rows)]
            curves[f"{name}{whose}"] = (steps, [row[key] for row in rows])
    best = None
    if len(by_seed) == 1:
        # phase 5 evaluates within its rounds, too, so the number of its best is no position
        values = list(next(iter(curves.values()))[1])
        kept = first.get("best", {}).get(SELECTION)
        best = first.get("best_epoch", values.index(kept) if kept in values else None)
    title = f"Phase {number}: {PHASES[number - 1].title}"
    return Panel(title, curves, best=best, x_label=x_label, y_label=y_label)


def select_policies(
    policies: list[HierarchicalPolicy], names: list[str]
) -> list[HierarchicalPolicy]:
    """Pick policies by name, in the order of the names; an unknown one is refused."""
    known = {policy.name: policy for policy in policies}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HrlSarpError(f"no trained pair {unknown}; there are: {', '.join(known)}")
    return [known[name] for name in names]
