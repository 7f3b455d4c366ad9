"""The studies of the planted two-level market: each level, both of them, and one level for all.

The ordinary curriculum runs the phases. `from scratch` means that untrained agents, which follow
1/N, stand in for those of the earlier phases.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.schema import GraphConfig, RunConfig
from hrl_sarp.contracts import Market, Regime
from hrl_sarp.envs.observations import MACRO_SCALARS
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.features.labels import regime_label
from hrl_sarp.graph import node_features
from hrl_sarp.graph.sector_graph import STATISTICS
from hrl_sarp.known_markets.two_level import (
    DAYS_PER_WEEK,
    MacroOracle,
    MicroOracle,
    PathPlan,
    PathScore,
    PlantedMarket,
    label_probabilities,
    planted_market,
    share_of_gap,
)
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.session import StopFlag
from hrl_sarp.studies.summary import Threshold
from hrl_sarp.training.curriculum import make_context, run_phase
from hrl_sarp.training.phase import PhaseContext, save_sector_table, with_sector_table
from hrl_sarp.training.pretrain import macro, micro

PAIR_THRESHOLDS = (
    Threshold("phase5", ">=", 0.65),
    Threshold("phase4_minus_calibrated_in_se", ">=", -1.0),
    Threshold("phase5_minus_phase4_in_se", ">=", -1.0),
    Threshold("regime_gain_share", ">=", 0.80),
)
Pair = tuple[MacroPolicy, MicroPolicy]
LEVELS_PLAN = PathPlan(train_weeks=2_600, path_weeks=261)
"""Of the studies with a flat agent: 50 years of training and 20 fresh paths of five years."""
ORACLE_SPEED = 0.8
"""The micro oracle's best speed on this market's costs, from a grid of 0.05 to 1."""


@dataclass(frozen=True)
class TwoLevelStudy:
    """One seed's market and its phases."""

    config: RunConfig
    planted: PlantedMarket
    log_dir: Path
    """Holds one folder per variant. Phases that have finished there do not run again."""

    def context(self, variant: str) -> PhaseContext:
        """Build the phases' context of a variant; an interrupted one continues."""
        device = torch.device("cpu")
        folder = self.log_dir / variant
        return make_context(
            self.config, self.planted.market, folder, device, StopFlag(), resume=True
        )

    def macro_from_scratch(self) -> dict[str, float]:
        """Train phase 3 on a fresh macro agent over a rule; return its share of the gap."""
        context = self.context("macro_from_scratch")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        return {"macro_share": self._share(context, 3, "macro")}

    def macro_pretrained(self) -> dict[str, float]:
        """Train phases 1 and 3 over a rule; return the share of the gap after each."""
        context = self.context("macro_pretrained")
        run_phase(1, context)
        calibrated = self._share(context, 1, "macro")
        write_untrained(context, (2,))
        run_phase(3, context)
        return {"calibrated": calibrated, "macro_share": self._share(context, 3, "macro")}

    def micro_from_scratch(self) -> dict[str, float]:
        """Train phase 4 on a fresh micro agent, under a fresh macro agent whose goal is 1/N."""
        context = self.context("micro_from_scratch")
        write_untrained(context, (1, 2, 3))
        run_phase(4, context)
        return {"micro_share": self._share(context, 4, "micro")}

    def from_scratch(self) -> dict[str, float]:
        """Train each level alone on a fresh agent; return the share of the gap of each."""
        return {**self.macro_from_scratch(), **self.micro_from_scratch()}

    def pretrained(self) -> dict[str, float]:
        """Train all five phases; return the share of the two-level gap after each stage."""
        context = self.context("pretrained")
        for number in range(1, 6):
            run_phase(number, context)
        context = with_sector_table(context)
        pairs = {
            "calibrated": (context.load_macro(1), context.load_micro(2)),
            "phase3": (context.load_macro(3), context.load_micro(2)),
            "phase4": (context.load_macro(3), context.load_micro(4)),
            "phase5": (context.load_macro(5), context.load_micro(5, which=1)),
        }
        score, tensors, risk = self.score(context), context.tensors, self.config.risk
        oracle = score.growth(
            MacroOracle(tensors, self.planted, risk), MicroOracle(tensors, risk, ORACLE_SPEED)
        )
        even = score.equal_weight()
        growth = {name: score.growth(*pair) for name, pair in pairs.items()}
        return {
            **{name: share_of_gap(earned, oracle, even) for name, earned in growth.items()},
            "macro_share": self._share(context, 3, "macro"),
            "micro_share": self._share(context, 4, "micro"),
            "phase4_minus_calibrated_in_se": _paired(growth["phase4"], growth["calibrated"]),
            "phase5_minus_phase4_in_se": _paired(growth["phase5"], growth["phase4"]),
            "regime_gain_share": self.regime_gain_share(context),
        }

    def levels(self) -> dict[str, float]:
        """Train two agents, one flat agent and both levels by the gradient, each from scratch.

        The flat one trains for as many sessions as both agents of the hierarchy together. The
        gradient knows the simulator, which reinforcement has to find out by trading.
        """
        agents = self.context("hierarchy")
        write_untrained(agents, (1, 2))
        run_phase(3, agents)
        run_phase(4, agents)
        slope = self.context("gradient")
        run_phase(1, slope, macro.run_by_gradient)
        run_phase(2, slope, micro.run_by_gradient)
        growth = {
            "gradient": self._growth(slope, 1, 2),
            "hierarchy": self._growth(agents, 3, 4),
            "flat": self._flat_growth(),
        }
        found = self._beside_the_best(growth)
        return {
            **found,
            "hierarchy minus flat": found["hierarchy"] - found["flat"],
            "hierarchy minus gradient": found["hierarchy"] - found["gradient"],
        }

    def flat(self) -> dict[str, float]:
        """Train the flat agent alone."""
        return self._beside_the_best({"flat": self._flat_growth()})

    def _growth(self, context: PhaseContext, first: int, second: int) -> np.ndarray:
        """Return the growth of the macro agent of one phase and the micro agent of another."""
        context = with_sector_table(context)
        return self.score(context).growth(context.load_macro(first), context.load_micro(second))

    def _flat_growth(self) -> np.ndarray:
        market = with_all_columns(self.planted.market, self.config.macro_agent.graph)
        planted = replace(self.planted, market=market)
        one = replace(self, config=flat_config(self.config), planted=planted)
        context = one.context("flat")
        write_untrained(context, (1, 2, 3))  # its macro level stays untrained: 1/N without a view
        run_phase(4, context)
        return one._growth(context, 3, 4)

    def _beside_the_best(self, growth: dict[str, np.ndarray]) -> dict[str, float]:
        """Return growth of 1/N and of the best known policy in % a year, and shares of their gap.

        That policy keeps the goal's sector weights and trades as its rule says, so that 1 is no
        bound: an agent that moves between sectors day by day may pass it.
        """
        context, risk = self.context("best"), self.config.risk
        score = self.score(context)
        best = score.growth(
            MacroOracle(context.tensors, self.planted, risk),
            MicroOracle(context.tensors, risk, ORACLE_SPEED),
        )
        even = score.equal_weight()
        return {
            "1/N, % a year": 100 * float(even.mean()),
            "best known policy over 1/N, % a year": 100 * float((best - even).mean()),
            **{name: share_of_gap(earned, best, even) for name, earned in growth.items()},
        }

    def score(self, context: PhaseContext) -> PathScore:
        """Score policies that read this context's market."""
        return PathScore(context.tensors, self.config, self.planted.plan)

    def regime_gain_share(self, context: PhaseContext) -> float:
        """Return the regime head's log-loss gain over the prior, as a share of the Bayes filter's.

        Both gains are measured at the week ends of the test paths. The prior is the class shares
        of the training span.
        """
        market, data = context.market, self.config.data
        label = regime_label(market, data.regime)
        rows = np.flatnonzero(market.is_week_end & (label >= 0))
        test = rows[rows >= market.split.test.start]
        train = rows[(rows >= market.split.train.start) & (rows < market.split.train.stop)]
        counts = np.bincount(label[train], minlength=len(Regime)) + 1
        prior = counts / counts.sum()
        beliefs = self.planted.beliefs[test]
        bayes = label_probabilities(beliefs, test, market, data.regime, self.planted.synthetic)
        agent = context.load_macro(1)
        cash = torch.zeros(len(test), agent.tensors.n_sectors + len(MACRO_SCALARS))
        asked = agent.goal({"day": torch.as_tensor(test)[:, None], "portfolio": cash})
        head = asked.regime_probabilities.double().numpy()
        truth = label[test]
        constant = -np.log(prior[truth]).mean()
        return float((constant - _log_loss(head, truth)) / (constant - _log_loss(bayes, truth)))

    def _share(self, context: PhaseContext, number: int, level: Literal["macro", "micro"]) -> float:
        """Return the share of the gap that one level's agent closes, the other following a rule."""
        context = with_sector_table(context)
        tensors, risk = context.tensors, self.config.risk
        agent: tuple[MacroPolicy, MicroPolicy]
        oracle: tuple[MacroPolicy, MicroPolicy]
        if level == "macro":
            rule = FollowGoal(tensors, risk)
            agent = (context.load_macro(number), rule)
            oracle = (MacroOracle(tensors, self.planted, risk), rule)
        else:
            even = ProportionalGoal(tensors)
            agent = (even, context.load_micro(number))
            oracle = (even, MicroOracle(tensors, risk, ORACLE_SPEED))
        score = self.score(context)
        return share_of_gap(score.growth(*agent), score.growth(*oracle), score.equal_weight())


