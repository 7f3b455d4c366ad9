"""The gradient of the objective `risk` through the simulator, in phases 1 and 2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import Market, RiskTables
from hrl_sarp.envs.observations import MACRO_SCALARS, MICRO_SCALARS, macro_inputs
from hrl_sarp.training.phase import PhaseContext
from hrl_sarp.training.pretrain.gradient import MacroGradient, MicroGradient
from hrl_sarp.training.pretrain.micro import MicroTask
from tests import factories, tiny_runs

RISK: dict[str, Any] = {
    "objective": {"kind": "risk"},
    "macro_agent": {
        "network": {"hidden": 8, "dropout": 0.0},
        "gradient": {"batch_size": 64, "prior_weight": 0.0, "exposure_weight": 0.0},
    },
    "micro_agent": {"gradient": {"prior_weight": 0.0, "goal_noise": 0.0}},
}


def calm_and_wild(n_days: int = 400) -> Market:
    """Return two sectors of two stocks: the second sector, and in it the second stock, is wilder.

    The classical portfolio is 1/N at 90 % exposure, so that there is something to gain.
    """
    rng = np.random.default_rng(1)
    scale = np.array([0.004, 0.012, 0.012, 0.03])
    moves = rng.normal(size=(n_days, 4)) * scale
    market = factories.market_with(0 * moves, moves, [0, 0, 1, 1])
    halves = np.full((n_days, 2), 0.5)
    risk = RiskTables(
        inputs=rng.normal(size=(n_days, 2)),
        input_names=("level", "rise"),
        sector_inputs=np.tile(np.array([[-1.0], [1.0]]), (n_days, 1, 1)),
        sector_input_names=("log_volatility",),
        sector_prior=halves,
        stock_prior=np.full((n_days, 4), 0.5),
        prior_exposure=np.full(n_days, 0.9),
        normal_variance=np.full(n_days, 0.02),
    )
    level = np.tile(np.log(scale)[None, :, None], (n_days, 1, market.stock_features.shape[2]))
    return replace(market, risk=risk, stock_features=level - level.mean())


def context_of(market: Market, folder: Path, **changes: Any) -> PhaseContext:
    config = tiny_runs.changed(tiny_runs.tiny_config(**RISK), changes)
    wide = factories.risk_config(stock_cap=1.0, sector_cap=1.0, min_cash=0.02)
    return tiny_runs.context_of(market, config.model_copy(update={"risk": wide}), folder)


def climb(task: Any, rate: float, steps: int) -> tuple[float, float]:
    """Return the validation loss before and after plain gradient descent on all rows."""
    before = task.validate()[0]
    optimiser = torch.optim.Adam([p for p in task.module.parameters() if p.requires_grad], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimiser.zero_grad()
        loss, _ = task.loss(task.train_rows, generator)
        loss.backward()
        optimiser.step()
    return before, task.validate()[0]


def test_the_macro_agent_leaves_the_wild_sector(tmp_path: Path) -> None:
    task = MacroGradient(context_of(calm_and_wild(), tmp_path))
    before, after = climb(task, 0.02, 40)
    assert after < before
    goal = task.validate()[1]
    # 1/N has a Herfindahl index of 0.5
    assert goal["val_goal_hhi"] > 0.55


def test_the_micro_agent_prefers_the_calm_stock_of_a_sector(tmp_path: Path) -> None:
    context = context_of(calm_and_wild(), tmp_path)
    nodes = context.with_market(tiny_runs.with_nodes(context.market, context.config))
    task = MicroGradient(nodes, MicroTask(nodes).agent)
    before, after = climb(task, 0.02, 40)
    assert after < before
    rows = task.validation_rows[:1]
    _, scores = task._two_sessions(rows, torch.zeros(1, 2))
    first, second, third, fourth = scores[0].tolist()
    assert first > second
    assert third > fourth


def index_of(context: PhaseContext, held: torch.Tensor, **more: torch.Tensor) -> dict:
    """Return observations of one day under B portfolios of which nothing else differs."""
    return {"day": torch.full((len(held), 1), 150), "portfolio": held, **more}


def test_what_the_gradient_teaches_does_not_depend_on_what_is_held(tmp_path: Path) -> None:
    # a network that sees its first, unpaid decision moves there and holds: see the module
    context = context_of(calm_and_wild(), tmp_path)
    context = context.with_market(tiny_runs.with_nodes(context.market, context.config))
    macro, micro = MacroGradient(context), MicroGradient(context, MicroTask(context).agent)
    drawn = torch.Generator().manual_seed(3)
    for task, width in ((macro, 2 + len(MACRO_SCALARS)), (micro, 4 + len(MICRO_SCALARS))):
        climb(task, 0.02, 10)
        held = torch.rand(16, width, generator=drawn)
        held[:, -len(MICRO_SCALARS) :] *= torch.tensor([1.0, 0.2, 0.0, 1.0])
        goals = torch.tensor([0.3, 0.7, 0.1, 0.2, 0.5, 0.3]).expand(16, -1)
        index = index_of(context, held, desired_goal=goals)
        actor = task.agent.actor
        if task is macro:
            decided = actor(macro_inputs(task.tensors, index)).shares.centre
        else:
            decided = actor(index)
        assert torch.equal(decided, decided[:1].expand_as(decided))
        assert (decided[0] - decided[0].mean()).abs().max() > 0.01


def test_the_untrained_agents_are_paid_as_the_classical_portfolio(tmp_path: Path) -> None:
    market = calm_and_wild()
    task = MacroGradient(context_of(market, tmp_path))
    found = task.validate()[1]
    assert found["val_goal_cash"] == pytest.approx(0.1, abs=1e-5)
    assert found["val_goal_hhi"] == pytest.approx(0.5, abs=1e-5)


def test_the_gradient_is_that_of_finite_differences(tmp_path: Path) -> None:
    task = MacroGradient(context_of(calm_and_wild(), tmp_path))
    cash = task.agent.actor.cash
    assert cash is not None
    rows, generator = task.train_rows[:8], torch.Generator()
    loss, _ = task.loss(rows, generator)
    loss.backward()
    exact = float(cash.bias.grad)
    losses = []
    for change in (-0.05, 0.05):
        with torch.no_grad():
            cash.bias += change
            losses.append(float(task.loss(rows, generator)[0]))
            cash.bias -= change
    assert exact == pytest.approx((losses[1] - losses[0]) / 0.1, rel=0.05)


def test_rows_keep_their_week_before_and_after_inside_the_span(tmp_path: Path) -> None:
    market = calm_and_wild()
    task = MacroGradient(context_of(market, tmp_path))
    ends = np.flatnonzero(market.is_week_end)
    for rows, span in (
        (task.train_rows, market.split.train),
        (task.validation_rows, market.split.validation),
    ):
        place = np.searchsorted(ends, rows.numpy())
        assert (ends[place] == rows.numpy()).all()
        assert (ends[place - 1] >= span.start).all()
        assert (ends[place + 1] < span.stop).all()
