"""Writes the report of a backtest: a summary, then tables and figures, in files and on screen."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from hrl_sarp.evaluation.attribution import MACRO_SHARE, MICRO_SHARE, SMALLEST_TRADE, LevelSwaps
from hrl_sarp.evaluation.backtest import BacktestResult, cut_sentences
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import MEASURES, Performance
from hrl_sarp.evaluation.report import figures, tables
from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from hrl_sarp.evaluation.report.files import REPORT_NAME, provenance, write_ledgers
from hrl_sarp.evaluation.statistics import BEYOND_LUCK
from hrl_sarp.metrics import ROUNDING
from hrl_sarp.reporting.figure import Panel, panel_figure
from hrl_sarp.reporting.page import Block, Drawing, Facts, Fold, Row, Section, page
from hrl_sarp.reporting.table import NONE, number, paragraphs, percent
from hrl_sarp.run.files import write_text
from hrl_sarp.training.acceptance import PRIOR, Acceptance

SELDOM = 0.005
"""Share of sessions, or of wealth, up to which limits are not worth a sentence."""
MOST_DRAWN = 6
"""Number of policies whose sectors are drawn. Each figure adds 100 kB to the page."""


def write_backtest(
    result: BacktestResult,
    out_dir: Path,
    swaps: LevelSwaps | None = None,
    grants: Mapping[str, Acceptance] | None = None,
    curves: Sequence[Panel] = (),
) -> Analysis:
    """Write `ledger.parquet`, `daily.parquet`, `metrics.json` and `report.html` into a folder.

    Args:
        result: the rollouts.
        out_dir: made if needed, usually `logs/backtest`.
        swaps: names of the four policies of the level swap, if they were run.
        grants: what the phases that trained the policies asked for and were granted.
        curves: of the trainings, a panel a phase.

    Returns:
        The figures that were written.
    """
    analysis = analyse(result, swaps, grants)
    write_ledgers(result, analysis, out_dir)
    write_text(out_dir / REPORT_NAME, render_page(result, analysis, curves))
    return analysis


def print_summary(result: BacktestResult, analysis: Analysis, console: Console) -> None:
    """Show the main table and the sentences below it on the terminal.

    Args:
        result: the rollouts.
        analysis: of them.
        console: as wide as the terminal; the table keeps the columns that fit.
    """
    console.print(tables.main_table(result, analysis), paragraphs(headline(result, analysis)))


def headline(result: BacktestResult, analysis: Analysis) -> list[str]:
    """Say in a few sentences what the backtest shows, risk first, and what it cannot show."""
    own, base = (analysis.performances[name] for name in (analysis.headline_name, EQUAL_WEIGHT))
    sentences = [_grew(base)] if own is base else _about(result, analysis, own, base)
    survivorship = result.market.manifest.get("survivorship")
    told = [
        *sentences,
        _seen_before(result),
        f"With {number(analysis.years, 1)} years the smallest information ratio that could be told "
        f"from luck (80 % power) is {number(analysis.smallest_information_ratio, 1)} a year.",
        f"The index is: {result.market.benchmark_name}. No method is expected to grow faster than "
        "1/N net of costs on real prices; finding no difference in growth is the expected result, "
        "not a failure. Risk can be forecast, and that is what the agents are for.",
        limits_sentence(result, analysis, EQUAL_WEIGHT),
        *cut_sentences(result),
        f"Survivorship: {survivorship.rstrip('.')}."
        if survivorship
        else "Survivorship: the data do not say whether stocks that vanished are in them; if they "
        "are not, every figure here is too high, 1/N's included.",
    ]
    return [sentence for sentence in told if sentence]


def _grew(base: Performance) -> str:
    return (
        "No policy was handed in: these are the baselines. 1/N had a volatility of "
        f"{percent(base['volatility'])} a year and a largest drawdown of "
        f"{percent(base['max_drawdown'])}, and grew {percent(base['annual_return'])} a year net of "
        "costs."
    )


def _about(
    result: BacktestResult, analysis: Analysis, own: Performance, base: Performance
) -> list[str]:
    """Say what the policy does for its holder, what it is, and what was learned."""
    level = f"{result.config.evaluation.confidence:.0%}"
    sentences = [_purpose(result, analysis, own, base), _beyond_cash(own, level)]
    sentences += [_growth(own, base, level), _kinship(result, analysis)]
    sentences.append(limits_sentence(result, analysis, analysis.headline_name))
    if analysis.grants:
        sentences.append(_granted(analysis))
    sentences.append(_verdict(result, own))
    return [sentence for sentence in sentences if sentence]


def _purpose(
    result: BacktestResult, analysis: Analysis, own: Performance, base: Performance
) -> str:
    """Say in one sentence how much of the growth of 1/N is kept, and of its risk taken away."""
    excess = own["growth_excess"]
    if excess.low > 0:
        kept = "grows faster than 1/N"
    elif excess.high < 0:
        kept = f"gives up {percent(-excess.value)} of growth a year against 1/N"
    elif excess.value >= -result.config.evaluation.growth_margin:
        kept = "keeps the growth of 1/N, as far as this span can tell,"
    else:
        kept = (
            f"grows {percent(-excess.value)} a year less than 1/N, which this span cannot tell "
            "from no difference,"
        )
    risks = {"volatility": "volatility", "max_drawdown": "largest drawdown"}
    taken = [
        f"{percent(1 - own[key] / base[key], 0)} of its {name}"
        for key, name in risks.items()
        if own[key] < base[key] - ROUNDING
    ]
    gain = f"takes {' and '.join(taken)} away" if taken else "takes none of its risk away"
    pairs = {**risks, "cvar_95": "mean loss of the worst 5 % of sessions"}
    told = [
        f"{name} {percent(own[key])} against {percent(base[key])}" for key, name in pairs.items()
    ]
    worth = [
        f"{percent(own[f'certainty_equivalent_{gamma}'])} against "
        f"{percent(base[f'certainty_equivalent_{gamma}'])} at gamma {gamma}"
        for gamma in (5, 10)
    ]
    return (
        f"{analysis.headline_name} {kept} and {gain}: {', '.join(told)}. Its certainty equivalent "
        f"(mean return less gamma / 2 x variance, a year) is {' and '.join(worth)}."
    )


def _beyond_cash(own: Performance, level: str) -> str:
    """Say whether the risk is lower than cash alone would make it."""
    ratio = own["relative_volatility"]
    if ratio is None:
        return ""
    if ratio.high < 1 - ROUNDING:
        verdict = "what it holds and when lowers risk, not cash alone"
    elif ratio.low > 1 + ROUNDING:
        verdict = "at equal exposure it is riskier than 1/N"
    else:
        verdict = "1 is in it, so cash alone may explain the difference"
    return (
        f"With the same share in stocks ({percent(own['exposure'], 0)} on average) 1/N would have "
        f"a volatility of {percent(own['volatility'] / ratio.value)}. Its own is "
        f"{number(ratio.value)} times that ({level} interval {number(ratio.low)} to "
        f"{number(ratio.high)}): {verdict}."
    )


def _growth(own: Performance, base: Performance, level: str) -> str:
    excess = own["growth_excess"]
    if excess.low > 0:
        verdict = "above zero"
    elif excess.high < 0:
        verdict = "below zero"
    else:
        verdict = "zero is in it, so this span shows no difference"
    return (
        f"It grew {percent(own['annual_return'])} a year net of costs, 1/N grew "
        f"{percent(base['annual_return'])}. In log growth that is {percent(abs(excess.value))} a "
        f"year {'more' if excess.value >= 0 else 'less'}; the {level} interval of the difference "
        f"is {percent(excess.low)} to {percent(excess.high)}: {verdict}. Its Sharpe ratio is "
        f"{number(own['sharpe'].value)}, that of 1/N {number(base['sharpe'].value)}."
    )


def _kinship(result: BacktestResult, analysis: Analysis) -> str:
    """Name the rule that the policy is nearest to, or is."""
    name = analysis.headline_name
    found = analysis.likeness[name]
    elsewhere = f"on average {percent(found.distance)} of wealth lies elsewhere"
    if found.distance <= result.config.evaluation.same_rule_distance:
        return f"{name} is the rule '{found.rule}': {elsewhere}. Read its figures as that rule's."
    return f"Of all rules its weights are nearest to '{found.rule}': {elsewhere}."


def limits_sentence(result: BacktestResult, analysis: Analysis, name: str) -> str:
    """Say which caps bound for a given policy and what they did; empty where none did."""
    found, performance = analysis.limits[name], analysis.performances[name]
    risk, sessions = result.config.risk, f"of {found.sessions:,} sessions with orders"
    told = [
        f"the {kind} cap of {percent(cap, 0)} bound in {count:,} {sessions}"
        for kind, cap, count in (
            ("stock", risk.stock_cap, found.stock_cap),
            ("sector", risk.sector_cap, found.sector_cap),
        )
        if count > SELDOM * found.sessions
    ]
    moved = performance["moved_by_limits"]
    if moved > SELDOM:
        told.append(f"limits put {percent(moved)} of wealth elsewhere than it asked, on average")
    if not told:
        return ""
    invested = f"{percent(performance['exposure'])} was invested on average"
    return f"Limits of {name}: {'; '.join(told)}; {invested}."


def _granted(analysis: Analysis) -> str:
    """Say which phases asked to deploy something, which were granted it, and what is deployed."""
    asked = [name for name, found in analysis.grants.items() if found.asked != PRIOR]
    granted = [name for name, found in analysis.grants.items() if found.granted != PRIOR]
    if asked:
        told = f"Asked to deploy something learned: {'; '.join(asked)}. The evidence granted it to "
        told += f"{'; '.join(granted)}." if granted else "none of them."
    else:
        told = "No phase asked to deploy what it learned: the best of each was where it began."
    if MACRO_SHARE in analysis.grants:
        macro, micro = (analysis.grants[name].granted for name in (MACRO_SHARE, MICRO_SHARE))
        told += f" Deployed are {percent(macro, 0)} of the macro agent and {percent(micro, 0)} of "
        told += "the micro agent; the rest is the classical prior."
    return told


def _verdict(result: BacktestResult, own: Performance) -> str:
    """Say whether the policy earns more than 1/N mixed with cash, beyond the luck of all trials."""
    probability = own["deflated_sharpe"]
    is_luck = probability <= BEYOND_LUCK
    return (
        f"Against 1/N mixed with cash to the same beta its appraisal ratio is "
        f"{number(own['appraisal_ratio'])} a year; {number(own['needed_appraisal_ratio'])} is "
        f"needed, corrected for {tables.configurations(result.trials.count)} evaluated on the "
        f"span or by tuning. So it {'may be' if is_luck else 'is more than'} the luck of so many "
        f"tries: its deflated Sharpe ratio is {number(probability)}, and luck seldom passes "
        f"{number(BEYOND_LUCK)}."
    )


def _seen_before(result: BacktestResult) -> str:
    """Say how fresh the span is."""
    history = result.history
    if history is None:
        return f"Without a trial log, earlier looks at the {result.span_name} span are unknown."
    if history.openings == 0:
        return f"The {result.span_name} span was opened for the first time, says the trial log."
    times = "once" if history.openings == 1 else f"{history.openings} times"
    return (
        f"The {result.span_name} span was opened {times} before, by "
        f"{tables.configurations(history.configurations)}. What was chosen after a look at it is "
        "no longer tested by it."
    )


def render_page(result: BacktestResult, analysis: Analysis, curves: Sequence[Panel] = ()) -> str:
    """Write the whole report as one HTML page; the same result gives the same text."""
    main, facts = result.main, provenance(result)
    title = f"Backtest of {_called(result, analysis)} on {result.market.name}"
    subtitle = (
        f"{result.span_name} span, {main.dates[0]} to {main.dates[-1]}, {len(main.dates)} sessions "
        f"({number(analysis.years, 1)} years), {facts['stocks']} stocks, seed {facts['seed']}"
    )
    sections = list(_sections(result, analysis, curves))
    return page(title, subtitle, headline(result, analysis), sections)


def _called(result: BacktestResult, analysis: Analysis) -> str:
    """Name the policy, and the rule that it is."""
    name = analysis.headline_name
    found = analysis.likeness.get(name)
    is_rule = found and found.distance <= result.config.evaluation.same_rule_distance
    return f"{name} (the rule '{found.rule}')" if found and is_rule else name


def _sections(
    result: BacktestResult, analysis: Analysis, curves: Sequence[Panel]
) -> Iterator[Section]:
    yield Section("All policies", list(_policy_blocks(result, analysis)))
    yield Section("Wealth, drawdown, exposure", [figures.wealth_chart(result, analysis)])
    yield Section("Risk and growth, and how sure they are", _interval_blocks(result, analysis))
    if analysis.grants:
        yield Section("What the evidence granted", [tables.grants_table(analysis)])
    if curves:
        yield Section("How training went", [_training_row(curves)])
    name = analysis.headline_name
    yield Section(f"What {name} holds", _holding_blocks(result, analysis, name))
    earned = tables.contributions_table(result, analysis, name)
    yield Section("What each stock earned", [earned])
    yield Section("Sectors and regimes", list(_sector_blocks(result, analysis)))
    others = [*analysis.own_names, EQUAL_WEIGHT][1:] if analysis.own_names else []
    months: list[Block] = [tables.monthly_table(analysis, name)]
    again = [Fold(other, [tables.monthly_table(analysis, other)]) for other in others]
    months += [Fold("The same for other policies", again)] if again else []
    yield Section(f"Month by month: {name}", months)
    caption = "Mean return over 1/N, split into the decisions that earned it."
    bars = Drawing(figures.attribution_bars(analysis), "attribution", caption)
    split = tables.attribution_table(result, analysis)
    yield Section("Where the difference comes from", [bars, split])
    yield Section("Turnover, trades and costs", _trading_blocks(result, analysis))
    yield Section("Other frictions", [tables.variants_table(result, analysis)])
    yield Section("Where the numbers come from", [_provenance(result)])


def _policy_blocks(result: BacktestResult, analysis: Analysis) -> Iterator[Block]:
    """Show all measures, and say what each row and each column is."""
    yield tables.main_table(result, analysis)
    told = result.descriptions
    own = [(name, f"{told[name]}.") for name in analysis.own_names if name in told]
    rest = [(name, f"{text}.") for name, text in told.items() if name not in analysis.own_names]
    if own:
        yield Facts(own)
    if rest:
        yield Fold("What the baselines are", [Facts(rest)])
    meanings = [(m.heading.split(" [")[0], m.meaning) for m in MEASURES if m.meaning]
    yield Fold("What the columns mean", [Facts(meanings)])
    yield Fold("Risk and shape", [tables.detail_table(result, analysis)])
    if analysis.luck:
        luck = tables.luck_table(result, analysis)
        yield Fold(luck.title, [luck])


def _interval_blocks(result: BacktestResult, analysis: Analysis) -> list[Block]:
    """Show risk beside growth."""
    section = result.config.evaluation
    level = f"{section.confidence:.0%}"
    risk = (
        f"Risk: volatility over that of 1/N at equal exposure, with {level} interval. Left of the "
        "line is less risk than cash alone gives."
    )
    growth = (
        f"Growth: log growth over 1/N, % a year net of costs, with {level} interval. Right of the "
        "line is more growth. The grey bar of the random stocks is their spread over draws, not an "
        "interval of dates."
    )
    drawings = [
        Drawing(figures.intervals(result, analysis, measure), measure, caption)
        for measure, caption in (("relative_volatility", risk), ("growth_excess", growth))
    ]
    note = (
        "Intervals resample the same dates for all policies in blocks of "
        f"{section.bootstrap_block_days} sessions on average, {section.bootstrap_samples} times."
    )
    return [figures.risk_return_chart(result, analysis), Row(drawings), Facts([("how", note)])]


def _training_row(curves: Sequence[Panel]) -> Row:
    """Show the curve of each phase."""
    drawings = []
    for at, panel in enumerate(curves):
        what = f"{panel.title}, by {panel.x_label}: {panel.y_label}."
        if panel.best is not None:
            is_start = panel.best == min(x[0] for x, _ in panel.curves.values())
            kept = "The start was kept" if is_start else f"Kept was {panel.x_label} {panel.best}"
            what += f" {kept}."
        drawings.append(Drawing(panel_figure(panel), f"phase{at}", what))
    return Row(drawings)


def _holding_blocks(result: BacktestResult, analysis: Analysis, name: str) -> list[Block]:
    """Show the largest holdings over time, and the last weights."""
    count = len(analysis.holdings[name].largest)
    caption = f"{name}: weights of the {count} stocks with the largest mean weight."
    drawn = Drawing(figures.largest_holdings(result, analysis, name), "holdings", caption)
    return [drawn, tables.last_weights_table(result, analysis, name)]


def _trading_blocks(result: BacktestResult, analysis: Analysis) -> list[Block]:
    """Show trades and costs."""
    names = dict.fromkeys((analysis.headline_name, EQUAL_WEIGHT))
    counts = {name: analysis.holdings[name].trades.values() for name in names}
    means = [f"{number(sum(n) / len(n), 1)} a month for {name}" for name, n in counts.items()]
    caption = (
        f"Trades by calendar month: {', '.join(means)}. A trade changes a holding by more than "
        f"{percent(SMALLEST_TRADE, 2)} of wealth."
    )
    trades = Drawing(figures.monthly_trades(analysis), "trades", caption)
    return [trades, tables.cost_table(result, analysis)]


def _sector_blocks(result: BacktestResult, analysis: Analysis) -> Iterator[Block]:
    names = list(analysis.own_names) or [EQUAL_WEIGHT]
    drawings = []
    for i, name in enumerate(names[:MOST_DRAWN]):
        caption = f"{name}: share of wealth by sector after each trade"
        if name in analysis.regime_scores:
            caption += ", and the regime probabilities of the goal in force"
        figure = figures.sectors_and_regimes(result, name)
        drawings.append(Drawing(figure, f"sectors{i}", caption + "."))
    yield drawings[0]
    if len(drawings) > 1:
        yield Fold("The same for other policies", drawings[1:])
    if analysis.regime_scores:
        yield tables.regime_table(result, analysis)


def _provenance(result: BacktestResult) -> Facts:
    facts = provenance(result)
    labels = {"trials": "configurations evaluated on the span or by tuning"}
    pairs = [
        (labels.get(name, name.replace("_", " ")), facts[name])
        for name in facts
        if name not in {"spans", "seen_before"}
    ]
    pairs += [
        (f"{name} span", f"{first} to {last}") for name, (first, last) in facts["spans"].items()
    ]
    pairs += [(key, result.market.manifest[key]) for key in ("source", "adjustment", "risk_free")
              if key in result.market.manifest]  # fmt: skip
    return Facts([(name, NONE if value is None else str(value)) for name, value in pairs])
