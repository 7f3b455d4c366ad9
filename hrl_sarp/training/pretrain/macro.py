"""Phase 1: teaches the macro agent and the sector graph, by the gradient or by later returns."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrl_sarp.agents import MacroAgent
from hrl_sarp.agents.files import describe_days
from hrl_sarp.agents.layers import set_dropout
from hrl_sarp.agents.measures import as_numbers, goal_measures
from hrl_sarp.agents.ppo.networks import MacroDecision
from hrl_sarp.config.schema import GradientConfig, SupervisedConfig
from hrl_sarp.contracts import Goal, Market, Regime
from hrl_sarp.envs.observations import MACRO_SCALARS, macro_inputs
from hrl_sarp.envs.policies import FollowGoal
from hrl_sarp.features.labels import oracle_weights
from hrl_sarp.graph import SectorGNN, adjacency, embed_all, node_features
from hrl_sarp.market.training_data import TrainingDataLoader, rows_within
from hrl_sarp.run.phases import PHASES
from hrl_sarp.training.phase import PhaseContext, PhaseResult, fitted_phase, save_sector_table
from hrl_sarp.training.pretrain.gradient import MacroGradient
from hrl_sarp.training.selection.selector import choose_temperature
from hrl_sarp.training.selection.validation import Validation

NUMBER = 1


def run(context: PhaseContext) -> PhaseResult:
    """Train as the objective asks: by the gradient under `risk`, else by labels."""
    if context.config.objective.kind == "risk":
        return run_by_gradient(context)
    return _fit(MacroTask(context), context.config.macro_agent.pretrain, context)


def run_by_gradient(context: PhaseContext) -> PhaseResult:
    """Train by the gradient of the objective through the simulator, whichever objective it is."""
    return _fit(MacroGradient(context), context.config.macro_agent.gradient, context)


def _fit(
    task: "MacroTask | MacroGradient",
    section: SupervisedConfig | GradientConfig,
    context: PhaseContext,
) -> PhaseResult:
    """Train, calibrate on validation, write agent, sector table and metrics."""
    with fitted_phase(task, NUMBER, section, context) as (history, fitted):
        table = embed_all(task.graph, task.nodes, task.edges).cpu().numpy()
        tensors, config = context.with_sector_embeddings(table).tensors, context.config
        agent = MacroAgent(tensors, config, config.seed)
        agent.actor.load_state_dict(task.agent.actor.state_dict())
        partner, validation = FollowGoal(tensors, config.risk), Validation(tensors, config)
        calibration = choose_temperature(
            task.title,
            agent,
            config.curriculum.temperature_grid,
            lambda agents: validation.scores([(macro, partner) for macro in agents]),
            config.curriculum.acceptance,
            context.market.sessions.year,
        )
        files = PHASES[NUMBER - 1]
        agent.save(context.folder(NUMBER) / files.best[0])
        save_sector_table(context.folder(NUMBER) / files.best[1], context, table, task.graph)
        summary = {**fitted, **task.validate()[1], **calibration}
        return context.finish(NUMBER, history, summary)


class MacroTask:
    """The supervised task of the macro agent. Rows are week ends; labels start at the next open.

    Total loss = weight x cross-entropy(regime) / the class prior's + (1 - weight) x squared error
    of the sector weights / that of uniform weights. A constant predictor has a loss of 1.
    """

    title = f"phase {NUMBER}"

    def __init__(self, context: PhaseContext) -> None:
        market, config = context.market, context.config
        device = context.tensors.device
        graph = config.macro_agent.graph
        self.config = config.macro_agent
        self.nodes: Tensor = torch.as_tensor(node_features(market, graph), device=device)
        self.edges: Tensor = torch.as_tensor(adjacency(market, graph), device=device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.graph = SectorGNN(self.nodes.shape[2], graph).to(device)
        first = embed_all(self.graph, self.nodes, self.edges).cpu().numpy()
        self.tensors = context.with_sector_embeddings(first).tensors
        self.agent = MacroAgent(self.tensors, config, config.seed)
        self._load_labels(market, context)
        counts = torch.bincount(self.regime[self.train_rows], minlength=len(Regime)).float()
        self.prior = (counts + 1) / (counts + 1).sum()
        with torch.no_grad():  # a fresh network predicts the class shares of training
            self.agent.actor.regime.bias.copy_(self.prior.log())
        set_dropout(self.agent.actor, config.macro_agent.network.dropout)
        self.module = nn.ModuleDict({"graph": self.graph, "actor": self.agent.actor})

    def _load_labels(self, market: Market, context: PhaseContext) -> None:
        loader = TrainingDataLoader.of(market, context.config)
        values, regime, usable = loader.macro_labels(context.config.data.macro_label_days)
        listed = self.tensors.sector_listed.cpu().numpy()
        temperature = self.config.pretrain.oracle_temperature
        oracle = oracle_weights(values, temperature, listed)
        device = self.tensors.device
        self.oracle: Float[Tensor, "T S"] = torch.as_tensor(oracle, device=device).float()
        self.regime: Int[Tensor, " T"] = torch.as_tensor(regime, device=device)
        self.train_rows = torch.as_tensor(rows_within(usable, market.split.train))
        self.validation_rows = torch.as_tensor(rows_within(usable, market.split.validation))
        uniform = listed / np.maximum(listed.sum(axis=1, keepdims=True), 1)
        self.uniform: Float[Tensor, "T S"] = torch.as_tensor(uniform, device=device).float()

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of market rows and its two terms.

        A constant predictor has a total loss of 1. The generator draws the observed portfolios.
        """
        goal, logits = self._predict(rows, self._random_portfolio(rows, generator))
        regime = nn.functional.cross_entropy(logits, self.regime[rows])
        error = _squared_error(goal.sector_weights, self.oracle[rows])
        total = self._total(regime, error, rows)
        return total, {"regime_loss": regime, "alloc_loss": error}

    def describe(self, rows: Tensor) -> str:
        """Say which market rows a batch holds, with their dates."""
        return describe_days(self.tensors, int(rows.min()), int(rows.max()))

    def _predict(self, rows: Tensor, portfolio: Tensor) -> tuple[Goal, Tensor]:
        embeddings = self.graph(self.nodes[rows], self.edges[rows])
        observation = {"day": rows[:, None], "portfolio": portfolio}
        inputs = macro_inputs(self.tensors, observation, embeddings)
        decision: MacroDecision = self.agent.actor(inputs)
        return decision.goal(decision.shares.centre), decision.regime

    def _random_portfolio(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return random holdings, cash and drawdown, on which labels do not depend."""
        shares = self.tensors.sector_shares[rows].float()
        noise = torch.rand(shares.shape, generator=generator).to(shares)
        drawn = shares * -torch.log1p(-noise)
        invested = torch.rand(len(rows), 1, generator=generator).to(shares)
        drawdown = 0.2 * torch.rand(len(rows), 1, generator=generator).to(shares)
        weights = invested * drawn / drawn.sum(dim=1, keepdim=True)
        return torch.cat([weights, 1 - invested, drawdown, torch.zeros_like(drawdown)], dim=1)

    def _total(self, regime: Tensor, error: Tensor, rows: Tensor) -> Tensor:
        classes = self.regime[rows]
        constant_regime = nn.functional.cross_entropy(
            self.prior.log().expand(len(rows), -1), classes
        )
        constant_error = _squared_error(self.uniform[rows], self.oracle[rows])
        weight = self.config.regime_loss_weight
        total: Tensor = weight * regime / constant_regime + (1 - weight) * error / constant_error
        return total

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the total loss, and under `val_<name>` skill and the regime's accuracy.

        Two constant answers are scored as well: the majority class and the class shares of
        training.
        """
        rows = self.validation_rows
        even = self.tensors.sector_shares[rows].float()
        scalars = torch.zeros(len(rows), len(MACRO_SCALARS), device=even.device)  # no drawdown
        goal, logits = self._predict(rows, torch.cat([even, scalars], dim=1))
        classes = self.regime[rows]
        regime = nn.functional.cross_entropy(logits, classes)
        prior = nn.functional.cross_entropy(self.prior.log().expand(len(rows), -1), classes)
        error = _squared_error(goal.sector_weights, self.oracle[rows])
        constant = _squared_error(self.uniform[rows], self.oracle[rows])
        hit = logits.argmax(dim=1) == classes
        counts = torch.bincount(classes, minlength=len(Regime)).float()
        hits = torch.bincount(classes[hit], minlength=len(Regime)).float()
        goals = as_numbers(goal_measures(goal))
        total = float(self._total(regime, error, rows))
        return total, {
            "val_total_loss": total,
            "val_regime_loss": float(regime),
            "val_regime_gain_nats": float(prior - regime),
            "val_alloc_loss": float(error),
            "val_alloc_skill": float(1 - error / constant),
            "val_regime_accuracy": float(hit.float().mean()),
            "val_regime_majority": float(counts.max() / counts.sum()),
            "val_regime_balanced_accuracy": float((hits / counts.clamp(min=1))[counts > 0].mean()),
            **{f"val_{name}": value for name, value in goals.items()},
        }


def _squared_error(shares: Tensor, oracle: Tensor) -> Tensor:
    return (shares - oracle).square().mean()
