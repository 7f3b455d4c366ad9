"""Phase 2: teaches the micro agent's scores, by the gradient or by later stock returns."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hrl_sarp.agents import MicroAgent
from hrl_sarp.agents.files import describe_days
from hrl_sarp.agents.measures import (
    as_numbers,
    compare_with_ridge,
    daily_rank_ic,
    fit_ridge,
    mean_with_error,
    score_measures,
)
from hrl_sarp.config.schema import GradientConfig, SupervisedConfig
from hrl_sarp.contracts import Goal, Regime
from hrl_sarp.envs.observations import (
    MICRO_SCALARS,
    MicroInputs,
    MicroView,
    SlotRequest,
    slot_request,
)
from hrl_sarp.envs.policies import ClassicalGoal, no_view
from hrl_sarp.features.labels import centre_features, standardise_cross_section
from hrl_sarp.market.training_data import TrainingDataLoader, rows_within
from hrl_sarp.run.phases import PHASES
from hrl_sarp.training.phase import PhaseContext, PhaseResult, fitted_phase
from hrl_sarp.training.pretrain.gradient import MicroGradient
from hrl_sarp.training.selection.selector import choose_temperature

NUMBER = 2


def run(context: PhaseContext) -> PhaseResult:
    """Train as the objective asks: by the gradient under `risk`, else by labels."""
    if context.config.objective.kind == "risk":
        return run_by_gradient(context)
    ranked = MicroTask(context)
    return _fit(ranked, ranked, context.config.micro_agent.pretrain, context)


def run_by_gradient(context: PhaseContext) -> PhaseResult:
    """Train by the gradient of the objective through the simulator, whichever objective it is."""
    ranked = MicroTask(context)
    task = MicroGradient(context, ranked.agent)
    return _fit(ranked, task, context.config.micro_agent.gradient, context)


def _fit(
    ranked: "MicroTask",
    task: "MicroTask | MicroGradient",
    section: SupervisedConfig | GradientConfig,
    context: PhaseContext,
) -> PhaseResult:
    """Train `task`, calibrate on validation, write the agent of `ranked` and metrics of both."""
    with fitted_phase(task, NUMBER, section, context) as (history, fitted):
        measures = {**ranked.validate()[1], **task.validate()[1]}
        ranking = ranked.compare_with_ridge(context.config.evaluation.ridge_penalty)
        goal, validation = ClassicalGoal(context.tensors), context.validation
        calibration = choose_temperature(
            task.title,
            ranked.agent,
            context.config.curriculum.temperature_grid,
            lambda agents: validation.scores([(goal, micro) for micro in agents]),
            context.config.curriculum.acceptance,
            context.market.sessions.year,
        )
        ranked.agent.save(context.folder(NUMBER) / PHASES[NUMBER - 1].best[0])
        summary = {**fitted, **measures, **ranking, **calibration}
        return context.finish(NUMBER, history, summary)


class MicroTask:
    """The supervised task of the micro agent. Rows are days.

    The agent chooses inside the sectors only, so labels, losses and rank correlations leave the
    sectors' own moves out. Loss = cross-entropy of softmax(2 x score) to softmax(standardised
    next-5-session return), both inside the sector, weighted by the sector's budget under a random
    goal.
    """

    title = f"phase {NUMBER}"

    def __init__(self, context: PhaseContext) -> None:
        self.context, self.tensors = context, context.tensors
        self.config = context.config.micro_agent
        self.agent = MicroAgent(context.micro_settings(), context.config.seed)
        self.module = nn.ModuleDict({"actor": self.agent.actor})
        market, loader = context.market, TrainingDataLoader.of(context.market, context.config)
        values, complete = loader.micro_labels(context.config.data.micro_label_days)
        slots = np.where(market.slots >= 0, market.slots, 0)
        in_slots = values[np.arange(market.n_days)[:, None], slots]
        tradable = self.tensors.slot_tradable.cpu().numpy()
        self.usable: Bool[np.ndarray, "T N"] = tradable & np.isfinite(in_slots)
        self.label: Float[np.ndarray, "T N"] = np.where(self.usable, in_slots, 0.0)
        self.sectors: Int[np.ndarray, " N"] = np.repeat(
            np.arange(market.n_sectors), self.tensors.slots_per_sector
        )
        self.train_rows = torch.as_tensor(rows_within(complete, market.split.train))
        self.validation_rows = torch.as_tensor(rows_within(complete, market.split.validation))
        self.standardised: Tensor = torch.as_tensor(
            standardise_cross_section(self.label, self.usable, self.sectors),
            device=self.tensors.device,
        ).float()
        self._mask: Tensor = torch.as_tensor(self.usable, device=self.tensors.device)

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a batch's mean cross-entropy, and the standard deviation of its scores.

        The generator draws the goals and the holdings.
        """
        noise = torch.randn(len(rows), self.tensors.n_slots, generator=generator)
        inputs, request = self._inputs(rows, self._random_goal(rows, generator), noise)
        scores = self.agent.actor.network(inputs, request)
        loss = self._cross_entropy(scores, rows, request)
        return loss, {"loss": loss, "score_std": scores.detach().std()}

    def describe(self, rows: Tensor) -> str:
        """Say which market rows a batch holds, with their dates."""
        return describe_days(self.tensors, int(rows.min()), int(rows.max()))

    def _random_goal(self, rows: Tensor, generator: torch.Generator) -> Goal:
        """Draw sector weights and regime probabilities from Dirichlet(1)."""
        sizes = (self.tensors.n_sectors, len(Regime))
        drawn = -torch.log1p(-torch.rand(len(rows), sum(sizes), generator=generator))
        sectors, regime = drawn.to(self.tensors.device).split(sizes, dim=1)
        sectors = sectors * self.tensors.sector_listed[rows]
        return Goal(_shares(sectors), torch.zeros_like(sectors[:, 0]), _shares(regime))

    def _even_goal(self, rows: Tensor) -> Goal:
        shares = self.tensors.sector_shares[rows].float()
        return Goal(shares, torch.zeros_like(shares[:, 0]), no_view(shares))

    def _inputs(
        self, rows: Tensor, goal: Goal, noise: Tensor | None = None
    ) -> tuple[MicroInputs, SlotRequest]:
        """Return the agent's inputs when it holds its prior, or random weights around it.

        Labels do not depend on holdings. Random holdings teach the scores to ignore them.
        """
        tensors, risk = self.tensors, self.context.config.risk
        scalars = torch.zeros(len(rows), len(MICRO_SCALARS), device=tensors.device)
        empty = torch.zeros(len(rows), tensors.n_slots, device=tensors.device)
        tradable = tensors.slot_tradable[rows]
        preference = tensors.slot_preference[rows]
        prior = slot_request(MicroView(empty, tradable, preference, scalars, goal), risk).prior
        held = prior if noise is None else prior * torch.exp(noise.to(prior.device))
        held = held / held.sum(dim=1, keepdim=True).clamp(min=1.0)
        scalars[:, MICRO_SCALARS.index("cash")] = 1 - held.sum(dim=1)
        scalars[:, MICRO_SCALARS.index("days_left")] = tensors.week_left[rows].float()
        view = MicroView(held, tradable, preference, scalars, goal)
        each = torch.arange(len(rows), device=tensors.device)
        inputs = MicroInputs(tensors.slot_features[rows], tradable, each, view)
        return inputs, slot_request(view, risk)

    def _cross_entropy(self, scores: Tensor, rows: Tensor, request: SlotRequest) -> Tensor:
        shape = (self.tensors.n_sectors, self.tensors.slots_per_sector)
        mask = self._mask[rows].unflatten(1, shape)
        preference = (self.config.network.score_temperature * scores).unflatten(1, shape)
        standardised = self.standardised[rows].unflatten(1, shape)
        oracle = self.config.pretrain.oracle_temperature * standardised
        log_share = torch.log_softmax(preference.masked_fill(~mask, -1e9), dim=2)
        target = torch.softmax(oracle.masked_fill(~mask, -1e9), dim=2) * mask
        budget = request.budgets * mask.any(dim=2)
        per_sector = -(target * log_share * mask).sum(dim=2)
        return (budget * per_sector).sum(dim=1).mean() / budget.sum(dim=1).mean()

    @torch.no_grad()
    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the cross-entropy, its gain over following the goal, and the scores' rank IC.

        `val_rank_ic` ranks inside the sectors, `val_universe_rank_ic` over all stocks.
        """
        rows = self.validation_rows
        inputs, request = self._inputs(rows, self._even_goal(rows))
        scores = self.agent.actor.network(inputs, request)
        loss = self._cross_entropy(scores, rows, request)
        constant = self._cross_entropy(torch.zeros_like(scores), rows, request)
        at = rows.cpu().numpy()
        known = (scores.cpu().numpy(), self.label[at], self.usable[at])
        horizon = self.context.config.data.micro_label_days
        mean, error = mean_with_error(daily_rank_ic(*known, self.sectors), horizon)
        universe, universe_error = mean_with_error(daily_rank_ic(*known), horizon)
        spread = as_numbers(score_measures(scores, inputs.tradable))
        return float(loss), {
            "val_total_loss": float(loss),
            "val_loss_gain": float(1 - loss / constant),
            "val_rank_ic": mean,
            "val_rank_ic_se": error,
            "val_universe_rank_ic": universe,
            "val_universe_rank_ic_se": universe_error,
            **{f"val_{name}": value for name, value in spread.items()},
        }

    @torch.no_grad()
    def compare_with_ridge(self, penalty: float) -> dict[str, float]:
        """Compare the scores with a ridge on the same label and validation rows.

        The ridge is fitted inside the sectors, too: features and label are centred there.
        """
        train, rows = self.train_rows.cpu().numpy(), self.validation_rows
        at = rows.cpu().numpy()
        features = self.tensors.slot_features.cpu().numpy()
        seen, later = (
            centre_features(features[row], self.usable[row], self.sectors) for row in (train, at)
        )
        target = standardise_cross_section(self.label[train], self.usable[train], self.sectors)
        weights = fit_ridge(seen, target, self.usable[train], penalty)
        inputs, request = self._inputs(rows, self._even_goal(rows))
        scores = self.agent.actor.network(inputs, request).cpu().numpy()
        known = (self.label[at], self.usable[at], self.sectors)
        horizon = self.context.config.data.micro_label_days
        return compare_with_ridge(scores, later @ weights, *known, horizon)


def _shares(drawn: Tensor) -> Tensor:
    return drawn / drawn.sum(dim=1, keepdim=True).clamp(min=1e-12)
