"""The report of a stress test: files, page, figures and the table on the terminal."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich.console import Group

from hrl_sarp.config.loading import config_hash
from hrl_sarp.evaluation.attribution import CLASSICAL_PRIOR
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.stress import (
    SHOCK,
    WINDOW,
    ScenarioResult,
    StressFigures,
    StressResult,
)
from hrl_sarp.reporting.figure import BLUE, FADED, INK, READABLE, WIDTH, styled
from hrl_sarp.reporting.page import Drawing, Facts, Fold, Section, page
from hrl_sarp.reporting.table import NONE, Table, paragraphs, percent
from hrl_sarp.run.files import write_json, write_text

METRICS_NAME, REPORT_NAME = "metrics.json", "stress.html"
KINDS = {WINDOW: "replayed history", SHOCK: "hypothetical sector shock"}
PANELS_PER_ROW = 3
Cell = Callable[[StressFigures], str]


def write_stress_test(result: StressResult, out_dir: Path) -> Path:
    """Write `metrics.json` and `stress.html` into a folder and return the page's path."""
    content = {
        "market": result.market.name,
        "seed": result.config.seed,
        "config_hash": config_hash(result.config),
        "own_policies": list(result.policy_names),
        "frozen_on": result.frozen_on,
        "sectors": _sector_map(result),
        "not_covered": result.not_covered,
        "scenarios": [
            {
                "name": scenario.name,
                "kind": KINDS[scenario.kind],
                "seen": list(scenario.seen),
                "sessions": scenario.n_days,
                "start": str(scenario.dates[0]),
                "end": str(scenario.dates[scenario.n_days]),
                "watched_to": str(scenario.dates[-1]),
                "policies": {name: asdict(f) for name, f in scenario.figures.items()},
            }
            for scenario in result.scenarios
        ],
    }
    write_json(out_dir / METRICS_NAME, content)
    path = out_dir / REPORT_NAME
    write_text(path, render_page(result))
    return path


def summary(result: StressResult) -> Group:
    """Return what the terminal shows: one row per scenario, then the sentences of the page."""
    return Group(scenario_table(result), paragraphs(headline(result)))


def headline(result: StressResult) -> list[str]:
    """Say in a few sentences what happened and what the test cannot show."""
    leader, limit = _leader(result), result.config.risk.gate_drawdown
    sentences = []
    if result.scenarios:
        broken = [
            sum(scenario.figures[name].drawdown_limit_days > 0 for scenario in result.scenarios)
            for name in (leader, EQUAL_WEIGHT)
        ]
        worst = max(result.scenarios, key=lambda s: s.figures[leader].loss)
        sentences.append(
            f"{leader} fell past the drawdown limit of {percent(limit, 0)} in {broken[0]} of "
            f"{len(result.scenarios)} scenarios ({EQUAL_WEIGHT} in {broken[1]}); its worst was "
            f"{worst.name} with a loss of {percent(worst.figures[leader].loss)} "
            f"({EQUAL_WEIGHT}: {percent(worst.figures[EQUAL_WEIGHT].loss)})."
        )
    seen = [scenario.name for scenario in result.scenarios if scenario.seen]
    if seen:
        sentences.append(
            f"No evidence, because the agents were fitted or chosen on them: {', '.join(seen)}."
        )
    sentences.append(
        f"Shocks start after {result.frozen_on}, the last real day. Features are not rebuilt from "
        "shocked prices, so shocks show what holdings lose, not how an agent, a rule or a neutral "
        "exposure reacts to a crisis. A long-only portfolio without cash fails most of them by "
        "construction."
    )
    sentences += [f"Not run: {name} ({why})." for name, why in result.not_covered.items()]
    return sentences


