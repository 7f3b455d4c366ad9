"""Phase 4: TD3 with hindsight on the micro level; the macro agent of phase 3 stays frozen."""

import copy

from hrl_sarp.agents import MicroAgent
from hrl_sarp.agents.td3.agent import MicroTD3
from hrl_sarp.config.schema import TD3Config
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.partners import MacroPolicy, SampledGoal
from hrl_sarp.run.session import derive_seed
from hrl_sarp.training.phase import PhaseContext, PhaseResult
from hrl_sarp.training.rl_loop import LoopPlan, train_phase
from hrl_sarp.training.selection import validate_pair

NUMBER = 4


def run(context: PhaseContext) -> PhaseResult:
    """Train from phase 2's actor and write the best agent by validation."""
    td3 = context.config.micro_agent.td3
    agent, partner = context.load_micro(2), context.load_macro(3)
    agent.seed = context.config.seed
    start = validate_pair(context.tensors, context.config, partner, agent)
    algorithm = micro_algorithm(context, agent, partner, td3)
    plan = micro_plan(context, algorithm, partner, NUMBER, td3.total_timesteps)
    return train_phase(context, agent, algorithm, plan, start)


def micro_algorithm(
    context: PhaseContext, agent: MicroAgent, partner: MacroPolicy, td3: TD3Config
) -> MicroTD3:
    """Build TD3 over the micro level; its goals are half the partner's, half sampled."""
    seed = derive_seed(agent.seed, NUMBER)
    goals = SampledGoal(context.tensors, td3.dirichlet_goal_share, partner, seed)
    level = make_level(context.tensors, context.config, "micro", td3.n_envs, goals)
    starts = make_starts(context.tensors, context.config, "micro", None)
    return agent.algorithm(PortfolioVecEnv(level, starts, group=td3.envs_per_group), td3)


def micro_plan(
    context: PhaseContext,
    algorithm: MicroTD3,
    partner: MacroPolicy,
    number: int,
    total_timesteps: int,
) -> LoopPlan:
    """Say how a micro agent in training is judged and what a best checkpoint holds."""
    judged = MicroAgent(context.micro_settings(), context.config.seed)
    return LoopPlan(
        number=number,
        prefix="micro",
        total_timesteps=total_timesteps,
        eval_every=context.config.micro_agent.td3.eval_every_steps,
        evaluate=lambda: validate_pair(
            context.tensors, context.config, partner, judged.adopt(algorithm)
        ),
        networks=lambda: copy.deepcopy(
            {"actor": judged.actor.state_dict(), "critic": judged.critic.state_dict()}
        ),
    )
