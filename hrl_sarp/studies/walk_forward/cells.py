"""The cells of a walk-forward: baselines, trained seeds, and the ensembles that read both."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    mixed_pair,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy, Policy
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT, make_baselines, make_constant_exposure
from hrl_sarp.evaluation.statistics import appraise
from hrl_sarp.evaluation.trials import APPRAISAL, DIGITS
from hrl_sarp.market.cache import SAMPLE, assembled_market, bundled_sample, market_key
from hrl_sarp.observed.stocks import (
    NO,
    observed_words,
    require_sources,
    sources_key,
    with_stock_embeddings,
)
from hrl_sarp.run.files import remove_unfinished, sha256_plain, source_hash
from hrl_sarp.run.session import StopFlag, configure_logging, configure_threads
from hrl_sarp.run.trials import Kind, Span, Trial, TrialLog, prices_hash
from hrl_sarp.studies.cell import Cell, has_result, reason_of
from hrl_sarp.studies.grid import Results, run_grid
from hrl_sarp.studies.walk_forward.folds import Fold, Recipe
from hrl_sarp.studies.walk_forward.ledger import Ledger, joined, read_ledger, roll_out, write_ledger
from hrl_sarp.studies.walk_forward.risk_seen import volatility_skill
from hrl_sarp.studies.workers import Workers
from hrl_sarp.training import make_context
from hrl_sarp.training.curriculum import run_phase
from hrl_sarp.training.phase import PhaseContext, with_sector_table

BASELINES, ENSEMBLE = "baselines", "ensemble"
PRIOR, MACRO_ALONE, MICRO_ALONE = "prior", "macro alone", "micro alone"
RULES = (EQUAL_WEIGHT, PRIOR, MACRO_ALONE)
"""Rules that an agent may have become: 1/N, the classical prior, and its own goal with the prior
inside the sectors (`MACRO_ALONE` follows it)."""
SAME_EXPOSURE = "1/N, same exposure"
"""1/N at the mean exposure of the last phase's ensemble in the fold."""


VOLATILITY = "volatility"
"""Entry of the measures of an ensemble: of `volatility_skill`."""


def phase_name(number: int) -> str:
    """Name the pair of agents that a phase leaves."""
    return f"phase {number}"