def scenario_table(result: StressResult) -> Table:
    """Lay out one row per scenario: the leading policy beside 1/N."""
    leader = _leader(result)
    header = ("scenario", "sessions", "seen", "loss", "1/N loss", "drawdown", "1/N drawdown",
              "days back", "1/N days back", "over caps", "exposure", "prior's loss")  # fmt: skip
    rows = [
        (
            scenario.name,
            str(scenario.n_days),
            ", ".join(scenario.seen) or NONE,
            *(percent(scenario.figures[name].loss) for name in (leader, EQUAL_WEIGHT)),
            *(percent(scenario.figures[name].max_drawdown) for name in (leader, EQUAL_WEIGHT)),
            *(_recovery(scenario.figures[name]) for name in (leader, EQUAL_WEIGHT)),
            _over_caps(scenario.figures[leader]),
            percent(scenario.figures[leader].exposure, 0),
            _prior_loss(scenario),
        )
        for scenario in result.scenarios
    ]
    note = (
        f"{leader} beside 1/N, net of costs. Days back: sessions from the deepest point to the "
        "peak before it. Over caps: sessions whose open found a stock / a sector above its cap. "
        "Exposure: mean share of wealth in stocks. The prior is the classical portfolio that "
        "agents start from."
    )
    telling = (0, 3, 4, 11, 10, 5, 7, 1, 6, 8, 9, 2)
    return Table(
        f"Stress test of {leader}", header, rows, note, telling=telling,
        text_columns=frozenset({0, 2}),
    )  # fmt: skip


def policy_table(result: StressResult, title: str, cell: Cell) -> Table:
    """Lay out one figure of every policy in every scenario."""
    names = list(dict.fromkeys(n for scenario in result.scenarios for n in scenario.names))
    names.sort(key=lambda name: name not in result.policy_names)
    rows = [
        (
            name,
            *(cell(s.figures[name]) if name in s.figures else NONE for s in result.scenarios),
        )
        for name in names
    ]
    header = ("policy", *(scenario.name for scenario in result.scenarios))
    own = frozenset({*result.policy_names, EQUAL_WEIGHT})
    return Table(title, header, rows, emphasised=own)


def render_page(result: StressResult) -> str:
    """Write the whole report as one HTML page."""
    title = f"Stress test of {_leader(result)} on {result.market.name}"
    counts = [sum(s.kind == kind for s in result.scenarios) for kind in KINDS]
    subtitle = (
        f"{counts[0]} windows of history, {counts[1]} sector shocks, "
        f"{len(result.market.symbols)} stocks, seed {result.config.seed}"
    )
    return page(title, subtitle, headline(result), list(_sections(result)))


def _sections(result: StressResult) -> Iterator[Section]:
    overview = scenario_table(result)
    if not result.scenarios:
        yield Section("Scenarios", [overview])
        return
    caption = (
        "Loss from the close before the stress to its end, net of costs; left of zero is a gain. "
        "Grey dots are the other policies and baselines."
    )
    losses = policy_table(result, "Losses", lambda f: percent(f.loss))
    drawing = Drawing(loss_dots(result), "losses", caption)
    yield Section("Losses", [overview, drawing, Fold("All policies", [losses])])
    caption = (
        "Wealth (100 at the close before the stress) by sessions; the dotted line is its end. "
        "After it, a shock is undone evenly, and a window shows the history that followed."
    )
    yield Section("Paths", [Drawing(wealth_paths(result), "paths", caption)])
    cells: dict[str, Cell] = {
        "Largest drawdown during the stress": lambda f: percent(f.max_drawdown),
        "Sessions from the deepest point back to the peak": _recovery,
        "Sessions that opened above the cap of a stock / a sector": _over_caps,
        "Sessions that closed below the drawdown limit": lambda f: str(f.drawdown_limit_days),
        "Mean share of wealth in stocks": lambda f: percent(f.exposure, 0),
        "Turnover during the stress": lambda f: percent(f.turnover, 0),
    }
    tables = [Fold(name, [policy_table(result, name, cell)]) for name, cell in cells.items()]
    yield Section("Drawdown, recovery, limits", tables)
    stress, risk = result.config.stress, result.config.risk
    facts = {
        "start": f"Policies go from cash into their holdings {stress.warm_up_days} sessions "
        "before; losses count from the close after that.",
        "shocks": "Each sector's return is spread evenly in logarithms over the sessions, "
        f"{percent(stress.overnight_share, 0)} of it over night (all of it in data of closes "
        "only), and undone evenly over the recovery. Cash earns nothing.",
        "sectors": ", ".join(f"{own} as {name}" for own, name in _sector_map(result).items()),
        "limits": f"stock {percent(risk.stock_cap, 0)}, sector {percent(risk.sector_cap, 0)}, "
        f"drawdown {percent(risk.gate_drawdown, 0)} from the peak since the start",
        "configuration": config_hash(result.config),
    }
    yield Section("How it was done", [Facts(list(facts.items()))])


