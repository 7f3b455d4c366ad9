"""The tables of a walk-forward."""

from collections.abc import Callable, Mapping

from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.statistics import Interval, Share
from hrl_sarp.reporting.table import NONE, Table, number, percent
from hrl_sarp.studies.walk_forward.cells import PRIOR, RULES, SAME_EXPOSURE
from hrl_sarp.studies.walk_forward.evidence import MARGIN, Evidence, Search
from hrl_sarp.studies.walk_forward.ledger import FRICTIONS, MAIN, OWN_MEAN
from hrl_sarp.studies.walk_forward.measures import MEASURES, POOLED, Differences, Estimate
from hrl_sarp.studies.walk_forward.risk_seen import Skills
from hrl_sarp.studies.walk_forward.verdicts import Verdicts, control

CONTROL = "growth"
"""Variant that is held against the first two lines only."""
DIGITS = {"sharpe": 2, "sortino": 2, "cvar95": 2}
CARD = ("volatility", "max_drawdown", "growth", "sharpe", "ce5", "ce10", "turnover")
"""Measures of the table that a README shows."""
Weighed = dict[str, dict[str, Evidence]]
"""Market -> title of the reference -> evidence."""


def lines_table(verdicts: Verdicts) -> Table:
    """Return what must be shown, what was found, and whether it is enough."""
    lines = [*verdicts.lines]
    if verdicts.variant == CONTROL:
        lines.append(control(verdicts))
    rows = [(line.text, line.found, "met" if line.is_met else "missed") for line in lines]
    return Table("Lines", ("line", "found", ""), rows, text_columns=frozenset({0, 1, 2}))


