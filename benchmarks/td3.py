"""TD3 updates per second beside stock Stable-Baselines3 TD3 with hindsight, in one process.

The peer sees the same market as flattened full observations with SB3's networks of [400, 300]
units; both take 256 transitions an update. Also measured: bytes of replay memory per transition.
Run: `python -m benchmarks.td3`. Writes `logs/benchmarks/td3.json`.
"""

import torch
from stable_baselines3 import TD3, HerReplayBuffer

from benchmarks import cases, timing
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.envs import MicroEnv, PortfolioVecEnv, make_level, make_starts

BATCH, UPDATES, REPEATS = 256, 6, 5
FILL = 1280


def our_algorithm() -> MicroTD3:
    """Return our TD3 after its first transitions, past the critic's warm-up."""
    config, tensors = cases.configuration(), cases.tensors()
    td3 = config.micro_agent.td3.model_copy(
        update={"critic_warmup_updates": 0, "learning_starts": FILL, "buffer_size": 2 * FILL}
    )
    macro, micro = cases.agents(tensors, config)
    level = make_level(tensors, config, "micro", td3.n_envs, macro)
    starts = make_starts(tensors, config, "micro", None)
    env = PortfolioVecEnv(level, starts, group=td3.envs_per_group)
    algorithm: MicroTD3 = cases.silent(micro.algorithm(env, td3))
    return algorithm.learn(FILL)


def stock_algorithm() -> TD3:
    """Return SB3's TD3 with hindsight after its first transitions."""
    env = MicroEnv(cases.tensors(), cases.configuration())
    algorithm = TD3(
        "MultiInputPolicy",
        env,
        batch_size=BATCH,
        buffer_size=FILL,
        learning_starts=FILL // 4,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"copy_info_dict": True},  # our rewards need the stored gain
        policy_kwargs={"net_arch": [400, 300]},
        seed=0,
        device="cpu",
    )
    return cases.silent(algorithm).learn(FILL // 4)


def stored_bytes(algorithm: TD3) -> float:
    """Bytes of all arrays of a replay buffer, per transition it holds; info dicts not counted."""
    buffer = algorithm.replay_buffer
    arrays = list(getattr(buffer, "arrays", {}).values())
    for value in vars(buffer).values():
        parts = value.values() if isinstance(value, dict) else [value]
        arrays += [part for part in parts if hasattr(part, "nbytes")]
    unique = {id(array): array.nbytes for array in arrays}
    return sum(unique.values()) / (buffer.buffer_size * buffer.n_envs)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    ours, stock = our_algorithm(), stock_algorithm()
    rates = timing.alternate(
        {
            "ours": (lambda: ours.train(UPDATES), UPDATES),
            "stock SB3 TD3 + HER": (lambda: stock.train(UPDATES, BATCH), UPDATES),
        },
        REPEATS,
    )
    timing.publish(
        "td3",
        rates,
        "updates",
        ratio=timing.ratio(*rates.values()),
        bytes_per_transition={"ours": stored_bytes(ours), "stock": stored_bytes(stock)},
    )


if __name__ == "__main__":
    main()
