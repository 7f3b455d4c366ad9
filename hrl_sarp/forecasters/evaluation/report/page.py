"""The page of an evaluation: whether models beat the last value, then measures and charts."""

import math
from collections.abc import Mapping, Sequence

import polars as pl

from hrl_sarp.forecasters.evaluation.comparison import SIGN, multiple, significant
from hrl_sarp.forecasters.evaluation.plan import INTERVALS, RollingPlan, moment
from hrl_sarp.forecasters.evaluation.report import figures
from hrl_sarp.forecasters.evaluation.summary import DENSITY, NAIVE, Evaluation, Group, share_name
from hrl_sarp.reporting.page import Block, Facts, Fold, Section
from hrl_sarp.reporting.page import page as html_page
from hrl_sarp.reporting.table import NONE, Table, counted, number, percent

STAMP = "contaminated"
NOTE = (
    "Medians over series. x naive: mean absolute error in multiples of that of the last value. "
    "MASE: the same in multiples of the usual change before each origin. WQL: twice the quantile "
    "losses from 0.1 to 0.9 over the absolute values, %. DM: statistic of Diebold and Mariano "
    f"against the last value; {SIGN}. DM density: the same of ranked probability scores, against "
    f"'{DENSITY}'. Inside: share of values in the central intervals. Direction: share of moves "
    "whose direction the median had right, beside that of always saying the commoner one. Rank "
    "IC: rank correlation between series of forecast and actual changes, with its t. Points have "
    "no density."
)
READING = (
    ("origins", "Every forecaster forecasts from the same origins and sees the rows before alone."),
    ("refit", "Baselines are fitted anew at every origin, to the newest rows of their context."),
    ("losses of tests", "Each series counts in multiples of its own usual change, so that dear "
     "stocks do not decide. Losses are averaged over series and steps at every origin first."),
    ("lags of tests", "Origins whose forecasts overlap may depend on each other: Bartlett "
     "weights with ceil(h / every) - 1 lags, the correction of Harvey, Student's t."),
    ("significant", "p < 0.05, two-sided, of one test. Of twenty models without skill one is "
     "expected to be called better or worse."),
    ("width", "Mean width of the central interval in percent of the mean value."),
    ("QLIKE", "Mean of ln v + r^2 / v for the forecast variance v of the log return r since the "
     "origin. Lower is better; only differences have a meaning."),
    ("CRPS", "Twice the mean quantile loss at 0.1 to 0.9 for all forecasters, so that they can be "
     "compared; crps_paths is the fair estimate from draws."),
)  # fmt: skip


def html(
    evaluation: Evaluation, table: pl.DataFrame, plan: RollingPlan, models: Sequence[str]
) -> str:
    """Write the page.

    Args:
        evaluation: of the table.
        table: all forecasts.
        plan: of the table.
        models: names of the models that are tested; the rest are baselines.

    Returns:
        The page, which opens without a network.
    """
    names = list(dict.fromkeys(group.model for group in evaluation.groups))
    titles = {
        name: f"{name} ({STAMP})" if name in evaluation.contaminated else name for name in names
    }
    lead = list(evaluation.sentences) or [
        "No model was tested: this page shows the baselines alone.",
        *best_baselines(evaluation),
    ]
    sections = [
        section
        for kind in dict.fromkeys(group.kind for group in evaluation.groups)
        for section in _sections(kind, evaluation, table, plan, models, titles)
    ]
    facts = [*READING, *((name, told) for name, told in evaluation.contaminated.items())]
    sections.append(Section("How to read this page", [Facts(facts)]))
    first, end = (moment(times.to_numpy()[0]) for times in
                  (table["origin"].sort(), table["time"].sort(descending=True)))  # fmt: skip
    subtitle = (
        f"{counted(table['symbol'].n_unique(), 'symbol')}, origins from {first} on, rows to {end}, "
        f"{counted(plan.horizon, 'step')} ahead, an origin every {counted(plan.every, 'row')}"
    )
    return html_page("Forecasts against repeating the last value", subtitle, lead, sections)


