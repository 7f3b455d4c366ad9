"""Seconds of one decision of exported agents in onnxruntime on one core, for 99 and 495 slots.

Run: `python -m benchmarks.exported_decision`. Writes `logs/benchmarks/exported_decision.json`. A
decision is a new goal and the weights that follow from it: three seeds of the default networks,
mixed with the classical portfolio, within all limits.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from benchmarks import cases, timing
from hrl_sarp.agents import MicroSettings
from hrl_sarp.daily.export.decisions import (
    DailyDecision,
    WeeklyDecision,
    daily_arrays,
    weekly_arrays,
)
from hrl_sarp.daily.export.graphs import Session, to_onnx
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MixedGoal, MixedTarget
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.graph import with_node_features
from hrl_sarp.market.tensors import MarketTensors
from tests import factories

N_DAYS, N_SEEDS, REPEATS, DECISIONS = 80, 3, 7, 50
SLOTS_PER_SECTOR = (9, 45)
TARGET_SECONDS = 0.02


def market(slots_per_sector: int) -> MarketTensors:
    """Draw a market of 11 sectors with 22 features and risk tables."""
    rng = np.random.default_rng(0)
    drawn = factories.random_market(rng, N_DAYS, cases.N_SECTORS, slots_per_sector)
    features = np.clip(rng.normal(size=(*drawn.tradable.shape, cases.N_FEATURES)), -3, 3)
    names = tuple(f"feature_{i}" for i in range(cases.N_FEATURES))
    drawn = factories.with_risk(replace(drawn, stock_features=features, feature_names=names))
    drawn = with_node_features(drawn, cases.configuration().macro_agent.graph)
    return MarketTensors(drawn, torch.float32, "cpu")


def decision(slots_per_sector: int) -> Callable[[], None]:
    """Export a pair and return what decides `DECISIONS` times."""
    tensors, config = market(slots_per_sector), cases.configuration()
    macros, micros = zip(*(cases.agents(tensors, config) for _ in range(N_SEEDS)), strict=True)
    pair = HierarchicalPolicy(
        "mixed",
        MixedGoal((ClassicalGoal(tensors), MixedGoal(macros)), (0.5, 0.5)),
        MixedTarget((FollowGoal(tensors, config.risk), MixedTarget(micros)), (0.5, 0.5)),
    )
    clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs=1)
    held = torch.as_tensor(np.random.default_rng(0).dirichlet(np.ones(tensors.n_assets))).float()
    clocks.start_with(torch.tensor([N_DAYS - 2]), held[None])
    weekly = WeeklyDecision(pair.macro, config.risk, slots_per_sector)
    daily = DailyDecision(pair.micro, MicroSettings(tensors, config))
    seen = weekly_arrays(pair, clocks), daily_arrays(pair, clocks)
    week, day = Session(to_onnx(weekly, seen[0])), Session(to_onnx(daily, seen[1]))
    of_week, of_day = ({name: array.numpy() for name, array in found.items()} for found in seen)

    def decide() -> None:
        for _ in range(DECISIONS):
            goal = week.run(of_week)["goal"]
            day.run({**of_day, "goal": goal})

    return decide


def main() -> None:
    """Measure and print."""
    runs = {f"{cases.N_SECTORS * k} slots": (decision(k), DECISIONS) for k in SLOTS_PER_SECTOR}
    rates = timing.alternate(runs, REPEATS)
    seconds = {name: rate.seconds_spent() for name, rate in rates.items()}
    timing.publish(
        "exported_decision", rates, "decisions", seconds=seconds, target_seconds=TARGET_SECONDS
    )


if __name__ == "__main__":
    main()
