"""What the out-of-sample series show: comparisons, what each phase adds, lines met or missed."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import WalkForwardConfig
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.studies.walk_forward.cells import (
    MACRO_ALONE,
    MICRO_ALONE,
    PRIOR,
    SAME_EXPOSURE,
    phase_name,
)
from hrl_sarp.studies.walk_forward.chain import Chain, Series, at_exposure_of, on_path_of
from hrl_sarp.studies.walk_forward.ledger import DOUBLE, FRICTIONS, LATE, MAIN
from hrl_sarp.studies.walk_forward.measures import (
    MEASURES,
    POOLED,
    Differences,
    Draws,
    Estimate,
    compare,
    points,
)

COMPARED = (
    "growth",
    "log_volatility",
    "sharpe",
    "ce3",
    "ce5",
    "ce10",
    "max_drawdown",
    "cvar95",
    "turnover",
)
STEPS = ("log_volatility", "sharpe", "ce5", "growth", "turnover")
SURE, LIKELY = 0.99, 0.95
"""Probabilities that the first line and that of the prior ask for."""
LOWER_VOLATILITY = 100 * float(np.log(0.85))
"""15 % lower, as a difference of 100 ln volatility; the first line asks it of `STRICT`."""
STRICT = "us"
LOWER_YEARS = 13 / 15
LEAST_GROWTH, LEAST_SHARPE, LEAST_CE5 = -1.5, -0.10, -2.0
Chains = Mapping[str, Chain]
"""Market -> chain."""


@dataclass(frozen=True)
class Line:
    """One line of what must be shown."""

    text: str
    found: str
    is_met: bool


@dataclass(frozen=True)
class Verdicts:
    """Everything that the tables of one variant state."""

    variant: str
    agent: str
    """Name of the last phase's pair; its ensemble is the agent."""
    policies: dict[str, dict[str, dict[str, float]]]
    """Market -> policy -> measure -> value."""
    comparisons: dict[str, Differences]
    """Title -> differences of the agent."""
    steps: dict[str, Differences]
    """What each phase adds to the one before, at equal exposure."""
    years: dict[str, dict[int, float]]
    """Market -> year -> difference of 100 ln volatility to 1/N at the same exposure."""
    path_years: dict[str, dict[int, float]]
    """The same to 1/N on the same path of exposure, where the timing of cash counts for nothing."""
    folds: dict[str, dict[str, Differences]]
    """Market -> fold -> differences to 1/N at the same exposure."""
    growth: dict[str, dict[str, dict[str, float]]]
    """Market -> policy -> friction that all cells have -> growth, % a year."""
    distance: dict[str, dict[str, float]]
    """Market -> rule -> mean share of wealth that the agent holds elsewhere; empty where a cell did
    not keep it."""
    same_rule_distance: float
    """Up to this distance an agent has become a rule."""
    lines: list[Line]


def draws_of(chains: Chains, config: RunConfig) -> Draws:
    """Resample the calendar of all markets together."""
    section = config.walk_forward
    dates = np.unique(
        np.concatenate([each.baseline(EQUAL_WEIGHT).dates for each in chains.values()])
    )
    return Draws.of(dates, section.block_days, section.samples, config.seed)


def verdicts_of(
    variant: str, chains: Chains, phases: tuple[int, ...], config: RunConfig
) -> Verdicts:
    """Compare the ensemble of the last phase with everything that the study asks for."""
    section, draws, agent = config.walk_forward, draws_of(chains, config), phase_name(phases[-1])
    found = {
        friction: comparisons_of(chains, agent, friction, draws, section.confidence)
        for friction in FRICTIONS
        if all(friction in chain.frictions for chain in chains.values())
    }
    comparisons = {
        title if friction == MAIN else f"{title}, {friction}": differences
        for friction, by_title in found.items()
        for title, differences in by_title.items()
    }
    own = {market: chain.ensemble(agent) for market, chain in chains.items()}
    years = {m: lower_by_year(own[m], chain.ensemble(SAME_EXPOSURE)) for m, chain in chains.items()}
    path_years = {
        m: lower_by_year(own[m], on_path_of(chain.baseline(EQUAL_WEIGHT), own[m]))
        for m, chain in chains.items()
    }
    return Verdicts(
        variant=variant,
        agent=agent,
        policies={market: rows_of(chain) for market, chain in chains.items()},
        comparisons=comparisons,
        steps=steps_of(chains, phases, draws, section.confidence),
        years=years,
        path_years=path_years,
        folds={
            market: by_fold(market, chain, agent, section, config)
            for market, chain in chains.items()
        },
        growth={market: growth_of(chain, agent) for market, chain in chains.items()},
        distance={market: chain.distance(agent) for market, chain in chains.items()},
        same_rule_distance=config.evaluation.same_rule_distance,
        lines=lines_of(found, years),
    )


