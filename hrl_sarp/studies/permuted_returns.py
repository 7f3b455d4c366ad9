"""The control of `diagnose --permuted`: how much of an in-sample gain needs no signal.

The phases are trained twice over: on the true returns, and on returns whose days are shuffled in
blocks, while everything that agents see stays where it is. Shuffled returns cannot be foreseen. A
gain on them is memory, and a gain on true returns that is no larger is no evidence of more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.special import stdtrit

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, RiskTables, Split
from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.reporting.table import Table, number
from hrl_sarp.risk.tables import shares_inside_sectors
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.phases import PHASES
from hrl_sarp.studies.cell import Cell
from hrl_sarp.studies.grid import run_grid
from hrl_sarp.training import make_context, run_phase
from hrl_sarp.training.phase import PhaseContext

FOLDER, RESULT = "permuted", "gains.json"
"""Below the log folder of the run, and in it what the control came to."""
TRUE, PERMUTED = "true", "permuted"
TRAINED = (1, 2, 3)
"""Phases that are trained. Phase 4 costs more than all of them."""
COMMAND = "hrl-sarp diagnose --permuted"


@dataclass(frozen=True)
class InSampleGain:
    """What a phase gains over the classical rule on the days that it was trained on, % a year.

    Examples:
        >>> InSampleGain(8.0, (1.0, 1.5, 2.0)).exceeds_permuted(0.9)
        True
        >>> InSampleGain(1.9, (1.0, 1.5, 2.0)).exceeds_permuted(0.9)
        False
    """

    true: float
    permuted: tuple[float, ...]
    """One for each training on permuted returns."""

    def exceeds_permuted(self, confidence: float) -> bool:
        """Say whether another training on permuted returns would gain less.

        Args:
            confidence: of the one-sided prediction bound (Student's distribution).

        Returns:
            True if the gain on true returns is above the bound.
        """
        count = len(self.permuted)
        spread = float(np.std(self.permuted, ddof=1)) * math.sqrt(1 + 1 / count)
        bound = float(np.mean(self.permuted)) + stdtrit(count - 1, confidence) * spread
        return bool(self.true > bound)


def permuted_market(market: Market, block_days: int, rng: np.random.Generator) -> Market:
    """Shuffle the training span in blocks of days, but for what agents see.

    Returns move, and with them the classical portfolios, so that the rule that agents are compared
    with is as good as before. Features, risk inputs and the universe stay where they are. A stock
    without a bar on its new day earns nothing.

    Args:
        market: with a split.
        block_days: sessions that stay together.
        rng: draws the order of the blocks.

    Returns:
        A market of the same columns; rows outside the training span are unchanged.
    """
    rows, span = np.arange(market.n_days), market.split.train
    blocks = np.split(rows[span.start : span.stop], range(block_days, len(span), block_days))
    order = rng.permutation(len(blocks))
    rows[span.start : span.stop] = np.concatenate([blocks[i] for i in order])
    return replace(
        market,
        overnight_return=np.where(market.tradable, market.overnight_return[rows], 0.0),
        intraday_return=np.where(market.tradable, market.intraday_return[rows], 0.0),
        benchmark_return=market.benchmark_return[rows],
        risk_free=market.risk_free[rows],
        risk=None if market.risk is None else _moved(market.risk, market, rows),
    )


def _moved(risk: RiskTables, market: Market, rows: Int[np.ndarray, " T"]) -> RiskTables:
    """Move the classical portfolios of other days into the slots of each day."""
    filled = market.slots >= 0
    day, slot = np.nonzero(filled)
    per_sector = market.n_slots // market.n_sectors
    whole = np.repeat(risk.sector_prior, per_sector, axis=1) * risk.stock_prior
    of_stocks = np.zeros((market.n_days, market.n_assets))
    of_stocks[day, market.slots[day, slot]] = whole[day, slot]
    weights = np.zeros(market.slots.shape)
    weights[day, slot] = of_stocks[rows[day], market.slots[day, slot]]
    total = weights.sum(axis=1, keepdims=True)
    even = filled / np.maximum(filled.sum(axis=1, keepdims=True), 1)
    weights = np.divide(weights, total, out=even, where=total > 0)
    return replace(
        risk,
        sector_prior=weights.reshape(market.n_days, market.n_sectors, -1).sum(axis=2),
        stock_prior=shares_inside_sectors(weights, filled, market),
        prior_exposure=risk.prior_exposure[rows],
        normal_variance=risk.normal_variance[rows],
    )


@dataclass(frozen=True)
class PermutedReturns:
    """The trainings of the control, as a study: one on true returns, the others on permuted ones.

    Costs are left out, because a portfolio whose days are shuffled trades at each border of a
    block. Every choice of a phase is made on the training span, so that gains are in sample.
    """

    context: PhaseContext
    phases: Sequence[int] = TRAINED
    title: str = "permuted returns"

    @property
    def folder(self) -> Path:
        """Return the folder of the control, below that of the run."""
        return self.context.log_dir / FOLDER

    @property
    def cells(self) -> list[Cell]:
        """Return the training on true returns, then those on permuted ones."""
        count = self.context.config.evaluation.permuted_runs
        return [Cell(TRUE, 0), *(Cell(PERMUTED, number) for number in range(count))]

    def identity(self, cell: Cell) -> Mapping[str, Any]:
        """Return what a result depends on."""
        return {**self.context.run_identity(), "phases": list(self.phases)}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train the phases and return the gain after each, % a year."""
        market, config = self.context.market, _without_costs(self.context.config)
        if cell.setting == PERMUTED:
            rng = np.random.default_rng([config.seed, cell.seed])
            market = permuted_market(market, config.evaluation.permuted_block_days, rng)
        train = market.split.train
        market = replace(market, split=Split(train, train, market.split.test))
        device, stop = self.context.tensors.device, self.context.stop
        context = make_context(config, market, folder, device, stop, resume=True)
        return {f"phase {number}": in_sample_gain(context, number) for number in self.phases}


def in_sample_gain(context: PhaseContext, number: int) -> float:
    """Train a phase and return the best objective that it evaluated, over that of the rule."""
    found = run_phase(number, context).summary
    if "temperatures" in found:
        return max(found["temperatures"].values())
    gains = [row["mean_pct"] for row in (found["acceptance"] or {"evidence": []})["evidence"]]
    return float(found["first"]["objective_pct"]) + max(gains, default=0.0)


def _without_costs(config: RunConfig) -> RunConfig:
    profile = config.market_profile
    rates = ("buy_bps", "sell_bps", "slippage_bps", "impact_coefficient")
    free = profile.costs.model_copy(update=dict.fromkeys(rates, 0.0))
    return config.model_copy(update={"market_profile": profile.model_copy(update={"costs": free})})


def run_control(context: PhaseContext, phases: Sequence[int] = TRAINED) -> dict[str, InSampleGain]:
    """Train on true and on permuted returns, and write what it came to; finished ones are kept.

    Args:
        context: of a run; the control gets a folder of its own in the run's.
        phases: to train, in order.

    Returns:
        Name of a phase -> its gains.

    Raises:
        MissingArtifactError: if a training failed, with its reason.
        CheckpointError: if finished trainings are of another configuration or other data.
    """
    study = PermutedReturns(context, phases)
    results = run_grid(study, study.cells, in_process=True)
    for cell, reason in results.failed.items():
        raise MissingArtifactError(f"{study.folder / cell.name} did not finish: {reason}")
    gains = {
        name: InSampleGain(
            results.by_seed(TRUE, name)[0], tuple(results.by_seed(PERMUTED, name).values())
        )
        for name in (f"phase {number}" for number in phases)
    }
    content = {
        name: {TRUE: gain.true, PERMUTED: list(gain.permuted)} for name, gain in gains.items()
    }
    write_json(study.folder / RESULT, {**context.run_identity(), "gains": content})
    return gains


def stored_control(log_dir: Path) -> dict[str, InSampleGain] | None:
    """Return what an earlier control of the run came to; None without one.

    One of another configuration, of other data or of another seed than the run's is none.
    """
    path, first = log_dir / FOLDER / RESULT, log_dir / PHASES[0].folder / PHASES[0].metrics
    if not path.is_file() or not first.is_file():
        return None
    found, run = read_json(path, COMMAND), read_json(first, "hrl-sarp train --phase 1")
    if any(found[name] != run[name] for name in ("config_hash", "market", "seed")):
        return None
    return {
        name: InSampleGain(values[TRUE], tuple(values[PERMUTED]))
        for name, values in found["gains"].items()
    }


def control_table(gains: Mapping[str, InSampleGain], confidence: float) -> Table:
    """Lay out the gains on true and on permuted returns.

    Args:
        gains: by the name of the phase.
        confidence: of the bound that a gain on true returns must exceed.

    Returns:
        A table with one row a phase.
    """
    rows = [
        (
            name,
            f"{number(gain.true)} / {number(float(np.mean(gain.permuted)))}",
            f"{number(min(gain.permuted))} to {number(max(gain.permuted))}",
            "yes" if gain.exceeds_permuted(confidence) else "no",
        )
        for name, gain in gains.items()
    ]
    note = (
        "Best objective over the classical rule on the training span, % a year before costs. A "
        "phase starts from those before it. Permuted returns hold nothing to foresee."
    )
    header = ("phase", "in-sample gain, true / permuted", "permuted, all", "told apart")
    return Table("Permuted returns", header, rows, note, text_columns=frozenset({0, 3}))


def control_sentence(gains: Mapping[str, InSampleGain], confidence: float) -> str:
    """Say which training curves are no evidence.

    Args:
        gains: by the name of the phase.
        confidence: of the bound that a gain on true returns must exceed.

    Returns:
        One or two sentences.
    """
    alike = [name for name, gain in gains.items() if not gain.exceeds_permuted(confidence)]
    if not alike:
        return (
            "Every phase gains more with true returns than with permuted ones: there is a signal."
        )
    return (
        f"In sample, true and permuted returns cannot be told apart in {', '.join(alike)}: a gain "
        "on the training span needs no signal there, and a rising training curve is no evidence."
    )
