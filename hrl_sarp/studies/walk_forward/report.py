"""Writes what a walk-forward came to: tables, figures as JSON, one figure, one page of text."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.statistics import Interval
from hrl_sarp.reporting.figure import BLUE, INK, PALETTE, VERMILION, WIDTH, save_png, styled
from hrl_sarp.reporting.table import NONE, Table, number
from hrl_sarp.run.files import write_json, write_text
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies.walk_forward.cells import PRIOR, SAME_EXPOSURE, WalkForward
from hrl_sarp.studies.walk_forward.chain import Chain, read_chains
from hrl_sarp.studies.walk_forward.evidence import (
    MARGIN,
    Evidence,
    Search,
    configurations_tried,
    evidence_of,
    search_of,
)
from hrl_sarp.studies.walk_forward.ledger import FRICTIONS, MAIN
from hrl_sarp.studies.walk_forward.measures import MEASURES, POOLED, Differences, Estimate
from hrl_sarp.studies.walk_forward.verdicts import Verdicts, control, verdicts_of

TABLE, FIGURES, FIGURE = "table.md", "table.json", "walk_forward.png"
SEARCHES = "searches.json"
CONTROL = "growth"
"""Variant that is held against the first two lines only."""
STRESSED = tuple(f", {friction}" for friction in FRICTIONS if friction != MAIN)
"""End the titles of comparisons that only the file of figures shows."""
DIGITS = {"sharpe": 2, "cvar95": 2}
PANEL_HEIGHT = 2.8
Weighed = dict[str, dict[str, Evidence]]
"""Market -> title of the reference -> evidence."""


def summarise(study: WalkForward) -> str:
    """Write `table.md`, a figure for each variant, `table.json` and `searches.json` to the study.

    Args:
        study: folds that have not finished are left out, and their cells named.

    Returns:
        The page as Markdown.

    Raises:
        MissingArtifactError: if no fold has finished.
    """
    chains = read_chains(study)
    config = study.recipe.base(next(iter(study.data_dirs)))
    phases = study.recipe.phases
    found = {
        variant: verdicts_of(variant, by_market, phases, config)
        for variant, by_market in chains.items()
    }
    markets = {
        market: {name: each[market] for name, each in chains.items() if market in each}
        for market in study.data_dirs
    }
    log = TrialLog().trials()
    tried = {name: configurations_tried(each, log) for name, each in markets.items() if each}
    searches = {name: search_of(each, config) for name, each in markets.items() if each}
    parts = ["# Walk-forward", "", opening(study, chains)]
    plain: dict[str, Any] = {}
    for variant, verdicts in found.items():
        weighed = {
            market: evidence_of(chain, verdicts.agent, config, tried[market])
            for market, chain in chains[variant].items()
        }
        parts += ["", page(verdicts, weighed)]
        save_png(study.folder / _figure_name(variant), drawn(chains[variant], verdicts))
        plain[variant] = asdict(verdicts) | {"evidence": _plain(weighed)}
    parts += ["", "## The best of all configurations, against 1/N", ""]
    parts.append(searches_table(searches).markdown())
    text = "\n".join(parts) + "\n"
    write_text(study.folder / TABLE, text)
    if CONTROL in found:
        plain[CONTROL]["control"] = asdict(control(found[CONTROL]))
    write_json(study.folder / FIGURES, plain)
    write_json(study.folder / SEARCHES, {name: asdict(each) for name, each in searches.items()})
    return text


def opening(study: WalkForward, chains: Mapping[str, Mapping[str, Chain]]) -> str:
    """Say what was run, how to read it, and what is missing."""
    done = {fold.name for each in chains.values() for one in each.values() for fold in one.folds}
    section = study.recipe.base(next(iter(study.data_dirs))).walk_forward
    sentences = [
        f"Tests of {len(done)} folds, {len(study.seeds)} seeds each, phases "
        f"{', '.join(map(str, study.recipe.phases))}. Training expands from fold to fold, and ends "
        f"{section.validation_years} calendar year(s) before the test, which validation takes.",
        "Every figure is of the out-of-sample sessions of a market, one fold after the other, net "
        "of costs in the exact simulator.",
        f"Intervals ({section.confidence:.0%}) and probabilities resample dates in blocks of "
        f"{section.block_days} sessions, the same dates for both sides and all markets; seeds are "
        "averaged. Pooled is the mean over the markets.",
        f"The agent is the ensemble: the mean of the seeds' decisions. '{SAME_EXPOSURE}' holds 1/N "
        "with the agent's mean exposure of the fold, in the simulator. The prior at the same "
        "exposure is diluted with cash. On the same path it is diluted to the agent's exposure of "
        "each session, without the costs of moving, so that the timing of cash earns no credit.",
        "CE5 and CE10 are the sure log growth with the same power utility, at a relative risk "
        "aversion of 5 and 10.",
    ]
    missing = [f"* `{name}`: {' '.join(why.split())}" for name, why in study.missing().items()]
    if missing:
        sentences += ["", "Cells that have not finished; their folds are left out:", "", *missing]
    return "\n".join(sentences)


def page(verdicts: Verdicts, weighed: Weighed) -> str:
    """Write the tables of one variant."""
    met = sum(line.is_met for line in verdicts.lines)
    parts = [
        f"## Variant {verdicts.variant}: ensemble of {verdicts.agent}",
        "",
        f"{met} of {len(verdicts.lines)} lines are met.",
        "",
        lines_table(verdicts).markdown(),
    ]
    for market, rows in verdicts.policies.items():
        parts += ["", f"### Policies, {market}", "", policies_table(rows).markdown()]
    parts += ["", "### The agent against its references", ""]
    main = {t: each for t, each in verdicts.comparisons.items() if not t.endswith(STRESSED)}
    parts.append(differences_table("agent less", main).markdown())
    parts += ["", "### How sure the growth of the agent is", ""]
    parts.append(evidence_table(weighed).markdown())
    parts += ["", "### What each phase adds, at equal exposure", ""]
    parts.append(differences_table("step", verdicts.steps).markdown())
    parts += ["", "### Volatility against 1/N at the same exposure, 100 ln, by year", ""]
    parts.append(years_table(verdicts).markdown())
    parts += ["", f"![Fold by fold]({_figure_name(verdicts.variant)})"]
    return "\n".join(parts)


def lines_table(verdicts: Verdicts) -> Table:
    """Return what must be shown, what was found, and whether it is enough."""
    lines = [*verdicts.lines]
    if verdicts.variant == CONTROL:
        lines.append(control(verdicts))
    rows = [(line.text, line.found, "met" if line.is_met else "missed") for line in lines]
    return Table("Lines", ("line", "found", ""), rows)


def policies_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the measures of every policy of a market."""
    names = list(next(iter(rows.values())))
    titles = [MEASURES[name][0] if name in MEASURES else f"{name}, %" for name in names]
    cells = [
        (policy, *(number(values[name], DIGITS.get(name, 1)) for name in names))
        for policy, values in rows.items()
    ]
    return Table("Policies", ("policy", *titles), cells)


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
    "block, sessions": lambda each: number(each.block_days, 1),
}
"""Title of a row -> what it shows."""


