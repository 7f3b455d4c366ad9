"""The tasks of phases 1 and 2 under the objective `risk`: its gradient through the simulator.

A row is a decision. The agent starts from the classical portfolio one decision earlier and decides
twice in the environment of reinforcement; the second reward is what it is trained on. So holdings
are those of the agent's own last decision, and costs count as they do later, without an entry.

The networks give no weight to these holdings. The first decision is not paid for, so that a network
that tells it from the second moves there for nothing and saves the costs of the second. Over a year
it would hold what it bought first.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.files import describe_days
from hrl_sarp.agents.layers import set_dropout
from hrl_sarp.agents.measures import as_numbers, goal_measures, score_measures
from hrl_sarp.agents.ppo.networks import MacroDecision
from hrl_sarp.config.schema import GradientConfig
from hrl_sarp.contracts import DayRange, Goal, Regime
from hrl_sarp.envs.levels import Level, LevelStep, MacroLevel, MicroLevel
from hrl_sarp.envs.observations import macro_inputs, portfolio_columns
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.graph import SectorGNN, adjacency, embed_all, node_features
from hrl_sarp.market.training_data import TrainingDataLoader, rows_within
from hrl_sarp.training.phase import PhaseContext

MAX_ITERATIONS = 2000
"""Of the logistic regression; it converges in fewer."""
SMALLEST_SHARE = 1e-6
"""Shares are at least this in divergences."""
Decide = Callable[[Level], Tensor]
"""Observes a level and returns actions, with their graph."""


def second_reward(level: Level, days: Tensor, goal: Goal, decide: Decide) -> LevelStep:
    """Start from the classical portfolio of `days`, decide twice, and return the second step."""
    clocks = level.clocks
    clocks.start_with(days, _classical_holdings(clocks, days, level.config.risk))
    clocks.set_goal(goal, torch.ones_like(days, dtype=torch.bool))
    level.step(decide(level))
    return level.step(decide(level))


@torch.no_grad()
def _classical_holdings(clocks: TwoClocks, days: Tensor, risk: Any) -> Float[Tensor, "B A"]:
    tensors = clocks.tensors
    clocks.reset(days, torch.ones_like(days, dtype=torch.bool))
    goal = ClassicalGoal(tensors).goal({"day": days[:, None]})
    clocks.set_goal(goal, torch.ones_like(days, dtype=torch.bool))
    slots = FollowGoal(tensors, risk).target(clocks.micro_observation())
    return tensors.to_assets(slots.to(tensors.dtype), days)


class MacroGradient:
    """The task of the macro agent. Rows are week ends; the loss is the negative of a week's reward.

    Added are a divergence from the classical portfolio and a penalty on the distance to its
    exposure. The regime head is fitted first and stays.
    """

    title = "phase 1"

    def __init__(self, context: PhaseContext) -> None:
        market, self.config = context.market, context.config
        settings, device = self.config.macro_agent, context.tensors.device
        self.settings: GradientConfig = settings.gradient
        self.nodes: Tensor = torch.as_tensor(node_features(market, settings.graph), device=device)
        self.edges: Tensor = torch.as_tensor(adjacency(market, settings.graph), device=device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.graph = SectorGNN(self.nodes.shape[2], settings.graph).to(device)
        first = embed_all(self.graph, self.nodes, self.edges).cpu().numpy()
        self.tensors = context.with_sector_embeddings(first).tensors
        self.agent = MacroAgent(self.tensors, self.config, self.config.seed)
        self.partner = FollowGoal(self.tensors, self.config.risk)
        loader = TrainingDataLoader.of(market, self.config)
        _, regime, usable = loader.macro_labels(self.config.data.macro_label_days)
        self.regime: Int[Tensor, " T"] = torch.as_tensor(regime, device=device)
        self._before, self._ends = _decisions_before(market.is_week_end)
        self.train_rows = self._rows(usable, market.split.train)
        self.validation_rows = self._rows(usable, market.split.validation)
        self._fit_regime_head()
        set_dropout(self.agent.actor, settings.network.dropout)
        self.agent.actor.ignore_holdings(portfolio_columns(self.tensors))
        self.module = nn.ModuleDict({"graph": self.graph, "actor": self.agent.actor})
        self._levels: dict[int, MacroLevel] = {}

    def _rows(self, usable: np.ndarray, span: DayRange) -> Tensor:
        """Return the labelled week ends whose week before and whose week after lie in the span."""
        rows = rows_within(usable, span)
        inside = (self._before[rows] >= span.start) & (self._ends[rows] < span.stop)
        return torch.as_tensor(rows[inside])

    def _fit_regime_head(self) -> None:
        """Fit the head as a penalised logistic regression: it is linear, and weeks are few."""
        # importing it takes half a second, and only phase 1 fits it
        from sklearn.linear_model import LogisticRegression

        seen = self._regime_inputs(self.train_rows).cpu().numpy().astype(np.float64)
        classes = self.regime[self.train_rows].cpu().numpy()
        counts = np.bincount(classes, minlength=len(Regime)) + 1.0
        self.prior: Float[Tensor, " R"] = torch.as_tensor(counts / counts.sum()).float()
        head = self.agent.actor.regime
        with torch.no_grad():
            head.bias.copy_(self.prior.log())
            if len(np.unique(classes)) == len(Regime):
                strength = self.settings.regime_strength
                fitted = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(seen, classes)
                head.weight.copy_(torch.as_tensor(fitted.coef_))
                head.bias.copy_(torch.as_tensor(fitted.intercept_))
        head.requires_grad_(requires_grad=False)

    def _regime_inputs(self, rows: Tensor) -> Float[Tensor, "W I"]:
        days = rows.to(self.tensors.device)
        state = ClassicalGoal(self.tensors).goal({"day": days[:, None]})
        cash = torch.stack([state.cash, 0 * state.cash, 0 * state.cash], dim=1)
        index = {"day": days[:, None], "portfolio": torch.cat([state.sector_weights, cash], dim=1)}
        context = macro_inputs(self.tensors, index).context
        return context[:, -self.agent.actor.n_regime_inputs :]

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of market rows and its terms; nothing is drawn."""
        found: list[tuple[MacroDecision, Tensor]] = []
        reply = self._two_weeks(rows, found)
        decision, prior = found[-1]
        goal = decision.goal(decision.shares.centre)
        shares, floor = decision.shares.centre.clamp(min=SMALLEST_SHARE), SMALLEST_SHARE
        classical = prior[:, : shares.shape[1]].clamp(min=floor)  # under growth without cash
        divergence = (shares * (shares.log() - classical.log())).sum(dim=1).mean()
        distance = (goal.cash - prior[:, -1]).square().mean()
        objective = reply.reward.mean()
        total = (
            -objective
            + self.settings.prior_weight * divergence
            + self.settings.exposure_weight * distance
        )
        return total, {"objective": objective, "prior_kl": divergence, "cash_gap": distance}

    def _two_weeks(self, rows: Tensor, found: list[tuple[MacroDecision, Tensor]]) -> LevelStep:
        days = torch.as_tensor(self._before)[rows].to(self.tensors.device)
        level = self._levels.get(len(rows))
        if level is None:
            level = MacroLevel(self.tensors, self.config, len(rows), self.partner, horizon=2)
            self._levels[len(rows)] = level

        def decide(at: Level) -> Tensor:
            index = at.observe("index")
            day = index["day"].flatten()
            embeddings = self.graph(self.nodes[day], self.edges[day])
            inputs = macro_inputs(self.tensors, index, embeddings)
            decision: MacroDecision = self.agent.actor(inputs)
            found.append((decision, inputs.prior))
            return decision.goal(decision.shares.centre).to_vector()

        goal = ClassicalGoal(self.tensors).goal({"day": days[:, None]})
        return second_reward(level, days, goal, decide)

    def describe(self, rows: Tensor) -> str:
        """Say which market rows a batch holds, with their dates."""
        return describe_days(self.tensors, int(rows.min()), int(rows.max()))

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the negative objective of a validation week, and measures under `val_<name>`."""
        rows = self.validation_rows
        found: list[tuple[MacroDecision, Tensor]] = []
        reply = self._two_weeks(rows, found)
        decision, _ = found[-1]
        classes = self.regime[rows]
        regime = nn.functional.cross_entropy(decision.regime, classes)
        prior = nn.functional.cross_entropy(self.prior.log().expand(len(rows), -1), classes)
        goals = as_numbers(goal_measures(decision.goal(decision.shares.centre)))
        objective = float(reply.reward.mean())
        return -objective, {
            "val_total_loss": -objective,
            "val_objective": objective,
            "val_regime_loss": float(regime),
            "val_regime_gain_nats": float(prior - regime),
            **{f"val_{name}": value for name, value in goals.items()},
        }


class MicroGradient:
    """The task of the micro agent. Rows are days; the loss is the negative of a session's reward.

    Goals are the classical portfolio's sectors, each times exp(noise).
    """

    title = "phase 2"

    def __init__(self, context: PhaseContext, agent: MicroAgent) -> None:
        market, self.config, self.agent = context.market, context.config, agent
        self.settings: GradientConfig = self.config.micro_agent.gradient
        self.tensors = context.tensors
        self.agent.actor.network.ignore_holdings()
        self.module = nn.ModuleDict({"actor": self.agent.actor})
        everyday = np.ones(market.n_days, dtype=bool)
        self.train_rows = self._rows(everyday, market.split.train)
        self.validation_rows = self._rows(everyday, market.split.validation)
        self._levels: dict[int, MicroLevel] = {}

    @staticmethod
    def _rows(usable: np.ndarray, span: DayRange) -> Tensor:
        """Return the days with a session before and one after inside the span."""
        rows = rows_within(usable, span)
        return torch.as_tensor(rows[(rows > span.start) & (rows < span.stop - 1)])

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the negative mean reward of a batch; the generator draws the goals."""
        noise = torch.randn(len(rows), self.tensors.n_sectors, generator=generator)
        reply, scores = self._two_sessions(rows, self.settings.goal_noise * noise)
        penalty = self.settings.prior_weight * scores.square().mean()
        objective = reply.reward.mean()
        return penalty - objective, {"objective": objective, "score_std": scores.detach().std()}

    def _two_sessions(self, rows: Tensor, noise: Tensor) -> tuple[LevelStep, Tensor]:
        tensors, days = self.tensors, (rows - 1).to(self.tensors.device)
        level = self._levels.get(len(rows))
        if level is None:
            partner = ClassicalGoal(tensors)
            level = MicroLevel(tensors, self.config, len(rows), partner, horizon=2)
            self._levels[len(rows)] = level
        goal = ClassicalGoal(tensors).goal({"day": days[:, None]})
        sectors = goal.sector_weights * torch.exp(noise.to(goal.sector_weights))
        sectors = sectors / sectors.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)
        seen: list[Tensor] = []

        def decide(at: Level) -> Tensor:
            inputs, request = self.agent.settings.read(at.observe("index"))
            seen.append(self.agent.actor.network(inputs, request))
            return self.agent.settings.decode(seen[-1], request)

        goal = Goal(sectors, goal.cash, goal.regime_probabilities)
        return second_reward(level, days, goal, decide), seen[-1]

    def describe(self, rows: Tensor) -> str:
        """Say which market rows a batch holds, with their dates."""
        return describe_days(self.tensors, int(rows.min()), int(rows.max()))

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the negative objective of a validation session, and measures."""
        rows = self.validation_rows
        quiet = torch.zeros(len(rows), self.tensors.n_sectors)
        reply, scores = self._two_sessions(rows, quiet)
        tradable = self.tensors.slot_tradable[rows]
        spread = as_numbers(score_measures(scores, tradable))
        objective = float(reply.reward.mean())
        return -objective, {
            "val_total_loss": -objective,
            "val_objective": objective,
            **{f"val_{name}": value for name, value in spread.items()},
        }


def _decisions_before(is_week_end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the week end before it and the one after it; -1 and T where none is."""
    n_days = len(is_week_end)
    ends = np.where(is_week_end, np.arange(n_days), -1)
    before = np.concatenate([[-1], np.maximum.accumulate(ends)[:-1]])
    starts = np.where(is_week_end, np.arange(n_days), n_days)
    after = np.append(np.minimum.accumulate(starts[::-1])[::-1][1:], n_days)
    return before, after
