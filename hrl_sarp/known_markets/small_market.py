"""Makes markets of a few assets with given returns, trains agents and runs policies on them.

All of a row's return falls between open and close. A decision is filled at the next open, so it
earns the next row's whole return.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, Regime, Split
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.market.tensors import MarketTensors

FIRST_FRIDAY = np.datetime64("1600-01-07")
DAYS_PER_WEEK = 7


@dataclass(frozen=True)
class WeeklySpans:
    """Training rows, then fresh paths for the scores. A row is a week."""

    train_weeks: int
    n_paths: int
    path_weeks: int

    @property
    def n_weeks(self) -> int:
        """Rows of the whole market."""
        return self.train_weeks + self.n_paths * self.path_weeks

    def split(self) -> Split:
        """Training and test rows; nothing is selected, so no row is kept for validation."""
        cut = self.train_weeks
        return Split(DayRange(0, cut), DayRange(cut, cut), DayRange(cut, self.n_weeks))

    def path_starts(self) -> Int[Tensor, " P"]:
        """Row at whose close each path begins."""
        return self.train_weeks - 1 + self.path_weeks * torch.arange(self.n_paths)


@dataclass(frozen=True)
class Holdings:
    """Weekly weights and trading of P policies on the fresh paths."""

    weights: Float[np.ndarray, "W P A"]
    """After the trade."""
    cost: Float[np.ndarray, "W P"]
    turnover: Float[np.ndarray, "W P"]
    """Half of the traded value over wealth."""


def market_of_returns(
    name: str,
    simple_return: Float[np.ndarray, "T A"],
    sector_of: Int[np.ndarray, " A"],
    split: Split,
    sessions_per_week: int = 1,
) -> Market:
    """Build a market without predictive features: a stock's features only say which one it is.

    Sectors are nondecreasing and have equally many assets. Every row is a Friday. The macro agent
    decides every `sessions_per_week` rows.
    """
    n_rows, n_assets = simple_return.shape
    n_sectors = int(sector_of.max()) + 1
    everything = np.ones((n_rows, n_assets), dtype=bool)
    identity = np.broadcast_to(np.eye(n_assets, dtype=np.float32), (n_rows, n_assets, n_assets))
    return Market(
        name=name,
        dates=FIRST_FRIDAY + DAYS_PER_WEEK * np.arange(n_rows),
        symbols=tuple(f"asset_{i}" for i in range(n_assets)),
        sector_names=tuple(f"sector_{i}" for i in range(n_sectors)),
        sector_of=sector_of,
        overnight_return=np.zeros((n_rows, n_assets)),
        intraday_return=simple_return,
        tradable=everything,
        listed=everything,
        eligible=everything,
        slots=np.tile(np.arange(n_assets), (n_rows, 1)),
        risk_free=np.zeros(n_rows),
        benchmark_return=simple_return.mean(axis=1),
        benchmark_name="1/N",
        dollar_volume=np.zeros((n_rows, n_assets)),
        stock_features=identity,
        feature_names=tuple(f"is_asset_{i}" for i in range(n_assets)),
        macro_features=np.zeros((n_rows, 1)),
        macro_names=("nothing",),
        filtered_regime=np.full((n_rows, len(Regime)), 1 / len(Regime)),
        is_week_end=np.arange(n_rows) % sessions_per_week == sessions_per_week - 1,
        split=split,
        sector_embeddings=np.zeros((n_rows, n_sectors, 1)),
    )


def on_cpu(market: Market) -> MarketTensors:
    """Return the market's tensors as training uses them."""
    return MarketTensors(market, torch.float32, "cpu")


def train_macro(tensors: MarketTensors, config: RunConfig) -> MacroAgent:
    """Train a fresh macro agent with PPO over equal weights inside each sector."""
    ppo = config.macro_agent.ppo
    level = make_level(tensors, config, "macro", ppo.n_envs)
    starts = make_starts(tensors, config, "macro", None)
    agent = MacroAgent(tensors, config, config.seed)
    return agent.learn(
        PortfolioVecEnv(level, starts, group=ppo.envs_per_group), ppo.total_timesteps
    )


def train_micro(tensors: MarketTensors, config: RunConfig) -> MicroAgent:
    """Train a fresh micro agent with TD3 under goals that are drawn or 1/N."""
    td3 = config.micro_agent.td3
    level = make_level(tensors, config, "micro", td3.n_envs)
    starts = make_starts(tensors, config, "micro", None)
    agent = MicroAgent(MicroSettings(tensors, config), config.seed)
    return agent.learn(
        PortfolioVecEnv(level, starts, group=td3.envs_per_group), td3.total_timesteps
    )


def run_on_fresh_paths(
    tensors: MarketTensors,
    config: RunConfig,
    macro: MacroPolicy,
    micro: MicroPolicy,
    spans: WeeklySpans,
) -> Holdings:
    """Run a pair of policies over the test rows, each path from cash; each row is a week end."""
    weeks = [
        DayRange(start, start + spans.path_weeks + 1) for start in spans.path_starts().tolist()
    ]
    frictions = Variant(config.market_profile.costs, config.risk)
    pair = HierarchicalPolicy("pair", macro, micro)
    ledgers = rollout([pair], tensors, weeks, [frictions])
    return Holdings(
        weights=np.stack([ledger.weights_after[:, 1] for ledger in ledgers], axis=1),
        cost=np.stack([ledger.cost[:, 1] for ledger in ledgers], axis=1),
        turnover=np.stack([ledger.turnover[:, 1] for ledger in ledgers], axis=1),
    )