def flat_config(config: RunConfig) -> RunConfig:
    """Return the configuration of one agent that weighs all stocks, whatever goal is set.

    It trains for as many sessions as both agents of `config` together, and its scores reach as far.
    It is paid what a portfolio grows over 1/N.
    """
    agent = config.micro_agent
    sessions = DAYS_PER_WEEK * config.macro_agent.ppo.total_timesteps + agent.td3.total_timesteps
    network = {"decode": "free", "free_temperature": agent.network.score_temperature}
    td3 = {"total_timesteps": sessions, "hindsight_share": 0.0, "dirichlet_goal_share": 0.0}
    reward = {"gain": "growth", "alignment_weight": 0.0}
    changed = agent.model_copy(
        update={
            "network": agent.network.model_copy(update=network),
            "td3": agent.td3.model_copy(update=td3),
            "reward": agent.reward.model_copy(update=reward),
        }
    )
    return config.model_copy(update={"micro_agent": changed})


def with_all_columns(market: Market, graph: GraphConfig) -> Market:
    """Give every stock what the macro agent sees: its sector, the market's columns, the regime.

    The columns of a sector are its trailing returns; means of the features of its stocks are left
    out, because all stocks are seen.
    """
    shape = (market.n_days, len(market.symbols))
    sector = np.eye(market.n_sectors)[market.sector_of]
    statistics = node_features(market, graph)[..., -len(STATISTICS) :]
    whole = np.concatenate([market.macro_features, market.filtered_regime], axis=1)
    parts = {
        "sector": np.broadcast_to(sector, (*shape, market.n_sectors)),
        "sector_return": statistics[:, market.sector_of],
        "market": np.broadcast_to(whole[:, None], (*shape, whole.shape[1])),
    }
    names = [f"{name}_{i}" for name, part in parts.items() for i in range(part.shape[2])]
    columns = [part.astype(np.float32, copy=False) for part in parts.values()]
    return replace(
        market,
        stock_features=np.concatenate([market.stock_features, *columns], axis=2),
        feature_names=(*market.feature_names, *names),
    )