@styled
def loss_dots(result: StressResult) -> Figure:
    """Draw every policy's loss in every scenario, the leading policy and 1/N on top."""
    scenarios, leader = result.scenarios[::-1], _leader(result)
    figure = Figure(figsize=(READABLE, 1.2 + 0.31 * len(scenarios)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    others = [
        (100 * f.loss, row)
        for row, scenario in enumerate(scenarios)
        for name, f in scenario.figures.items()
        if name not in (leader, EQUAL_WEIGHT)
    ]
    axes.plot(*np.array(others).reshape(-1, 2).T, "o", color=FADED, markersize=4, alpha=0.8)
    for name, shape, colour in ((EQUAL_WEIGHT, "D", INK), (leader, "o", BLUE)):
        losses = [100 * scenario.figures[name].loss for scenario in scenarios]
        axes.plot(losses, range(len(scenarios)), shape, color=colour, markersize=7, label=name)
    axes.set_yticks(range(len(scenarios)), [_label(scenario) for scenario in scenarios])
    axes.set_ylim(-0.6, len(scenarios) - 0.4)
    axes.set_xlabel("loss, % of wealth")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


@styled
@mpl.rc_context({"font.size": 8.5, "axes.titlesize": 9})
def wealth_paths(result: StressResult) -> Figure:
    """Draw wealth in every scenario as small multiples."""
    n_rows = -(-len(result.scenarios) // PANELS_PER_ROW)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False).ravel()
    leader = _leader(result)
    for axes, scenario in zip(panels, result.scenarios, strict=False):
        sessions, names = np.arange(len(scenario.wealth)), scenario.names
        others = [i for i, name in enumerate(names) if name not in (leader, EQUAL_WEIGHT)]
        axes.plot(sessions, 100 * scenario.wealth[:, others], color=FADED, linewidth=0.6)
        for name, colour in ((EQUAL_WEIGHT, INK), (leader, BLUE)):
            path = 100 * scenario.wealth[:, names.index(name)]
            axes.plot(sessions, path, color=colour, linewidth=1.5, label=name)
        axes.axvline(scenario.n_days, color=INK, linewidth=0.8, linestyle=":")
        axes.set_title(_label(scenario))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0)
    for axes in panels[len(result.scenarios) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _label(scenario: ScenarioResult) -> str:
    return f"{scenario.name}{' (seen)' if scenario.seen else ''}"


def _leader(result: StressResult) -> str:
    return result.policy_names[0] if result.policy_names else EQUAL_WEIGHT


def _prior_loss(scenario: ScenarioResult) -> str:
    prior = scenario.figures.get(CLASSICAL_PRIOR)
    return NONE if prior is None else percent(prior.loss)


def _recovery(figures: StressFigures) -> str:
    return "not yet" if figures.recovery_days is None else str(figures.recovery_days)


def _over_caps(figures: StressFigures) -> str:
    return f"{figures.stock_cap_days} / {figures.sector_cap_days}"


def _sector_map(result: StressResult) -> dict[str, str]:
    mapped = result.config.market_profile.stress.sectors
    return {name: mapped[name] for name in result.market.sector_names if name in mapped}