@dataclass(frozen=True)
class WalkForward:
    """A study of folds, variants and seeds; see `grid.Study`.

    Examples:
        >>> fold = Fold("us", 2005, 2007)
        >>> recipe = Recipe(None, {}, {"risk": None}, (1, 2), {})
        >>> folder = Path("logs/walk_forward")
        >>> study = WalkForward(recipe, {"us": None}, folder, {fold.name: fold}, (4,))
        >>> [cell.name for cell in study.cells()]
        ['us-2005-2007-baselines-0', 'us-2005-2007-risk-4', 'us-2005-2007-risk-ensemble-0']
    """

    recipe: Recipe
    data_dirs: Mapping[str, Path | None]
    """Market -> its collected data; None for the bundled sample."""
    folder: Path
    folds: Mapping[str, Fold]
    """Name -> fold, over all markets."""
    seeds: tuple[int, ...]
    title: str = "walk-forward"

    @staticmethod
    def baselines(fold: Fold) -> Cell:
        """Name the cell of the baselines of a fold.

        Args:
            fold: of the study.

        Returns:
            The cell, which all variants share.
        """
        return Cell(f"{fold.name}-{BASELINES}", 0)

    def trained(self, fold: Fold, variant: str) -> list[Cell]:
        """Name the cells that train.

        Args:
            fold: of the study.
            variant: of the recipe.

        Returns:
            One for each seed.
        """
        return [Cell(f"{fold.name}-{variant}", seed) for seed in self.seeds]

    @staticmethod
    def ensemble(fold: Fold, variant: str) -> Cell:
        """Name the cell in which the seeds decide together.

        Args:
            fold: of the study.
            variant: of the recipe.

        Returns:
            The cell.
        """
        return Cell(f"{fold.name}-{variant}-{ENSEMBLE}", 0)

    def cells(self) -> list[Cell]:
        """List all cells.

        Returns:
            Baselines, trainings and ensembles. A seed of all folds stands before the next seed, so
            that cells that run together differ in their market.
        """
        folds, variants = self.folds.values(), self.recipe.variants
        places = [(fold, variant) for fold in folds for variant in variants]
        trained = [self.trained(*place) for place in places]
        return [
            *(self.baselines(fold) for fold in folds),
            *(cells[i] for i in range(len(self.seeds)) for cells in trained),
            *(self.ensemble(*place) for place in places),
        ]

    def needs(self, cell: Cell) -> list[Cell]:
        """List the cells whose results a cell reads.

        Args:
            cell: of this study.

        Returns:
            The baselines of its fold; for an ensemble its seeds, too.
        """
        fold, variant = self._place(cell)
        if cell == self.baselines(fold):
            return []
        seeds = self.trained(fold, variant) if cell == self.ensemble(fold, variant) else []
        return [self.baselines(fold), *seeds]

    def run_all(
        self, jobs: int, workers: Workers | None = None, *, in_process: bool = False
    ) -> Results:
        """Run what has not finished; the same call after a stop or a kill goes on.

        Args:
            jobs: cells at a time.
            workers: run the cells; None takes processes of this machine.
            in_process: run one cell after another in this process instead.

        Returns:
            What the cells came to, and why some have failed.
        """
        return run_grid(
            self, self.cells(), jobs, needs=self.needs, workers=workers, in_process=in_process
        )

    def missing(self) -> dict[str, str]:
        """Say which cells have not finished.

        Returns:
            Name of a cell -> why it failed, or that it has not run.
        """
        cells = [cell for cell in self.cells() if not has_result(self, cell)]
        return {cell.name: reason_of(self, cell) for cell in cells}

    def require_startable(self) -> None:
        """Refuse what no cell could run with, before the first one starts.

        The configuration of every market and variant is read for the first fold, which has the
        fewest years to train on, and so is the manifest of the data. What its agents observe has to
        be fitted on these years.
        """
        first: dict[str, Fold] = {}
        for fold in self.folds.values():
            first.setdefault(fold.market, fold)
        for fold in first.values():
            for variant in self.recipe.variants:
                self.identity(self.trained(fold, variant)[0])
                self._require_sources(fold, self.recipe.config(fold, variant, self.seeds[0]))

    def _require_sources(self, fold: Fold, config: RunConfig) -> None:
        """Refuse encoders and forecasters that are missing or have seen the future of a fold."""
        folder = self.data_dirs[fold.market]
        if observed_words(config) != NO and folder is not None:
            require_sources(assembled_market(folder, config), folder, config)

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return what a result depends on: configuration, data and the code of the market.

        Args:
            cell: of this study.

        Returns:
            Hashes by name, and the phases.
        """
        fold, variant = self._place(cell)
        seeds = self.seeds if cell == self.ensemble(fold, variant) else (cell.seed,)
        configs = {seed: self.recipe.config(fold, variant, seed) for seed in seeds}
        phases = [] if cell == self.baselines(fold) else list(self.recipe.phases)
        return {
            "config": {str(seed): config_hash(config) for seed, config in configs.items()},
            "market": self._market_key(fold, configs[seeds[0]]),
            "phases": phases,
        }

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Do the work of a cell from where it stands, and write its series.

        Args:
            cell: of this study.
            folder: of the cell.

        Returns:
            Mean exposure of every policy that was rolled out. An ensemble on collected data adds
            how well what its agents observe tells next week's volatility on validation.
        """
        fold, variant = self._place(cell)
        config = self.recipe.config(fold, variant, cell.seed)
        configure_threads(config.threads)
        remove_unfinished(folder)
        configure_logging(folder)
        market = self._market(fold, config)
        baselines = self.baselines(fold)
        if cell == baselines:
            ledger = self._roll_out(market, make_baselines(market, config), config)
        elif cell == self.ensemble(fold, variant):
            ledger = self._ensemble(fold, variant, market, config)
        else:
            pairs = trained_pairs(self._train(config, market, folder))
            policies = [HierarchicalPolicy(name, *pair) for name, pair in pairs.items()]
            ledger = self._roll_out(market, policies, config)
        seen = {}
        if cell == self.ensemble(fold, variant) and self.data_dirs[fold.market] is not None:
            seen[VOLATILITY] = volatility_skill(market)
        write_ledger(ledger, folder)
        reference = ledger if cell == baselines else read_ledger(self.folder / baselines.name)
        _record(
            ledger, reference, market, config, Span.of_rows(market, market.split.test, fold.name)
        )
        return {"mean_exposure": _mean_exposures(ledger), **seen}

    def _train(self, config: RunConfig, market: Market, folder: Path) -> PhaseContext:
        context = self._context(config, market, folder)
        with context.stop:
            for number in self.recipe.phases:
                run_phase(number, context)
        return context

    def _ensemble(self, fold: Fold, variant: str, market: Market, config: RunConfig) -> Ledger:
        """Roll out the mean decisions of all seeds, then 1/N at the exposure that they had."""
        by_seed = []
        for cell in self.trained(fold, variant):
            own = self.recipe.config(fold, variant, cell.seed)
            context = self._context(own, market, self.folder / cell.name)
            by_seed.append(trained_pairs(context))
        policies: list[Policy] = [
            HierarchicalPolicy(name, *mixed_pair([pairs[name] for pairs in by_seed]))
            for name in by_seed[0]
        ]
        ledger = self._roll_out(market, policies, config)
        share = _mean_exposures(ledger)[phase_name(self.recipe.phases[-1])]
        even = make_constant_exposure(config, share)
        even.name = SAME_EXPOSURE
        return joined(ledger, self._roll_out(market, [even], config))

    def _roll_out(self, market: Market, policies: Sequence[Policy], config: RunConfig) -> Ledger:
        """Roll out policies over the test, with 1/N beside them to be compared with."""
        names = [policy.name for policy in policies]
        even = make_baselines(market, config)[0]
        return roll_out(
            *(market, market.split.test, policies, config),
            impact_coefficient=self.recipe.impact_coefficient,
            rules=RULES,
            beside=() if even.name in names else (even,),
        )

    @staticmethod
    def _context(config: RunConfig, market: Market, folder: Path) -> PhaseContext:
        cpu = torch.device("cpu")
        return make_context(config, market, folder, cpu, StopFlag(), resume=True)

    def _place(self, cell: Cell) -> tuple[Fold, str]:
        """Return the fold of a cell, and the variant whose market and configuration it takes."""
        for name, fold in self.folds.items():
            if cell.setting.startswith(f"{name}-"):
                variant = cell.setting.removeprefix(f"{name}-").removesuffix(f"-{ENSEMBLE}")
                return fold, "risk" if variant == BASELINES else variant
        raise KeyError(cell.setting)

    def _market(self, fold: Fold, config: RunConfig) -> Market:
        folder = self.data_dirs[fold.market]
        if folder is None:
            return bundled_sample(config)
        market = assembled_market(folder, config)
        return with_stock_embeddings(market, folder, config, torch.device("cpu"))

    def _market_key(self, fold: Fold, config: RunConfig) -> str:
        folder = self.data_dirs[fold.market]
        if folder is None:
            return f"{SAMPLE}, {source_hash('data', 'features', 'market', 'risk')}"
        key = market_key(folder, config)
        # without any the key stays that of the market
        return key if observed_words(config) == NO else f"{key}, {sources_key(folder, config)}"