def _interval(found: Interval | Estimate, digits: int) -> str:
    low, high = number(found.low, digits), number(found.high, digits)
    return f"{number(found.value, digits)} [{low}, {high}]"


def _plain(weighed: Weighed) -> dict[str, Any]:
    return {
        market: {title: asdict(each) for title, each in by_title.items()}
        for market, by_title in weighed.items()
    }


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
    return Table("Searches", titles, rows)


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


@styled
def drawn(chains: Mapping[str, Chain], verdicts: Verdicts) -> Figure:
    """Draw both differences fold by fold, and the growth of wealth in each market."""
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * (1 + len(chains))), layout="constrained")
    grid = figure.add_gridspec(1 + len(chains), 2)
    titles = {
        "log_volatility": "Volatility over 1/N at the same exposure, 100 ln",
        "growth": "Growth over 1/N at the same exposure, % a year",
    }
    for place, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(grid[0, place])
        axes.set_title(title, fontsize=9)
        _draw_folds(axes, verdicts, name)
    for row, (market, chain) in enumerate(chains.items()):
        axes = figure.add_subplot(grid[row + 1, :])
        axes.set_title(f"{market}: growth of 1, folds one after the other")
        _draw_wealth(axes, chain, verdicts.agent)
    return figure


def _draw_folds(axes: Axes, verdicts: Verdicts, name: str) -> None:
    labels, place = [], 0
    for colour, (market, folds) in zip(PALETTE, verdicts.folds.items(), strict=False):
        for position, (fold, differences) in enumerate(folds.items()):
            each = differences[market][name]
            around = [[each.value - each.low], [each.high - each.value]]
            label = market if position == 0 else None
            axes.errorbar([place], [each.value], around, fmt="o", color=colour, label=label)
            labels.append(fold.removeprefix(f"{market}-"))
            place += 1
    axes.axhline(0.0, color=INK, linewidth=1)
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axes.legend()


def _draw_wealth(axes: Axes, chain: Chain, agent: str) -> None:
    lines: dict[str, Any] = {
        "agent (ensemble)": (chain.ensemble(agent), {"color": BLUE, "linewidth": 2}),
        PRIOR: (chain.ensemble(PRIOR), {"color": VERMILION}),
        EQUAL_WEIGHT: (chain.baseline(EQUAL_WEIGHT), {"color": INK}),
        SAME_EXPOSURE: (chain.ensemble(SAME_EXPOSURE), {"color": INK, "linestyle": ":"}),
    }
    for label, (series, style) in lines.items():
        axes.plot(series.dates, np.cumprod(1.0 + series.net[:, 0]), label=label, **style)
    axes.set_yscale("log")
    axes.legend(ncols=2)


def _figure_name(variant: str) -> str:
    return FIGURE.replace(".png", f"_{variant}.png")
