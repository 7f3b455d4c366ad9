"""What a trial of tuning trains: the phases on inner folds of training and validation together.

The test span of the market is not among them. Every trial is measured with the yardstick of the
experiment: its objective, over its classical rule. So a trial may change objective and risk model,
too, and gains nothing by making them easier.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import CertificationConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.errors import MarketError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.studies.summary import moments
from hrl_sarp.studies.walk_forward.cells import phase_name, trained_pairs
from hrl_sarp.training import make_context, run_phase
from hrl_sarp.training.certify import inner_market, inner_splits, require_room, shortened
from hrl_sarp.training.curriculum import phase_seconds
from hrl_sarp.training.phase import PhaseContext
from hrl_sarp.training.selection.validation import daily_objective

STREAM = 7
"""Number of the stream of seeds, after that of certification."""
THREADS = 1
"""CPU threads of a training: several trials run side by side."""


def tuning_splits(market: Market, config: RunConfig, settings: CertificationConfig) -> list[Split]:
    """Cut training and validation together into inner folds; nothing reaches past validation.

    Args:
        market: with its split.
        config: of the experiment.
        settings: folds and their shares.

    Returns:
        The folds, each with the sessions that evaluate as its test.

    Raises:
        MarketError: if the sessions are too few for the folds, or for an episode.
    """
    span = DayRange(market.split.train.start, market.split.validation.stop)
    try:
        splits = inner_splits(span, settings, config.data.purge_days)
        for split in splits:
            require_room(replace(market, split=split), config)
    except MarketError as error:
        told = str(error).replace("curriculum.certification", "inner folds of tuning")
        raise MarketError(told) from error
    return splits


def trial_seconds(market: Market, config: RunConfig, settings: CertificationConfig) -> float:
    """Return about how long a trial of all phases takes on one core.

    Args:
        market: with its split.
        config: of the experiment.
        settings: folds, seeds, phases and length of the inner trainings.

    Returns:
        Seconds of the trainings.
    """
    inner = shortened(config, config.seed, settings)
    return settings.seeds * sum(
        sum(list(phase_seconds(inner, split).values())[: settings.phases])
        for split in tuning_splits(market, config, settings)
    )


def lower_score(scores: Sequence[float]) -> float:
    """Compute what tuning maximises: the mean less one standard error.

    Args:
        scores: one for each inner training, at least two.

    Returns:
        The score, in their unit.

    Examples:
        >>> lower_score([1.0, 3.0])
        1.0
    """
    found = moments(scores)
    return found.mean - (found.standard_error or 0.0)


@dataclass(frozen=True)
class Yardstick:
    """What the trials of a fold are measured with: the experiment's objective and its rule."""

    tensors: MarketTensors
    config: RunConfig
    span: DayRange
    rule: Float[np.ndarray, " T"]
    """Objective of the rule in each session, % a day."""

    @classmethod
    def of(cls, market: Market, config: RunConfig, split: Split) -> "Yardstick":
        """Roll the rule out over the sessions that evaluate."""
        tensors = MarketTensors(inner_market(market, split, config), torch.float32, "cpu")
        pair = ClassicalGoal(tensors), FollowGoal(tensors, config.risk)
        rule = HierarchicalPolicy("rule", *pair)
        earned = daily_objective(tensors, config, [rule], split.test)
        return cls(tensors, config, split.test, earned[0])

    def score(self, context: PhaseContext, number: int) -> float:
        """Return the objective of a phase's agents over the rule, % a year."""
        pair = trained_pairs(context)[phase_name(number)]
        policy = HierarchicalPolicy("trial", *pair)
        measured = self.tensors, self.config
        (earned,) = daily_objective(context.tensors, context.config, [policy], self.span, measured)
        return float((earned - self.rule).mean()) * self.tensors.market.sessions.year


@dataclass(frozen=True)
class InnerTrainings:
    """The trainings of one trial; they go on where a killed process left them."""

    market: Market
    base: RunConfig
    """Of the experiment."""
    config: RunConfig
    """Of the trial."""
    settings: CertificationConfig
    folder: Path

    def scores_by_phase(self) -> Iterator[tuple[int, list[float]]]:
        """Run the phases in their order, each for all folds and seeds.

        Yields:
            Number of the phase, and the score of each training after it, % a year.
        """
        stop = StopFlag()
        with stop:
            places = list(self._places(stop))
            for number in range(1, self.settings.phases + 1):
                scores = []
                for context, yardstick in places:
                    run_phase(number, context)
                    scores.append(yardstick.score(context, number))
                yield number, scores

    def _places(self, stop: StopFlag) -> Iterator[tuple[PhaseContext, Yardstick]]:
        splits = tuning_splits(self.market, self.base, self.settings)
        single = self.config.model_copy(update={"threads": THREADS})
        for fold, split in enumerate(splits):
            yardstick = Yardstick.of(self.market, self.base, split)
            market, cpu = inner_market(self.market, split, self.config), torch.device("cpu")
            whole = make_context(self.config, market, self.folder, cpu, stop, resume=True)
            for draw in range(self.settings.seeds):
                seed = derive_seed(self.base.seed, STREAM, draw)
                config = shortened(single, seed, self.settings)
                folder = self.folder / f"fold_{fold}_seed_{draw}"
                yield replace(whole, config=config, log_dir=folder), yardstick