def trained_pairs(context: PhaseContext) -> dict[str, tuple[MacroPolicy, MicroPolicy]]:
    """Load the pair that each finished phase left, the classical prior, and each level alone.

    A level that a phase does not train is that of the phase before. Before phase 2 the micro level
    is the prior.
    """
    context = with_sector_table(context)
    prior = (
        ClassicalGoal(context.tensors),
        FollowGoal(context.tensors, context.config.risk),
    )
    macro: MacroPolicy = prior[0]
    micro: MicroPolicy = prior[1]
    pairs: dict[str, tuple[MacroPolicy, MicroPolicy]] = {PRIOR: prior}
    loaders = {
        1: (lambda: context.load_macro(1), None),
        2: (None, lambda: context.load_micro(2)),
        3: (lambda: context.load_macro(3), None),
        4: (None, lambda: context.load_micro(4)),
        5: (lambda: context.load_macro(5), lambda: context.load_micro(5, 1)),
    }
    for number, (load_macro, load_micro) in loaders.items():
        if not context.has(number):
            break
        macro = load_macro() if load_macro else macro
        micro = load_micro() if load_micro else micro
        pairs[phase_name(number)] = macro, micro
    pairs[MACRO_ALONE] = macro, prior[1]
    pairs[MICRO_ALONE] = prior[0], micro
    return pairs


def _mean_exposures(ledger: Ledger) -> dict[str, float]:
    """Return the mean share of wealth that each policy had in stocks."""
    return dict(zip(ledger.names, ledger.invested[0].mean(axis=0).tolist(), strict=True))


def _record(
    ledger: Ledger, reference: Ledger, market: Market, config: RunConfig, span: Span
) -> None:
    """Write every policy to the trial log, with its appraisal ratio against 1/N.

    A configuration is known by its name and its returns, as in a backtest.
    """
    excess = ledger.net_return[0] - ledger.risk_free[:, None]
    even = reference.net_return[0][:, reference.column(EQUAL_WEIGHT)] - reference.risk_free
    where, log = prices_hash(market), TrialLog()
    trials = []
    for i, (name, found) in enumerate(zip(ledger.names, appraise(excess, even), strict=True)):
        returns = np.round(ledger.net_return[0, :, i], DIGITS) + 0.0
        same = sha256_plain([name, hashlib.sha256(returns.tobytes()).hexdigest()])
        fixed = ledger is reference or name in (PRIOR, SAME_EXPOSURE)
        kind: Kind = "baseline" if fixed else "study"
        trials.append(Trial(kind, name, same, where, span, APPRAISAL, found.ratio, config.seed))
    log.add(*trials)