def growth_of(chain: Chain, agent: str) -> dict[str, dict[str, float]]:
    """Measure what the agent and the references grow under each friction of a market."""
    found: dict[str, dict[str, float]] = {}
    for friction in chain.frictions:
        series = {
            f"{agent}, ensemble": chain.ensemble(agent, friction),
            PRIOR: chain.ensemble(PRIOR, friction),
            SAME_EXPOSURE: chain.ensemble(SAME_EXPOSURE, friction),
            EQUAL_WEIGHT: chain.baseline(EQUAL_WEIGHT, friction),
        }
        for name, each in series.items():
            found.setdefault(name, {})[friction] = points(each, ("growth",))["growth"]
    return found


AT_SAME = "1/N at the same exposure"
BEST_BEFORE = "best classical of the folds before"
BEST_EVER = "best classical in hindsight"
PRIOR_AT_SAME = "prior at the same exposure"
ON_PATH = "1/N on the same path of exposure"
PRIOR_ON_PATH = "prior on the same path of exposure"


def comparisons_of(
    chains: Chains, agent: str, friction: str, draws: Draws, confidence: float
) -> dict[str, Differences]:
    """Compare the agent with each reference under one friction."""
    own = {market: chain.ensemble(agent, friction) for market, chain in chains.items()}

    even = {market: chain.baseline(EQUAL_WEIGHT, friction) for market, chain in chains.items()}
    prior = {market: chain.ensemble(PRIOR, friction) for market, chain in chains.items()}
    references = {
        EQUAL_WEIGHT: even,
        AT_SAME: {m: chain.ensemble(SAME_EXPOSURE, friction) for m, chain in chains.items()},
        ON_PATH: {m: on_path_of(even[m], own[m]) for m in chains},
        PRIOR: prior,
        PRIOR_AT_SAME: {m: at_exposure_of(prior[m], own[m]) for m in chains},
        PRIOR_ON_PATH: {m: on_path_of(prior[m], own[m]) for m in chains},
        BEST_BEFORE: {m: chain.chosen(best_before(chain), friction) for m, chain in chains.items()},
        BEST_EVER: {m: chain.chosen(best_ever(chain), friction) for m, chain in chains.items()},
    }
    return {
        title: compare(own, reference, COMPARED, draws, confidence)
        for title, reference in references.items()
    }


def over_first(
    chains: Mapping[str, Chains], phases: tuple[int, ...], config: RunConfig
) -> dict[str, Differences]:
    """Compare the agents of each variant with those of the first one, seed by seed.

    The first variant's are held at the exposure of the other's. Markets in which the two have other
    folds are left out.

    Args:
        chains: variant -> market -> chain.
        phases: of the study.
        config: with samples, confidence and seed of the resampling.

    Returns:
        Title -> differences; empty for a single variant.
    """
    (first, base), *others = chains.items()
    agent, found = phase_name(phases[-1]), {}
    for name, by_market in others:
        shared = [m for m in by_market if m in base and base[m].folds == by_market[m].folds]
        if not shared:
            continue
        own = {m: by_market[m].by_seed(agent) for m in shared}
        start = {m: at_exposure_of(base[m].by_seed(agent), own[m]) for m in shared}
        draws = draws_of({m: base[m] for m in shared}, config)
        confidence = config.walk_forward.confidence
        found[f"{name} over {first}"] = compare(own, start, STEPS, draws, confidence)
    return found


def best_before(chain: Chain) -> list[str]:
    """Choose for each fold the classical policy with the best CE5 of the folds before it.

    The first fold has none before it: it takes the classical prior of the agent.
    """
    return [PRIOR, *(best_until(chain, number) for number in range(1, len(chain.folds)))]