def best_baselines(evaluation: Evaluation) -> list[str]:
    """Name the baseline with the smallest error for each kind of series.

    Args:
        evaluation: with at least the last value.

    Returns:
        A sentence for each kind.
    """
    told = []
    for kind in dict.fromkeys(group.kind for group in evaluation.groups):
        own = [each for each in evaluation.groups if each.kind == kind and each.model != NAIVE]
        ratios = {each.model: each.median("naive_ratio") for each in own}
        known = [each for each in own if math.isfinite(ratios[each.model])]
        if known:
            best = min(known, key=lambda each: ratios[each.model])
            told.append(
                f"{kind}: the closest of the others is {best.model}, "
                f"{multiple(ratios[best.model])} x naive, {best.errors.verdict}. "
                f"{best.errors.text}."
            )
    return told


def measures_table(
    groups: Sequence[Group], titles: Mapping[str, str], models: Sequence[str]
) -> Table:
    """Return the medians of all measures, a row for each model of one kind.

    Args:
        groups: of one kind.
        titles: model -> its name on the page.
        models: names that are set in bold.

    Returns:
        The table.
    """
    header = (
        "model", "pct_mae", "x naive", "MASE", "WQL", "DM", "p", "DM density",
        *(f"inside {percent(share, 0)}" for share in INTERVALS), "width 80 %", "direction",
        "base rate", "rank IC (t)", "QLIKE",
    )  # fmt: skip
    rows = [
        (
            titles[group.model],
            significant(group.median("pct_mae")),
            multiple(group.median("naive_ratio")),
            _digits(group.median("mase"), 3),
            _digits(100 * group.median("wql"), 3),
            _signed(group.errors.statistic),
            p_text(group.errors.p_value),
            NONE if group.densities is None else _signed(group.densities.statistic),
            *(_share(group.median(f"coverage_{share_name(share)}")) for share in INTERVALS),
            _digits(group.median("width_80"), 2),
            _share(group.median("direction")),
            _share(group.median("base_rate")),
            _rank(group),
            _digits(group.median("qlike"), 3),
        )
        for group in groups
    ]
    bold = frozenset(titles[name] for name in models if name in titles)
    return Table("Measures", header, rows, NOTE, bold, telling=(0, 1, 2, 5, 6, 3, 4, 9))


def parts_table(parts: Sequence[tuple[str, Group]], titles: Mapping[str, str]) -> Table:
    """Return the errors of models by what they have seen.

    Args:
        parts: of an evaluation.
        titles: model -> its name on the page.

    Returns:
        The table.
    """
    rows = [
        (
            titles[group.model],
            part,
            str(len(group.symbols)),
            str(group.n_origins),
            significant(group.median("pct_mae")),
            multiple(group.median("naive_ratio")),
            _digits(100 * group.median("wql"), 3),
            _signed(group.errors.statistic),
            p_text(group.errors.p_value),
            group.errors.verdict,
        )
        for part, group in parts
    ]
    header = ("model", "part", "series", "origins", "pct_mae", "x naive", "WQL", "DM", "p", "")
    note = f"Medians over series. DM: {SIGN}."
    return Table("Parts", header, rows, note, text_columns=frozenset({0, 1, 9}))


