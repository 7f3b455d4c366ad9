"""The trained pairs of agents of a run, as policies of a backtest, and what they were granted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import PHASES
from hrl_sarp.training.acceptance import Acceptance
from hrl_sarp.training.certify import read_certification
from hrl_sarp.training.phase import PREFIXES, PhaseContext, with_sector_table
from hrl_sarp.training.seeds import members, seed_folders

CERTIFIED = "certified"
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
    seeds = [_learned(member, change) for member in members(context)]
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
        macro_only="trained macro + rule micro",
        micro_only="rule macro + trained micro",
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
    policies = [HierarchicalPolicy(name, *pair) for name, pair in pairs.items()]
    certified = read_certification(context.log_dir)
    if certified is not None:
        deployed = certified.policy(CERTIFIED, reads.tensors, context.config, macro, micro)
        policies.insert(0, deployed)  # the report is about what is deployed
    return policies, swaps


def _learned(
    context: PhaseContext, change: Callable[[Market], Market]
) -> tuple[PhaseContext, dict[str, tuple[MacroPolicy, MicroPolicy]]]:
    """Return what the policies of a seed read, and its pair after each finished phase."""
    context = with_sector_table(context)
    reads = context.with_market(change(context.market))
    settings = reads.micro_settings()
    macro: MacroPolicy = context.load_macro(1).on(reads.tensors)
    micro: MicroPolicy = context.load_micro(2).on(settings)
    pairs = {"phases 1+2": (macro, micro)}
    if context.has(3):
        macro = context.load_macro(3).on(reads.tensors)
        pairs["phase 3 macro + phase 2 micro"] = macro, micro
    if context.has(4):
        micro = context.load_micro(4).on(settings)
        pairs["phases 3+4"] = macro, micro
    if context.has(5):
        pairs["joint"] = (
            context.load_macro(5).on(reads.tensors),
            context.load_micro(5, 1).on(settings),
        )
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


def select_policies(
    policies: list[HierarchicalPolicy], names: list[str]
) -> list[HierarchicalPolicy]:
    """Pick policies by name, in the order of the names; an unknown one is refused."""
    known = {policy.name: policy for policy in policies}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HrlSarpError(f"no trained pair {unknown}; there are: {', '.join(known)}")
    return [known[name] for name in names]