def _paired(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean difference in its standard errors; 0 where the growths are the same."""
    difference = first - second
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return float(difference.mean() / error) if error > 0 else 0.0


def write_untrained(context: PhaseContext, numbers: tuple[int, ...]) -> None:
    """Write untrained agents as the results of these phases, unless there are results already.

    The sector table holds raw node features instead of a graph network's embeddings.
    """
    config = context.config
    nodes = node_features(context.market, config.macro_agent.graph)
    table = context.folder(1) / PHASES[0].best[1]
    if not table.is_file():
        table.parent.mkdir(parents=True, exist_ok=True)
        save_sector_table(table, context, nodes)
    seen = context.with_sector_embeddings(nodes)
    for number in numbers:
        path = context.folder(number) / PHASES[number - 1].best[0]
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if number in (1, 3):
            MacroAgent(seen.tensors, config, config.seed).save(path)
        else:
            MicroAgent(MicroSettings(seen.tensors, config), config.seed).save(path)


def _log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    chosen = torch.as_tensor(probabilities).clamp(min=1e-12).log()
    return float(nn.functional.nll_loss(chosen, torch.as_tensor(truth)))


def prepare(config: RunConfig, log_dir: Path, plan: PathPlan | None = None) -> TwoLevelStudy:
    """Generate the market of the configuration's seed."""
    planted = planted_market(config, plan or PathPlan(), config.seed)
    return TwoLevelStudy(config, planted, log_dir)


def hidden_study(config: RunConfig, log_dir: Path) -> dict[str, float]:
    """Train and score the macro level on the market where only returns reveal the regime."""
    study = prepare(config, log_dir)
    scratch = study.macro_from_scratch()["macro_share"]
    return {"from_scratch": scratch, **study.macro_pretrained()}