def _sections(
    kind: str,
    evaluation: Evaluation,
    table: pl.DataFrame,
    plan: RollingPlan,
    models: Sequence[str],
    titles: Mapping[str, str],
) -> list[Section]:
    groups = [group for group in evaluation.groups if group.kind == kind]
    tag = "".join(letter if letter.isalnum() else "-" for letter in kind)
    rows = table.filter(pl.col("kind") == kind)
    tested = [group for group in groups if group.model in models]
    shown = tested or [group for group in groups if group.pit][:1]
    blocks: list[Block] = [measures_table(groups, titles, models)]
    fans: list[Block] = [
        chart for number, group in enumerate(shown)
        for chart in _fans(f"fan-{tag}-{number}", group, rows, plan, titles)
    ]  # fmt: skip
    ordered = [*tested, *(group for group in groups if group.model not in models)]
    charts: list[Block] = []
    if any(group.pit for group in groups):
        charts += [figures.pit_chart(f"pit-{tag}", ordered, titles)]
        charts += [figures.coverage_chart(f"coverage-{tag}", ordered, titles)]
    if len(groups) > 1:
        charts.append(figures.step_chart(f"steps-{tag}", ordered, titles))
    folds: list[Block] = [
        Fold(f"{titles[group.model]}: each series", [_symbols_table(group, titles)])
        for group in groups
    ]
    seen = [(part, each) for part, each in evaluation.parts if each.kind == kind]
    counts = (
        f"{counted(len(groups[0].symbols), 'symbol')}, {counted(groups[0].n_origins, 'origin')}"
    )
    return [
        Section(f"{kind}: {counts}", blocks),
        *([Section("What models have seen", [parts_table(seen, titles)])] if seen else []),
        *([Section("Best, median and worst series", fans)] if fans else []),
        *([Section("Densities and steps", charts)] if charts else []),
        Section("Series by series", folds),
    ]


def _fans(
    name: str, group: Group, rows: pl.DataFrame, plan: RollingPlan, titles: Mapping[str, str]
) -> list[Block]:
    """Draw the series with the smallest, the middle and the largest error over naive.

    Where that is the same, as of random walks, the quantile losses decide.
    """
    known = {s: (found["naive_ratio"], found["wql"]) for s, found in group.symbols.items()}
    finite = [s for s in known if math.isfinite(sum(known[s]))]
    order = sorted(finite, key=lambda s: (round(known[s][0], 6), known[s][1]))
    places = {"best": 0, "worst": len(order) - 1, "median": len(order) // 2}
    chosen: dict[str, str] = {}  # of one or two series some are the same
    for word, place in places.items():
        if order:
            chosen.setdefault(order[place], word)
    own = rows.filter(pl.col("model") == group.model)
    return [
        figures.fan_chart(
            f"{name}-{word}",
            f"{titles[group.model]}, {word} series, {multiple(known[symbol][0])} x naive, WQL "
            f"{_digits(100 * known[symbol][1], 3)} %",
            own.filter(pl.col("symbol") == symbol),
            plan,
        )
        for symbol, word in sorted(chosen.items(), key=lambda each: order.index(each[0]))
    ]


def _symbols_table(group: Group, titles: Mapping[str, str]) -> Table:
    names = list(next(iter(group.symbols.values())))
    rows = [
        (symbol, *(_compact(found[name]) for name in names))
        for symbol, found in group.symbols.items()
    ]
    rows += [
        (word, *(_compact(average(name)) for name in names))
        for word, average in (("median", group.median), ("mean", group.mean))
    ]
    title = f"{titles[group.model]}, each series"
    return Table(title, ("symbol", *names), rows, emphasised=frozenset({"median", "mean"}))


def _digits(value: float, digits: int) -> str:
    return NONE if math.isnan(value) else number(value, digits)


def _compact(value: float) -> str:
    """Write a number of any size, as errors of cheap and dear series are."""
    if math.isnan(value):
        return NONE
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(value: float) -> str:
    """Write a p value; a small one is never written as 0.

    Args:
        value: in [0, 1], or NaN.

    Returns:
        Three decimals, a bound, or a dash.
    """
    return "< 0.001" if value < 0.001 else _digits(value, 3)


def _signed(value: float) -> str:
    return NONE if math.isnan(value) else f"{'+' if value > 0 else ''}{number(value)}"


def _share(value: float) -> str:
    return NONE if math.isnan(value) else percent(value)


def _rank(group: Group) -> str:
    if math.isnan(group.ranks.mean):
        return NONE
    return f"{number(group.ranks.mean, 3)} ({_digits(group.ranks.t, 1)})"