def policies_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the measures of every policy of a market."""
    names = list(next(iter(rows.values())))
    titles = [MEASURES[name][0] if name in MEASURES else f"{name}, %" for name in names]
    cells = [
        (policy, *(number(values[name], DIGITS.get(name, 1)) for name in names))
        for policy, values in rows.items()
    ]
    return Table("Policies", ("policy", *titles), cells)


def card_table(verdicts: Verdicts) -> Table:
    """Return the agent, the prior and 1/N side by side, for each market."""
    names = {
        "agent": f"{verdicts.agent}, ensemble",
        PRIOR: PRIOR,
        SAME_EXPOSURE: SAME_EXPOSURE,
        EQUAL_WEIGHT: EQUAL_WEIGHT,
    }
    header = [f"{title}, {market}" for market in verdicts.policies for title in names]
    rows = [
        (
            MEASURES[measure][0],
            *(
                number(policies[name][measure], DIGITS.get(measure, 1))
                for policies in verdicts.policies.values()
                for name in names.values()
            ),
        )
        for measure in CARD
    ]
    return Table("Agent and 1/N", ("", *header), rows)


def differences_table(first: str, differences: Mapping[str, Differences]) -> Table:
    """Return one row for each comparison and market."""
    measures = list(next(iter(next(iter(differences.values())).values())))
    titles = [MEASURES[name][0] for name in measures]
    rows = [
        (title, market, *(cell(values[name], DIGITS.get(name, 1)) for name in measures))
        for title, by_market in differences.items()
        for market, values in by_market.items()
        if market != POOLED or len(by_market) > 2  # of one market it is the market's own
    ]
    return Table("Differences", (first, "market", *titles), rows)


def evidence_table(weighed: Weighed) -> Table:
    """Return one column for each market and reference, one row for each statistic."""
    columns = {
        f"{market}, over {title}": each
        for market, by_title in weighed.items()
        for title, each in by_title.items()
    }
    rows = [
        (label, *(write(each) for each in columns.values())) for label, write in STATISTICS.items()
    ]
    return Table("Evidence", ("growth, % a year", *columns), rows)


def _signs(each: Evidence) -> str:
    won = sum(value > 0 for value in each.fold_differences.values())
    return f"{won} of {len(each.fold_differences)}, p {each.sign_p:.2f}"


STATISTICS: dict[str, Callable[[Evidence], str]] = {
    f"verdict, margin {MARGIN} % a year": lambda each: each.verdict,
    "agent (ensemble)": lambda each: _interval(each.growth, 1),
    "one seed, dates and seeds resampled": lambda each: _interval(each.one_seed, 1),
    "t by Newey-West": lambda each: number(each.newey_west_t, 2),
    "smallest detectable, 80 % power": lambda each: number(each.smallest_detectable, 1),
    "worst fold": lambda each: (
        f"{number(each.fold_differences[each.worst_fold], 1)} ({each.worst_fold})"
    ),
    "folds won, sign test": _signs,
    "interquartile mean, folds and seeds": lambda each: _interval(each.interquartile_mean, 1),
    "probability of improvement": lambda each: _interval(each.improvement, 2),
    "deflated Sharpe of active returns": lambda each: number(each.deflated_sharpe, 2),
    "configurations tried": lambda each: str(each.trials),
    "noise called better": lambda each: _share(each.noise),
    "planted effect, called better": lambda each: (
        f"{number(each.planted_effect, 1)}, {_share(each.planted)}"
    ),
    "block, sessions": lambda each: number(each.block_days, 1),
}
"""Title of a row -> what it shows."""


def _share(found: Share) -> str:
    """Write a count and the interval of the share."""
    return f"{found.count} of {found.total} [{percent(found.low)}, {percent(found.high)}]"


def _interval(found: Interval | Estimate, digits: int) -> str:
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{number(found.value, digits)} [{low}, {high}]"


def frictions_table(verdicts: Verdicts) -> Table:
    """Return one row for each market and policy, one column for each friction."""
    rows = [
        (market, policy, *(number(found[name], 1) if name in found else NONE for name in FRICTIONS))
        for market, by_policy in verdicts.growth.items()
        for policy, found in by_policy.items()
    ]
    titles = ("the market's costs" if name == MAIN else name for name in FRICTIONS)
    header = ("growth, % a year", "policy", *titles)
    return Table("Frictions", header, rows, text_columns=frozenset({0, 1}))


def distances_table(verdicts: Verdicts) -> Table:
    """Return how far the weights of the agent are from each rule, and which one it has become."""
    rows = []
    for market, found in verdicts.distance.items():
        if not found:
            continue
        shown = (percent(found[rule]) for rule in (*RULES, OWN_MEAN))
        nearest = min(RULES, key=lambda rule: found[rule])
        if found[nearest] <= verdicts.same_rule_distance:
            told = f"it is the rule '{nearest}'"
        elif found[OWN_MEAN] <= verdicts.same_rule_distance:
            told = "it is a constant portfolio"
        else:
            told = f"no rule; nearest '{nearest}'"
        rows.append((market, *shown, told))
    header = ("share of wealth elsewhere than", *RULES, OWN_MEAN, "what the agent is")
    return Table("Distances", header, rows, text_columns=frozenset({0, len(header) - 1}))


def searches_table(searches: Mapping[str, Search]) -> Table:
    """Return one row for each market."""
    rows = [
        (
            market,
            str(len(each.configurations)),
            NONE if each.overfitting is None else number(each.overfitting, 2),
            NONE if each.p_value is None else number(each.p_value, 2),
            ", ".join(each.superior) or NONE,
        )
        for market, each in searches.items()
    ]
    titles = ("market", "configurations", "overfitted (PBO)", "SPA p", "above 1/N (StepM)")
    return Table("The best of all configurations, against 1/N", titles, rows)


def skills_table(skills: Mapping[str, Skills]) -> Table:
    """Return one row for each market, variant and way of forecasting."""
    rows = [
        (
            f"{variant}, {way}",
            market,
            *(
                text
                for each in by_name.values()
                for text in (
                    number(each.value, 4),
                    f"{number(each.difference, 4)} ± {number(each.error, 4)}",
                )
            ),
        )
        for market, by_variant in skills.items()
        for variant, ways in by_variant.items()
        for way, by_name in ways.items()
    ]
    note = (
        "Weeks of the validation spans, stocks of the universe. head: a linear head on all that "
        "the agents observe, fitted on training; direct: the forecast alone, with one factor "
        "fitted on training. Less is better; differences are to the head of the first variant, "
        "with their Newey-West error."
    )
    titles = ("QLIKE", "difference", "log-loss of the tercile", "difference")
    return Table(
        "How well what agents observe tells next week's volatility",
        ("variant", "market", *titles),
        rows,
        note,
        text_columns=frozenset({0, 1}),
    )


def years_table(verdicts: Verdicts) -> Table:
    """Return two rows for each market, one column for each calendar year."""
    years = sorted({year for by_year in verdicts.years.values() for year in by_year})
    on_path = {f"{market}, same path": by_year for market, by_year in verdicts.path_years.items()}
    named = verdicts.years | on_path
    rows = [
        (name, *(number(by_year[year], 0) if year in by_year else NONE for year in years))
        for name, by_year in named.items()
    ]
    return Table("Years", ("market", *map(str, years)), rows)


def cell(each: Estimate, digits: int) -> str:
    """Write an estimate with its interval, and the probability of being above 0."""
    return f"{_interval(each, digits)} P {each.above:.2f}"
