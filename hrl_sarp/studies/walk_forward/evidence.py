"""What the growth of an agent over a reference is worth, and what a search over variants is worth.

Comparisons of `verdicts.py` tell how large differences are. This module tells how sure they are: by
dates and seeds, fold by fold, against the luck of all configurations that were tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.statistics import BootstrapPlan, Interval, Share, Trials, Verdict
from hrl_sarp.metrics import without_rounding
from hrl_sarp.run.trials import Trial, distinct
from hrl_sarp.studies.walk_forward.cells import PRIOR, SAME_EXPOSURE
from hrl_sarp.studies.walk_forward.chain import Chain, Series
from hrl_sarp.studies.walk_forward.verdicts import BEST_BEFORE, best_before

MARGIN = 0.5
"""Loss of growth, % a year, below which a policy counts as not worse."""
NOISE_STUDIES, PLANTED_STUDIES = 200, 20
"""Drawn histories without and with an effect that the verdict is tried on."""
PLANTED = 1.5
"""Size of the planted effect, in smallest detectable ones."""


@dataclass(frozen=True)
class Evidence:
    """The growth of one agent over one reference in one market; percent a year where not said.

    Examples:
        >>> from inspect import signature
        >>> list(signature(Evidence).parameters)[:3]
        ['verdict', 'growth', 'block_days']
    """

    verdict: Verdict
    """By `growth` alone, with `MARGIN`."""
    growth: Interval
    """Of the ensemble, over resampled dates."""
    block_days: float
    """Mean block of the resampled dates, by the optimal rule."""
    one_seed: Interval
    """Mean over the seeds, over resampled dates and seeds."""
    newey_west_t: float
    """Of the ensemble: a check without resampling."""
    smallest_detectable: float
    """Difference that this many sessions find with 80 % power."""
    fold_differences: dict[str, float]
    """Fold -> difference of the ensemble."""
    sign_p: float
    """P value of the signs of the folds."""
    interquartile_mean: Interval
    """Over folds and seeds, over resampled dates and seeds."""
    improvement: Interval
    """Probability that a seed grows more than the reference in a fold drawn at random."""
    deflated_sharpe: float
    """Probability that the active Sharpe ratio of the ensemble exceeds the luck of all trials."""
    trials: int
    """Configurations that it is deflated by."""
    noise: Share
    """Of `NOISE_STUDIES` histories without any effect: how many the verdict calls better."""
    planted: Share
    """Of `PLANTED_STUDIES` histories with `planted_effect`: how many the verdict calls better."""
    planted_effect: float

    @property
    def worst_fold(self) -> str:
        """Name of the fold with the lowest difference."""
        return min(self.fold_differences, key=lambda name: self.fold_differences[name])


@dataclass(frozen=True)
class Search:
    """What the best of all configurations of a study is worth in one market, against 1/N.

    Examples:
        >>> Search(("risk, phase 1",), None, None, ()).overfitting is None
        True
    """

    configurations: tuple[str, ...]
    """Ensembles of all variants and phases that cover the same folds."""
    overfitting: float | None
    """Probability that the best Sharpe ratio of one half of the sessions is below the median in the
    other; None for fewer configurations than `statistics.FEWEST_CONFIGURATIONS`."""
    p_value: float | None
    """Of the test for superior predictive ability; None for a single configuration."""
    superior: tuple[str, ...]
    """Those that grow more than 1/N, at 5 % over all of them together."""


def evidence_of(chain: Chain, agent: str, config: RunConfig, n_tried: int) -> dict[str, Evidence]:
    """Weigh the growth of the agent over 1/N and over the best classical policy of earlier folds.

    Args:
        chain: of one market and variant.
        agent: the pair whose ensemble is the agent.
        config: with the samples, the confidence and the seed of the resampling.
        n_tried: configurations that were tried, of `configurations_tried`.

    Returns:
        Title of the reference -> evidence.
    """
    references = {
        EQUAL_WEIGHT: chain.baseline(EQUAL_WEIGHT),
        BEST_BEFORE: chain.chosen(best_before(chain)),
    }
    return {
        title: _weighed(chain, agent, reference, config, n_tried)
        for title, reference in references.items()
    }


def _weighed(
    chain: Chain, agent: str, reference: Series, config: RunConfig, n_tried: int
) -> Evidence:
    section, whole, year = config.walk_forward, chain.ensemble(agent), chain.sessions_per_year
    by_seed = _gain(chain.by_seed(agent), reference)
    gain = _gain(whole, reference)[:, 0]
    block_days = statistics.optimal_block_days(gain)
    plan = BootstrapPlan(block_days, section.samples, section.confidence, config.seed)
    counts, rng = plan.counts(len(gain)), np.random.default_rng([config.seed, len(gain), 1])
    means = statistics.bootstrap_annual_mean(gain[:, None], counts, year)[:, 0]
    growth = statistics.interval(year * float(gain.mean()), means, section.confidence)
    seeds = statistics.bootstrap_dates_and_seeds(by_seed.T, counts, year, rng)
    inside = [whole.fold == number for number in range(len(chain.folds))]
    drawn = statistics.fold_counts([int(i.sum()) for i in inside], block_days, section.samples, rng)
    scores = statistics.fold_scores([by_seed[rows] for rows in inside], drawn, year)
    scores[1:] = statistics.redraw_seeds(scores[1:], rng)
    middle = statistics.bootstrap_interquartile_mean(scores)
    better = statistics.probability_of_improvement(scores, np.zeros_like(scores[..., :1]))
    differences = {
        fold.name: year * float(gain[rows].mean())
        for fold, rows in zip(chain.folds, inside, strict=True)
    }
    active = without_rounding(whole.net - reference.net)[:, 0]
    trials = trials_of(chain, reference, n_tried)
    detectable = statistics.smallest_detectable_effect(year * statistics.newey_west_error(gain))
    noise, planted = (
        statistics.share_called_better(gain, effect, n_studies, plan, year, MARGIN)
        for effect, n_studies in (
            (0.0, NOISE_STUDIES),
            (PLANTED * detectable, PLANTED_STUDIES),
        )
    )
    return Evidence(
        verdict=statistics.verdict(growth, MARGIN),
        growth=growth,
        block_days=block_days,
        one_seed=statistics.interval(year * float(by_seed.mean()), seeds, section.confidence),
        newey_west_t=statistics.newey_west_t(gain),
        smallest_detectable=detectable,
        fold_differences=differences,
        sign_p=statistics.sign_test(np.array(list(differences.values()))),
        interquartile_mean=statistics.interval(float(middle[0]), middle[1:], section.confidence),
        improvement=statistics.interval(float(better[0]), better[1:], section.confidence),
        deflated_sharpe=statistics.deflated_sharpe_ratio(
            statistics.active_appraisal(active), trials
        ),
        trials=trials.count,
        noise=noise,
        planted=planted,
        planted_effect=PLANTED * detectable,
    )


def _gain(series: Series, reference: Series) -> Float[np.ndarray, "D K"]:
    """Return the log growth of each session over a reference of one column, in percent."""
    return 100 * without_rounding(np.log1p(series.net) - np.log1p(reference.net))


def trials_of(chain: Chain, reference: Series, n_tried: int) -> Trials:
    """Return the active Sharpe ratios of all trained policies of a chain, and how many were tried.

    Args:
        chain: of one market and variant.
        reference: that all are compared with.
        n_tried: of `configurations_tried`.

    Returns:
        Trials with ratios per session.
    """
    names = _trained(chain)
    columns = np.concatenate(
        [chain.by_seed(name).net for name in names] + [chain.ensemble(name).net for name in names],
        axis=1,
    )
    active = without_rounding(columns - reference.net)
    ratios = tuple(statistics.active_appraisal(column).ratio for column in active.T)
    return Trials(n_tried, ratios)


def configurations_tried(chains: Mapping[str, Chain], log: Sequence[Trial]) -> int:
    """Count the configurations that were tried on the sessions of a market.

    A configuration of the study was tried on every fold, so it counts once: the fold on which most
    were tried counts. Other commands that looked at its sessions are counted, and tuning on any
    sessions of the market is; baselines are not.

    Args:
        chains: variant -> chain of the market.
        log: all trials of a log.

    Returns:
        Their number by the log, at least that of the trained policies of the chains.
    """
    counts = [sum(len(_trained(each)) * (len(each.seeds[0]) + 1) for each in chains.values())]
    names = {fold.name for each in chains.values() for fold in each.folds}
    seen = {(trial.market, trial.span) for trial in log if trial.span.name in names}
    for market, span in seen:
        own = [each for each in log if each.market == market and each.bears_on(span)]
        counts.append(len(distinct(each for each in own if each.kind != "baseline")))
    return max(counts)


def search_of(chains: Mapping[str, Chain], config: RunConfig) -> Search:
    """Weigh the best of all configurations of a study in one market.

    Args:
        chains: variant -> chain of the market. Variants that lack folds of the longest are left
            out, because configurations are compared on the same sessions.
        config: with the samples and the seed of the resampling.

    Returns:
        The configurations, and what their best is worth.
    """
    longest = max(chains.values(), key=lambda chain: len(chain.folds))
    even = longest.baseline(EQUAL_WEIGHT)
    nets = {
        f"{variant}, {name}": chain.ensemble(name).net[:, 0]
        for variant, chain in chains.items()
        if chain.folds == longest.folds
        for name in _trained(chain)
    }
    names, table = tuple(nets), np.stack(list(nets.values()), axis=1)
    if len(names) < 2:
        return Search(names, None, None, ())
    excess = without_rounding(table - even.risk_free[:, None])
    growth, base = np.log1p(table), np.log1p(even.net[:, 0])
    # one block for all, long enough for the policy whose sessions depend on each other most
    gains = without_rounding(growth - base[:, None])
    block = round(max(statistics.optimal_block_days(gain) for gain in gains.T))
    arguments = (base, base[:, None] + gains, block, config.walk_forward.samples, config.seed)
    is_enough = len(names) >= statistics.FEWEST_CONFIGURATIONS
    return Search(
        configurations=names,
        overfitting=statistics.probability_of_overfitting(excess) if is_enough else None,
        p_value=statistics.superior_predictive_ability(*arguments),
        superior=tuple(names[place] for place in statistics.superior_policies(*arguments)),
    )


def _trained(chain: Chain) -> list[str]:
    """Name the policies of a chain that training made; the others were fixed before any span."""
    return [name for name in chain.seeds[0][0].names if name not in (PRIOR, SAME_EXPOSURE)]