def best_ever(chain: Chain) -> list[str]:
    """Choose the classical policy with the best CE5 of all folds; nobody knew it before."""
    return [best_until(chain, len(chain.folds))] * len(chain.folds)


def best_until(chain: Chain, fold: int) -> str:
    """Choose the classical policy with the best CE5 of the folds before `fold`.

    Candidates are the prior and all baselines: the agent could hold each of them.
    """
    values = {}
    for name in (PRIOR, *chain.baselines[0].names):
        series = chain.chosen([name] * len(chain.folds))
        part = series.of_sessions(series.fold < fold)
        values[name] = points(part, ("ce5",))["ce5"]
    return max(values, key=lambda name: values[name])


def steps_of(
    chains: Chains, phases: tuple[int, ...], draws: Draws, confidence: float
) -> dict[str, Differences]:
    """Compare each phase with what it began from, both at the exposure of the phase.

    Phases are compared seed by seed, the ensemble with its seeds. Each level alone is compared
    with the prior.
    """
    names = [PRIOR, *(phase_name(number) for number in phases)]
    pairs = {f"{later} over {earlier}": (later, earlier) for earlier, later in pairwise(names)}
    pairs |= {f"{name} over {PRIOR}": (name, PRIOR) for name in (MACRO_ALONE, MICRO_ALONE)}
    pairs[f"{names[-1]} over {PRIOR}, all phases"] = names[-1], PRIOR
    found = {}
    for title, (later, earlier) in pairs.items():
        own = {m: chain.by_seed(later) for m, chain in chains.items()}
        start = {m: at_exposure_of(chain.by_seed(earlier), own[m]) for m, chain in chains.items()}
        found[title] = compare(own, start, STEPS, draws, confidence)
    whole = {m: chain.ensemble(names[-1]) for m, chain in chains.items()}
    seeds = {m: at_exposure_of(chain.by_seed(names[-1]), whole[m]) for m, chain in chains.items()}
    found["ensemble over its seeds"] = compare(whole, seeds, STEPS, draws, confidence)
    return found


def rows_of(chain: Chain) -> dict[str, dict[str, float]]:
    """Measure every policy of a market on its chained series."""
    names = tuple(name for name in MEASURES if name != "log_volatility")
    series = {f"{name}, ensemble": chain.ensemble(name) for name in chain.ensembles[0].names}
    for name in (PRIOR, SAME_EXPOSURE):
        series[name] = series.pop(f"{name}, ensemble")
    series |= {
        f"{name}, mean of seeds": chain.by_seed(name)
        for name in chain.seeds[0][0].names
        if name != PRIOR
    }
    series |= {name: chain.baseline(name) for name in chain.baselines[0].names}
    return {
        name: {"exposure": 100 * float(each.invested.mean()), **points(each, names)}
        for name, each in series.items()
    }


def lower_by_year(own: Series, even: Series) -> dict[int, float]:
    """Return the difference of 100 ln volatility in each calendar year."""
    years = own.dates.astype("datetime64[Y]").astype(int) + 1970
    return {
        int(year): 100 * float(np.log(own.net[years == year].std() / even.net[years == year].std()))
        for year in np.unique(years)
    }


def by_fold(
    market: str, chain: Chain, agent: str, section: WalkForwardConfig, config: RunConfig
) -> dict[str, Differences]:
    """Compare the agent with 1/N at the same exposure in each fold, on its own dates."""
    own, even = chain.ensemble(agent), chain.ensemble(SAME_EXPOSURE)
    found = {}
    for number, fold in enumerate(chain.folds):
        first, second = own.of_fold(number), even.of_fold(number)
        draws = Draws.of(first.dates, section.block_days, section.samples, config.seed)
        names = ("log_volatility", "growth")
        found[fold.name] = compare(
            {market: first}, {market: second}, names, draws, section.confidence
        )
    return found


