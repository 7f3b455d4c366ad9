"""A macro and a micro policy as one row of a backtest; either may be an agent or a rule."""

import math

import torch

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import DayRange, Goal, Market, Regime
from hrl_sarp.envs.observations import macro_index, micro_index
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.attribution import LevelSwaps
from hrl_sarp.evaluation.policies import Decision, DecisionView
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.files import read_json
from hrl_sarp.simulator.limits import feasible_goal
from hrl_sarp.training.phase import PHASES, PhaseContext, with_sector_table


class HierarchicalPolicy:
    """Goal at the first close and at week ends, target weights every day: the env's two clocks.

    Args:
        name: in tables and legends.
        macro: sets goals.
        micro: chooses weights.
        risk: limits that make goals feasible.
    """

    def __init__(self, name: str, macro: MacroPolicy, micro: MicroPolicy, risk: RiskConfig) -> None:
        self._name, self._macro, self._micro, self._risk = name, macro, micro, risk
        self._goal: torch.Tensor | None = None
        self._benchmark = self._peak = 0.0

    @property
    def name(self) -> str:
        """What tables call it."""
        return self._name

    def prepare(self, tensors: MarketTensors, span: DayRange) -> None:
        """Forget the goal and the drawdown of the last rollout."""
        self._goal, self._benchmark, self._peak = None, 0.0, 0.0

    def decide(self, view: DecisionView) -> Decision:
        """Renew the goal where due and choose the day's weights."""
        tensors, state = view.tensors, view.state
        drawdown = self._active_drawdown(view)
        if self._goal is None or view.is_week_end:
            asked = self._macro.goal(macro_index(tensors, state, drawdown))
            weights = asked.sector_weights.to(tensors.dtype)
            weights = feasible_goal(tensors, state.day, weights, self._risk)
            regime = asked.regime_probabilities.to(tensors.dtype)
            self._goal = Goal(weights, regime).to_vector()
        target = self._micro.target(micro_index(tensors, state, self._goal, drawdown))
        p_bear = float(self._goal[0, tensors.n_sectors + Regime.BEAR])
        # a rule's regime entries are no forecast: reports must not score them
        has_view = not isinstance(self._macro, ProportionalGoal)
        return Decision(target[0], p_bear, self._goal[0] if has_view else None)

    def _active_drawdown(self, view: DecisionView) -> torch.Tensor:
        """Fraction by which W/B is below its maximum since the rollout began."""
        if not view.is_first:
            self._benchmark += math.log1p(float(view.tensors.reward_benchmark[view.day]))
        active = math.log(max(float(view.state.wealth[0]), 1e-12)) - self._benchmark
        self._peak = max(self._peak, active)
        return view.state.cash.new_tensor([1 - math.exp(active - self._peak)])


def trained_policies(
    context: PhaseContext, market: Market | None = None
) -> tuple[list[HierarchicalPolicy], LevelSwaps]:
    """Load what the phases left, each level with the trained and with the rule partner.

    Phases 1 and 2 are the sharpened policies without reinforcement learning; later phases are
    added if they have finished.

    Args:
        context: of the phases.
        market: what the policies read, with the same columns and sectors; the context's if None.

    Returns:
        The policies, and which of them tell what each level of the last pair adds.

    Raises:
        MissingArtifactError: if phases 1 and 2 have not finished.
    """
    agents = _Agents(with_sector_table(context), market)
    risk = context.config.risk
    follow, proportional = FollowGoal(agents.tensors, risk), ProportionalGoal(agents.tensors)
    macro, micro = agents.macro(1), agents.micro(2)
    pairs: list[tuple[str, MacroPolicy, MicroPolicy]] = [
        ("goal-following", proportional, follow),
        ("phases 1+2", macro, micro),
    ]
    if context.has(3):
        macro = agents.macro(3)
        pairs.append(("phase 3 macro + phase 2 micro", macro, micro))
    if context.has(4):
        micro = agents.micro(4)
        pairs.append(("phases 3+4", macro, micro))
    if context.has(5):
        macro, micro = agents.macro(5), agents.micro(5, which=1)
        pairs.append(("joint", macro, micro))
    swaps = LevelSwaps(
        both=pairs[-1][0],
        macro_only="trained macro + rule micro",
        micro_only="rule macro + trained micro",
        neither="goal-following",
    )
    pairs.append((swaps.macro_only, macro, follow))
    pairs.append((swaps.micro_only, proportional, micro))
    pairs.sort(key=lambda pair: pair[0] != swaps.both)  # reports lead with the first policy
    policies = [HierarchicalPolicy(name, first, second, risk) for name, first, second in pairs]
    return policies, swaps


class _Agents:
    """Loads agents and lets them read the market they will be judged on."""

    def __init__(self, context: PhaseContext, market: Market | None) -> None:
        self._context = context
        self._reads = context if market is None else context.with_market(market)

    @property
    def tensors(self) -> MarketTensors:
        return self._reads.tensors

    def macro(self, number: int) -> MacroAgent:
        return self._context.load_macro(number).on(self.tensors)

    def micro(self, number: int, which: int = 0) -> MicroAgent:
        return self._context.load_micro(number, which).on(self._reads.micro_settings())


def select_policies(
    policies: list[HierarchicalPolicy], names: list[str]
) -> list[HierarchicalPolicy]:
    """Pick policies by name.

    Raises:
        HrlSarpError: for a name that is not there; lists those that are.
    """
    known = {policy.name: policy for policy in policies}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise HrlSarpError(f"no trained pair {unknown}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def count_trials(context: PhaseContext) -> int:
    """Count what validation has chosen from: temperatures and evaluations of all phases.

    The deflated Sharpe ratio of the report allows for it.
    """
    count = 0
    for files in PHASES:
        path = context.folder(files.number) / files.metrics
        if path.is_file():
            found = read_json(path, f"hrl-sarp train --phase {files.number}")
            count += len(found.get("temperatures", {})) + int(found.get("n_evaluations", 0))
    return count
