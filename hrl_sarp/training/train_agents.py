"""Phases 3 and 4: train the weekly agent with PPO, then the daily one with TD3 and hindsight.

The agent of the other level is frozen.
"""

from functools import partial

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.config.schema import PPOConfig, TD3Config
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy, SampledGoal
from hrl_sarp.run.session import derive_seed
from hrl_sarp.training.phase import PhaseContext, PhaseResult
from hrl_sarp.training.rl_loop import LoopPlan, train_phase
from hrl_sarp.training.selection.validation import ValidationScore

MACRO, MICRO = 3, 4
"""Numbers of the phases."""


def run_macro(context: PhaseContext) -> PhaseResult:
    """Train from phase 1's actor, with phase 2's micro agent, and write the best by validation."""
    ppo = context.config.macro_agent.ppo
    agent, partner = context.load_macro(1), context.load_micro(2)
    agent.seed = context.config.seed
    algorithm = macro_algorithm(context, agent, partner, ppo)
    plan = macro_plan(context, algorithm, partner, MACRO, ppo.total_timesteps)
    return train_phase(context, agent, algorithm, plan)


def run_micro(context: PhaseContext) -> PhaseResult:
    """Train from phase 2's actor and write the best agent by validation.

    The macro agent of phase 3 sets half of the goals.
    """
    td3 = context.config.micro_agent.td3
    agent, partner = context.load_micro(2), context.load_macro(3)
    agent.seed = context.config.seed
    algorithm = micro_algorithm(context, agent, partner, td3)
    plan = micro_plan(context, algorithm, partner, MICRO, td3.total_timesteps)
    return train_phase(context, agent, algorithm, plan)


def macro_algorithm(
    context: PhaseContext, agent: MacroAgent, partner: MicroPolicy, ppo: PPOConfig
) -> MacroPPO:
    """Build PPO over the macro level."""
    level = make_level(context.tensors, context.config, "macro", ppo.n_envs, partner)
    starts = make_starts(context.tensors, context.config, "macro", None)
    return agent.algorithm(PortfolioVecEnv(level, starts, group=ppo.envs_per_group), ppo)


def micro_algorithm(
    context: PhaseContext, agent: MicroAgent, partner: MacroPolicy, td3: TD3Config
) -> MicroTD3:
    """Build TD3 over the micro level. Half of its goals are the partner's, half are sampled."""
    seed = derive_seed(agent.seed, MICRO)
    goals = SampledGoal(context.tensors, td3.dirichlet_goal_share, partner, seed)
    level = make_level(context.tensors, context.config, "micro", td3.n_envs, goals)
    starts = make_starts(context.tensors, context.config, "micro", None)
    return agent.algorithm(PortfolioVecEnv(level, starts, group=td3.envs_per_group), td3)


def macro_plan(
    context: PhaseContext,
    algorithm: MacroPPO,
    partner: MicroPolicy,
    number: int,
    total_timesteps: int,
) -> LoopPlan:
    """Plan the training of a macro agent; steps are weeks, summed over all environments."""
    validated = MacroAgent(context.tensors, context.config, context.config.seed)

    def evaluate() -> ValidationScore:
        return context.validation.score(validated, partner)

    every = context.config.macro_agent.ppo.eval_every_steps
    adopt = partial(validated.adopt, algorithm)
    return LoopPlan(number, validated, total_timesteps, every, adopt, evaluate)


def micro_plan(
    context: PhaseContext,
    algorithm: MicroTD3,
    partner: MacroPolicy,
    number: int,
    total_timesteps: int,
) -> LoopPlan:
    """Plan the training of a micro agent; steps are sessions, summed over all environments."""
    validated = MicroAgent(context.micro_settings(), context.config.seed)

    def evaluate() -> ValidationScore:
        return context.validation.score(partner, validated)

    every = context.config.micro_agent.td3.eval_every_steps
    adopt = partial(validated.adopt, algorithm)
    return LoopPlan(number, validated, total_timesteps, every, adopt, evaluate)
