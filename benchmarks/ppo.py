"""Weekly PPO steps per second beside stock Stable-Baselines3 PPO, in one process.

Both train on the same macro level with a micro agent trading every day, with the same number of
envs, steps, epochs and batch size: those of a small SB3 script, and those that ship in
`config/macro_agent_config.yaml`. The peer is what a user of SB3 would write: `DummyVecEnv` of
single envs, full observations, `MlpPolicy`. Run: `python -m benchmarks.ppo`. Writes
`logs/benchmarks/ppo.json`.
"""

from functools import partial

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import cases, timing
from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.config.schema import PPOConfig
from hrl_sarp.envs import MacroEnv, PortfolioVecEnv, make_level, make_starts

SMALL = {"n_envs": 8, "n_steps": 32, "batch_size": 64, "n_epochs": 8, "envs_per_group": 1}
REPEATS = 3


def our_algorithm(ppo: PPOConfig) -> MacroPPO:
    """Return our PPO on one batched env."""
    config, tensors = cases.configuration(), cases.tensors()
    macro, micro = cases.agents(tensors, config)
    level = make_level(tensors, config, "macro", ppo.n_envs, micro)
    starts = make_starts(tensors, config, "macro", None)
    env = PortfolioVecEnv(level, starts, group=ppo.envs_per_group)
    algorithm: MacroPPO = cases.silent(macro.algorithm(env, ppo))
    return algorithm


def stock_algorithm(ppo: PPOConfig) -> PPO:
    """Return SB3's PPO on single envs."""
    config, tensors = cases.configuration(), cases.tensors()
    _, micro = cases.agents(tensors, config)
    make = partial(MacroEnv, tensors, config, partner=micro)
    algorithm = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * ppo.n_envs),
        n_steps=ppo.n_steps,
        batch_size=ppo.batch_size,
        n_epochs=ppo.n_epochs,
        seed=0,
        device="cpu",
    )
    stock: PPO = cases.silent(algorithm)
    return stock


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    shipped = cases.configuration().macro_agent.ppo
    rates: dict[str, timing.Rate] = {}
    ratios = {}
    for ppo in (shipped.model_copy(update=SMALL), shipped):
        steps = ppo.n_envs * ppo.n_steps
        ours, stock = our_algorithm(ppo), stock_algorithm(ppo)
        both = timing.alternate(
            {
                f"ours, {ppo.n_envs} envs": (partial(ours.learn, steps), steps),
                f"stock SB3 PPO, DummyVecEnv of {ppo.n_envs}": (partial(stock.learn, steps), steps),
            },
            REPEATS,
        )
        ratios[f"{ppo.n_envs} envs"] = timing.ratio(*both.values())
        rates |= both
    timing.publish("ppo", rates, "weekly steps", ratios=ratios)


if __name__ == "__main__":
    main()
