"""Phase 3: PPO on the macro level; the micro agent of phase 2 trades and stays frozen."""

import copy

from hrl_sarp.agents import MacroAgent
from hrl_sarp.agents.ppo.agent import MacroPPO
from hrl_sarp.config.schema import PPOConfig
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.partners import MicroPolicy
from hrl_sarp.training.phase import PhaseContext, PhaseResult
from hrl_sarp.training.rl_loop import LoopPlan, train_phase
from hrl_sarp.training.selection import validate_pair

NUMBER = 3


def run(context: PhaseContext) -> PhaseResult:
    """Train from phase 1's actor and write the best agent by validation."""
    ppo = context.config.macro_agent.ppo
    agent, partner = context.load_macro(1), context.load_micro(2)
    agent.seed = context.config.seed
    start = validate_pair(context.tensors, context.config, agent, partner)
    algorithm = macro_algorithm(context, agent, partner, ppo)
    plan = macro_plan(context, algorithm, partner, NUMBER, ppo.total_timesteps)
    return train_phase(context, agent, algorithm, plan, start)


def macro_algorithm(
    context: PhaseContext, agent: MacroAgent, partner: MicroPolicy, ppo: PPOConfig
) -> MacroPPO:
    """Build PPO over the macro level with a frozen micro partner."""
    level = make_level(context.tensors, context.config, "macro", ppo.n_envs, partner)
    starts = make_starts(context.tensors, context.config, "macro", None)
    return agent.algorithm(PortfolioVecEnv(level, starts, group=ppo.envs_per_group), ppo)


def macro_plan(
    context: PhaseContext,
    algorithm: MacroPPO,
    partner: MicroPolicy,
    number: int,
    total_timesteps: int,
) -> LoopPlan:
    """Say how a macro agent in training is judged and what a best checkpoint holds."""
    judged = MacroAgent(context.tensors, context.config.macro_agent, context.config.seed)
    policy = algorithm.policy
    return LoopPlan(
        number=number,
        prefix="macro",
        total_timesteps=total_timesteps,
        eval_every=context.config.macro_agent.ppo.eval_every_steps,
        evaluate=lambda: validate_pair(
            context.tensors, context.config, judged.adopt(algorithm), partner
        ),
        networks=lambda: copy.deepcopy(
            {"actor": policy.actor.state_dict(), "critic": policy.critic.state_dict()}
        ),
    )
