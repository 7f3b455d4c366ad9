"""The trained pairs of agents of a run, as policies of a backtest, and what they were granted."""

from pathlib import Path

from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    ProportionalGoal,
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
from hrl_sarp.training.acceptance import Acceptance
from hrl_sarp.training.certify import read_certification
from hrl_sarp.training.phase import PHASES, PREFIXES, PhaseContext, with_sector_table

CERTIFIED = "certified"
"""Name of the last pair as it is deployed: as far from the classical policy as was granted."""


def trained_policies(
    context: PhaseContext, market: Market | None = None
) -> tuple[list[HierarchicalPolicy], LevelSwaps]:
    """Load the agents of the phases, each with the trained agent and with the rule as partner.

    Phases 1 and 2 give the pretrained policies, without reinforcement learning. Later phases are
    added if they have finished, and the certified pair if `train` has certified the run. The
    policies read `market`, or the context's own if it is None. Two rows have no trained agent: the
    classical prior, which is the rule of both levels, and the 1/N goal with the classical portfolio
    inside the sectors. The second value names the policies that show the gain of each level of the
    last pair over its rule.
    """
    context = with_sector_table(context)
    reads = context if market is None else context.with_market(market)
    settings = reads.micro_settings()
    follow = FollowGoal(reads.tensors, context.config.risk)
    classical = ClassicalGoal(reads.tensors)
    macro: MacroPolicy = context.load_macro(1).on(reads.tensors)
    micro: MicroPolicy = context.load_micro(2).on(settings)
    pairs: list[tuple[str, MacroPolicy, MicroPolicy]] = [
        (CLASSICAL_PRIOR, classical, follow),
        (GOAL_FOLLOWING, ProportionalGoal(reads.tensors), follow),
        ("phases 1+2", macro, micro),
    ]
    if context.has(3):
        macro = context.load_macro(3).on(reads.tensors)
        pairs.append(("phase 3 macro + phase 2 micro", macro, micro))
    if context.has(4):
        micro = context.load_micro(4).on(settings)
        pairs.append(("phases 3+4", macro, micro))
    if context.has(5):
        macro = context.load_macro(5).on(reads.tensors)
        micro = context.load_micro(5, 1).on(settings)
        pairs.append(("joint", macro, micro))
    swaps = LevelSwaps(
        both=pairs[-1][0],
        macro_only="trained macro + rule micro",
        micro_only="rule macro + trained micro",
        neither=CLASSICAL_PRIOR,
    )
    certified = read_certification(context.log_dir)
    pairs.append((swaps.macro_only, macro, follow))
    pairs.append((swaps.micro_only, classical, micro))
    pairs.sort(key=lambda pair: pair[0] != swaps.both)  # reports lead with the first policy
    policies = [HierarchicalPolicy(name, first, second) for name, first, second in pairs]
    if certified is not None:
        deployed = certified.policy(CERTIFIED, reads.tensors, context.config, macro, micro)
        policies.insert(0, deployed)  # the report is about what is deployed
    return policies, swaps


def granted(log_dir: Path) -> dict[str, Acceptance]:
    """Read what each finished phase asked for and was granted, and the shares that are deployed.

    A phase without evaluations after its start asked for nothing and is left out.
    """
    found = {}
    for files in PHASES:
        path = log_dir / files.folder / files.metrics
        if path.is_file():
            values = read_json(path, f"hrl-sarp train --phase {files.number}").get("acceptance")
            if values:
                kind = "temperature" if files.number in PREFIXES else "evaluation"
                found[f"phase {files.number}, {kind}"] = Acceptance.from_dict(values)
    certified = read_certification(log_dir)
    if certified is not None:
        found |= {MACRO_SHARE: certified.macro, MICRO_SHARE: certified.micro}
    return found


def select_policies(
    policies: list[HierarchicalPolicy], names: list[str]
) -> list[HierarchicalPolicy]:
    """Pick policies by name, in the order of the names; an unknown one is refused."""
    known = {policy.name: policy for policy in policies}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HrlSarpError(f"no trained pair {unknown}; there are: {', '.join(known)}")
    return [known[name] for name in names]
