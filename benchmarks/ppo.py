"""Weekly PPO steps per second beside stock Stable-Baselines3 PPO, in one process.

Both train on 8 envs of the same macro level with a micro agent trading every day, with the same
steps, epochs and batch size. The peer is what a user of SB3 would write: `DummyVecEnv` of single
envs, full observations, `MlpPolicy`. Run: `python -m benchmarks.ppo`. Writes
`logs/benchmarks/ppo.json`.
"""

from functools import partial

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import cases, timing
from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.envs import MacroEnv, PortfolioVecEnv, make_level, make_starts

N_ENVS, N_STEPS, BATCH, EPOCHS = 8, 32, 64, 8
ROLLOUT = N_ENVS * N_STEPS
REPEATS = 3


def our_algorithm() -> MacroPPO:
    """Return our PPO on one batched env."""
    config, tensors = cases.configuration(), cases.tensors()
    sizes = {"n_envs": N_ENVS, "n_steps": N_STEPS, "batch_size": BATCH, "n_epochs": EPOCHS}
    ppo = config.macro_agent.ppo.model_copy(update={**sizes, "envs_per_group": 1})
    macro, micro = cases.agents(tensors, config)
    level = make_level(tensors, config, "macro", N_ENVS, micro)
    env = PortfolioVecEnv(level, make_starts(tensors, config, "macro", None))
    algorithm: MacroPPO = cases.silent(macro.algorithm(env, ppo))
    return algorithm


def stock_algorithm() -> PPO:
    """Return SB3's PPO on single envs."""
    config, tensors = cases.configuration(), cases.tensors()
    _, micro = cases.agents(tensors, config)
    make = partial(MacroEnv, tensors, config, partner=micro)
    algorithm = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * N_ENVS),
        n_steps=N_STEPS,
        batch_size=BATCH,
        n_epochs=EPOCHS,
        seed=0,
        device="cpu",
    )
    stock: PPO = cases.silent(algorithm)
    return stock


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    ours, stock = our_algorithm(), stock_algorithm()
    rates = timing.alternate(
        {
            "ours": (lambda: ours.learn(ROLLOUT), ROLLOUT),
            "stock SB3 PPO, DummyVecEnv": (lambda: stock.learn(ROLLOUT), ROLLOUT),
        },
        REPEATS,
    )
    timing.publish("ppo", rates, "weekly steps", ratio=timing.ratio(*rates.values()))


if __name__ == "__main__":
    main()