def lines_of(
    found: Mapping[str, Mapping[str, Differences]], years: Mapping[str, Mapping[int, float]]
) -> list[Line]:
    """Hold the figures against what must be shown.

    Args:
        found: friction -> reference -> differences of the agent.
        years: of `lower_by_year`.
    """
    main = found[MAIN]
    even, classical, prior = main[EQUAL_WEIGHT], main[BEST_BEFORE], main[PRIOR_AT_SAME]
    lines = []
    for market, by_year in years.items():
        each = main[AT_SAME][market]["log_volatility"]
        lower = float(np.mean([value < 0 for value in by_year.values()]))
        count = sum(value < 0 for value in by_year.values())
        met = 1 - each.above > SURE
        asked = f"{market}: volatility below {AT_SAME}, P > {SURE}"
        if market == STRICT:
            met = met and each.value <= LOWER_VOLATILITY and lower >= LOWER_YEARS
            asked += ", 15 % lower, lower in 13 of 15 years"
        told = (
            f"{_shown(each, 1)} (100 ln), P {1 - each.above:.3f}, {count} of {len(by_year)} years"
        )
        lines.append(Line(asked, told, met))
        each = main[ON_PATH][market]["log_volatility"]
        asked = f"{market}: volatility below {ON_PATH}, P > {SURE} (no credit for timing cash)"
        lines.append(Line(asked, f"{_told(each)} (100 ln)", 1 - each.above > SURE))
    for name in ("sharpe", "ce10"):
        each = even[POOLED][name]
        asked = f"pooled {TITLES[name]} over {EQUAL_WEIGHT}: interval above 0"
        lines.append(Line(asked, _told(each), each.low > 0))
    each = even[POOLED]["ce5"]
    lines.append(Line(f"pooled CE5 over {EQUAL_WEIGHT} above 0", _told(each), each.value > 0))
    each = even[POOLED]["growth"]
    asked = f"pooled growth over {EQUAL_WEIGHT} at least {LEAST_GROWTH} % a year"
    lines.append(Line(asked, _told(each), each.value >= LEAST_GROWTH))
    each = classical[POOLED]["sharpe"]
    asked = f"pooled Sharpe over the {BEST_BEFORE} at least {LEAST_SHARPE}"
    lines.append(Line(asked, _told(each), each.value >= LEAST_SHARPE))
    each = classical[POOLED]["ce5"]
    asked = f"pooled CE5 over the {BEST_BEFORE}: lower end above {LEAST_CE5}"
    lines.append(Line(asked, _told(each), each.low > LEAST_CE5))
    each = prior[POOLED]["log_volatility"]
    asked = f"pooled volatility below the {PRIOR_AT_SAME}, P > {LIKELY}"
    lines.append(Line(asked, f"{_told(each)} (100 ln)", 1 - each.above > LIKELY))
    return [*lines, *(_signs(found, friction) for friction in (DOUBLE, LATE))]


TITLES = {"sharpe": "Sharpe", "ce10": "CE10", "ce5": "CE5", "log_volatility": "volatility"}


def _signs(found: Mapping[str, Mapping[str, Differences]], friction: str) -> Line:
    """Say whether the signs of the first lines stay under a friction."""
    asked = [(EQUAL_WEIGHT, POOLED, name) for name in ("sharpe", "ce10", "ce5")]
    asked += [(AT_SAME, market, "log_volatility") for market in found[MAIN][AT_SAME]]
    told, kept = [], True
    for title, market, name in asked:
        before = found[MAIN][title][market][name].value
        after = found[friction][title][market][name].value
        kept = kept and np.sign(before) == np.sign(after)
        told.append(f"{market} {TITLES[name]} {after:+.2f}")
    return Line(f"{friction}: signs stay", ", ".join(told), bool(kept))


def control(verdicts: Verdicts) -> Line:
    """Say whether a variant fails the first two lines, as the growth objective should."""
    first = [line for line in verdicts.lines if AT_SAME in line.text]
    second = [line for line in verdicts.lines if "interval above 0" in line.text]
    told = "; ".join(f"{line.text}: {line.found}" for line in (*first, *second))
    fails = not all(line.is_met for line in first) and not all(line.is_met for line in second)
    return Line(f"control '{verdicts.variant}' fails the first two lines", told, fails)


def _shown(each: Estimate, digits: int = 2) -> str:
    return f"{each.value:+.{digits}f} [{each.low:+.{digits}f}, {each.high:+.{digits}f}]"


def _told(each: Estimate) -> str:
    return f"{_shown(each)}, P(above 0) {each.above:.3f}"
