"""The studies of the market of known risk: each level, all phases, the gradient, controls."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, ProportionalGoal
from hrl_sarp.known_markets.two_level import PathPlan, share_of_gap
from hrl_sarp.known_markets.two_level_study import Pair, write_untrained
from hrl_sarp.known_markets.volatility.optimum import best_pairs, path_score
from hrl_sarp.known_markets.volatility.regimes import VolatilityMarket, volatility_market
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.training.curriculum import make_context, run_phase
from hrl_sarp.training.phase import PhaseContext, with_sector_table

PERMUTED = 1
"""Role of the seed that permutes the training sessions."""


@dataclass(frozen=True)
class VolatilityStudy:
    """One seed of the market that differs in risk alone, and its phases.

    A share of 0 is the classical portfolio that untrained agents hold, and 1 the best policy.
    """

    config: RunConfig
    planted: VolatilityMarket
    """Its market carries risk tables."""
    plan: PathPlan
    log_dir: Path
    """Holds one folder per variant. Phases that have finished there do not run again."""

    def context(self, variant: str, market: Market | None = None) -> PhaseContext:
        """Build the phases' context of a variant, on another market where one is given."""
        folder, device = self.log_dir / variant, torch.device("cpu")
        return make_context(
            self.config, market or self.planted.market, folder, device, StopFlag(), resume=True
        )

    def five_phases(self) -> dict[str, float]:
        """Train all five phases; return the share of the gap of both levels after each stage."""
        context = self.context("five_phases")
        for number in range(1, 6):
            run_phase(number, context)
        context = with_sector_table(context)
        return self.shares(
            context,
            {
                "calibrated": (context.load_macro(1), context.load_micro(2)),
                "phase3": (context.load_macro(3), context.load_micro(2)),
                "phase4": (context.load_macro(3), context.load_micro(4)),
                "phase5": (context.load_macro(5), context.load_micro(5, which=1)),
            },
            "optimum",
        )

    def macro_from_scratch(self) -> dict[str, float]:
        """Train phase 3 on a fresh macro agent; return its share of the macro level's gap.

        The configuration is that of `over_even_stocks`.
        """
        context = self.context("macro_from_scratch")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        context = with_sector_table(context)
        rule = FollowGoal(context.tensors, self.config.risk)
        return self.shares(context, {"macro_share": (context.load_macro(3), rule)}, "macro optimum")

    def micro_from_scratch(self) -> dict[str, float]:
        """Train phase 4 on a fresh micro agent; return its share of the micro level's gap."""
        context = self.context("micro_from_scratch")
        write_untrained(context, (1, 2, 3))
        run_phase(4, context)
        context = with_sector_table(context)
        pair = (ProportionalGoal(context.tensors), context.load_micro(4))
        return self.shares(context, {"micro_share": pair}, "micro optimum")

    def gradient(self, market: Market | None = None, variant: str = "gradient") -> dict[str, float]:
        """Train phases 1 and 2, on another market where one is given; return the pair's share."""
        context = self.context(variant, market)
        for number in (1, 2):
            run_phase(number, context)
        context = with_sector_table(context)
        pair = (context.load_macro(1), context.load_micro(2))
        return self.shares(context, {variant: pair}, "optimum")

    def controls(self) -> dict[str, float]:
        """Return the shares of what must not reach the line of the agents."""
        return {**self.growth(), **self.permuted()}

    def growth(self) -> dict[str, float]:
        """Train phase 3 on log growth over 1/N, by a fresh agent; return its share."""
        objective = self.config.objective.model_copy(update={"kind": "growth"})
        growing = replace(self, config=self.config.model_copy(update={"objective": objective}))
        context = growing.context("growth")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        context = with_sector_table(context)
        rule = FollowGoal(context.tensors, self.config.risk)
        return self.shares(context, {"growth": (context.load_macro(3), rule)}, "optimum")

    def permuted(self) -> dict[str, float]:
        """Train phases 1 and 2 on returns that no observation can tell; return the pair's share.

        Whole sessions change places inside the training span. What agents see stays.
        """
        market, span = self.planted.market, self.planted.market.split.train
        order = np.arange(market.n_days)
        rng = np.random.default_rng(derive_seed(self.config.seed, PERMUTED))
        order[span.start : span.stop] = rng.permutation(order[span.start : span.stop])
        moved = replace(
            market,
            overnight_return=market.overnight_return[order],
            intraday_return=market.intraday_return[order],
        )
        return self.gradient(moved, "permuted")

    def shares(
        self, context: PhaseContext, pairs: dict[str, Pair], optimum: str
    ) -> dict[str, float]:
        """Return the share of the gap between the classical prior and `optimum` of each pair."""
        tensors = context.tensors
        rule = FollowGoal(tensors, self.config.risk)
        goal = ProportionalGoal if optimum == "micro optimum" else ClassicalGoal
        best = best_pairs(tensors, self.planted.beliefs, self.config)[optimum]
        found = path_score(
            tensors,
            self.config,
            self.plan,
            {**pairs, "optimum": best, "prior": (goal(tensors), rule)},
        )
        return {name: share_of_gap(found[name], found["optimum"], found["prior"]) for name in pairs}


def prepare_volatility(
    config: RunConfig, log_dir: Path, plan: PathPlan | None = None
) -> VolatilityStudy:
    """Draw the market of the configuration's seed, with its risk tables."""
    plan = plan or PathPlan()
    planted = volatility_market(plan, config.seed)
    market = replace(planted.market, risk=risk_tables(planted.market, config))
    return VolatilityStudy(config, replace(planted, market=market), plan, log_dir)


def over_even_stocks(config: RunConfig) -> RunConfig:
    """Return the configuration with equal weights as classical portfolio inside the sectors.

    The best sector weights of the macro level alone are known over these.
    """
    model = config.risk_model.model_copy(update={"stock_prior": "equal_weight"})
    return config.model_copy(update={"risk_model": model})
