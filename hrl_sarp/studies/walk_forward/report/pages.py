"""The pages of a walk-forward: the same sections as Markdown, and as HTML with charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.reporting.page import Block, Facts, Fold, Section
from hrl_sarp.reporting.page import page as html_page
from hrl_sarp.reporting.table import Table, counted
from hrl_sarp.studies.cell import RESULT
from hrl_sarp.studies.walk_forward.cells import MACRO_ALONE, SAME_EXPOSURE, WalkForward
from hrl_sarp.studies.walk_forward.chain import Chain
from hrl_sarp.studies.walk_forward.evidence import MARGIN
from hrl_sarp.studies.walk_forward.ledger import FRICTIONS, IMPACT, MAIN
from hrl_sarp.studies.walk_forward.report import figures, tables
from hrl_sarp.studies.walk_forward.report.tables import Weighed
from hrl_sarp.studies.walk_forward.verdicts import Verdicts

STRESSED = tuple(f", {friction}" for friction in FRICTIONS if friction != MAIN)
"""End the titles of comparisons that only the file of figures shows."""


@dataclass(frozen=True)
class Variant:
    """All that the pages say of one variant."""

    verdicts: Verdicts
    weighed: Weighed
    chains: Mapping[str, Chain]
    """Market -> chain."""

    @property
    def title(self) -> str:
        """Names the variant and its agent."""
        return f"Variant {self.verdicts.variant}: ensemble of {self.verdicts.agent}"

    @property
    def summary(self) -> str:
        """How many lines are met."""
        met = sum(line.is_met for line in self.verdicts.lines)
        return f"{met} of {len(self.verdicts.lines)} lines that had to be shown are met."


def markdown(
    study: WalkForward,
    variants: list[Variant],
    shared: Sequence[Table],
    pictures: Mapping[str, str],
) -> str:
    """Write the page as Markdown.

    Args:
        study: that was run.
        variants: of the study.
        shared: tables of all variants together, each under its title.
        pictures: variant -> name of its picture beside the page.
    """
    sentences = how_to_read(study, variants)
    parts = ["# Walk-forward", "", "\n".join(sentences)]
    missing = missing_cells(study)
    if missing:
        parts += ["", "Cells that have not finished; their folds are left out:", ""]
        parts += [f"* `{name}`: {why}" for name, why in missing]
    for variant in variants:
        parts += ["", variant_markdown(variant, pictures[variant.verdicts.variant])]
    for table in shared:
        parts += ["", f"## {table.title}", "", table.markdown()]
    return "\n".join(parts) + "\n"


def variant_markdown(variant: Variant, picture: str) -> str:
    """Write the tables of one variant as Markdown."""
    lines, *others = sections_of(variant)
    parts = [f"## {variant.title}", "", variant.summary]
    parts += ["", *(block.markdown() for block in lines.blocks if isinstance(block, Table))]
    for section in others:
        parts += ["", f"### {section.title}", ""]
        parts += [block.markdown() for block in section.blocks if isinstance(block, Table)]
    return "\n".join([*parts, "", f"![Fold by fold]({picture})"])


def html(study: WalkForward, variants: list[Variant], shared: Sequence[Table]) -> str:
    """Write the page as HTML: what is shown first, then charts, then tables."""
    is_one = len(variants) == 1
    lead = [told for variant in variants for told in _lead(variant, is_named=not is_one)]
    missing = missing_cells(study)
    if missing:
        lead.append(f"Cells that have not finished: {len(missing)}; their folds are left out.")
    sections = [
        Section(title if is_one else f"{variant.verdicts.variant}: {title}", blocks)
        for variant in variants
        for title, blocks in _sections_with_charts(variant)
    ]
    sections += [Section(table.title, [table]) for table in shared]
    told = [("" if i else "how", text) for i, text in enumerate(how_to_read(study, variants))]
    last: list[Block] = [Fold("How to read this page", [Facts(told)])]
    if missing:
        last.append(Fold("Cells that have not finished", [Facts(missing)]))
    sections.append(Section("About this page", last))
    chains = [chain for variant in variants for chain in variant.chains.values()]
    first = min(chain.baseline(EQUAL_WEIGHT).dates[0] for chain in chains)
    end = max(chain.baseline(EQUAL_WEIGHT).dates[-1] for chain in chains)
    subtitle = (
        f"{', '.join(study.data_dirs)}; tests {first} to {end}; "
        f"{counted(len(study.seeds), 'seed')}, phases "
        f"{', '.join(map(str, study.recipe.phases))}"
    )
    return html_page(f"Walk-forward: {study.title}", subtitle, lead, sections)


def card(study: WalkForward, variants: list[Variant]) -> str:
    """Write what a README shows: where the numbers come from, one small table, the verdicts."""
    parts = []
    for variant in variants:
        verdicts, seeds = variant.verdicts, ", ".join(map(str, study.seeds))
        spans = "; ".join(
            f"{market} {chain.folds[0].first}-{chain.folds[-1].last} in "
            f"{counted(len(chain.folds), 'fold')}, "
            f"{counted(variant.weighed[market][EQUAL_WEIGHT].trials, 'configuration')} tried"
            for market, chain in variant.chains.items()
        )
        parts += [
            f"Study `{study.title}`, variant `{verdicts.variant}`: mean decision of seeds {seeds} "
            f"after {verdicts.agent}, net of costs. {spans}.",
            tables.card_table(verdicts).markdown(),
            "\n".join(f"* {sentence}" for sentence in _lead(variant, is_named=False)),
        ]
    return "\n\n".join(parts) + "\n"


def sections_of(variant: Variant) -> list[Section]:
    """Put the tables of one variant under their headings, the lines first."""
    verdicts = variant.verdicts
    main = {t: each for t, each in verdicts.comparisons.items() if not t.endswith(STRESSED)}
    policies = [
        Section(f"Policies, {market}", [tables.policies_table(rows)])
        for market, rows in verdicts.policies.items()
    ]
    distances = tables.distances_table(verdicts)
    return [
        Section("What had to be shown", [tables.lines_table(verdicts)]),
        *policies,
        Section("The agent against its references", [tables.differences_table("agent less", main)]),
        Section("Growth under other frictions", [tables.frictions_table(verdicts)]),
        *([Section("Whether the agent has become a rule", [distances])] if distances.rows else []),
        Section("How sure the growth of the agent is", [tables.evidence_table(variant.weighed)]),
        Section(
            "What each phase adds, at equal exposure",
            [tables.differences_table("step", verdicts.steps)],
        ),
        Section(
            "Volatility against 1/N at the same exposure, 100 ln, by year",
            [tables.years_table(verdicts)],
        ),
    ]


def _sections_with_charts(variant: Variant) -> list[tuple[str, list[Block]]]:
    verdicts = variant.verdicts
    lines, *others = sections_of(variant)
    tag = verdicts.variant
    growth: list[Block] = []
    for market, chain in variant.chains.items():
        growth.append(figures.growth_chart(tag, market, chain, verdicts.agent))
        growth.append(figures.plane_chart(market, verdicts))
    folds: list[Block] = [figures.fold_chart(verdicts, name) for name in figures.DIFFERENCES]
    return [
        (lines.title, list(lines.blocks)),
        ("Growth and risk", growth),
        ("Fold by fold", folds),
        *((section.title, list(section.blocks)) for section in others),
    ]


def _lead(variant: Variant, *, is_named: bool) -> list[str]:
    """Say in a few sentences what the study shows."""
    name = f"Variant {variant.verdicts.variant}: " if is_named else ""
    sentences = [f"{name}{variant.summary}"]
    for market, by_title in variant.weighed.items():
        even = by_title[EQUAL_WEIGHT]
        row = variant.verdicts.policies[market]
        own, base = row[f"{variant.verdicts.agent}, ensemble"], row[EQUAL_WEIGHT]
        sentences.append(
            f"{market}: the agent's volatility is {own['volatility']:.1f} % a year against "
            f"{base['volatility']:.1f} % of 1/N, its largest drawdown {own['max_drawdown']:.1f} % "
            f"against {base['max_drawdown']:.1f} %. In growth it differs by "
            f"{even.growth.value:+.1f} % a year [{even.growth.low:+.1f}, {even.growth.high:+.1f}]: "
            f"{even.verdict} (a loss below {MARGIN} % counts as not worse). So many sessions "
            f"show differences from {even.smallest_detectable:.1f} % on. Of {even.noise.total} "
            f"histories of pure noise with its dates and tails this verdict calls "
            f"{even.noise.count} better, that is {100 * even.noise.count / even.noise.total:.1f} % "
            f"[{100 * even.noise.low:.1f}, {100 * even.noise.high:.1f}]; of {even.planted.total} "
            f"with a planted {even.planted_effect:.1f} % a year it finds {even.planted.count}."
        )
    return sentences


def how_to_read(study: WalkForward, variants: list[Variant]) -> list[str]:
    """Say what was run, and how to read it."""
    chains = [chain for variant in variants for chain in variant.chains.values()]
    done = {fold.name for chain in chains for fold in chain.folds}
    section = study.recipe.base(next(iter(study.data_dirs))).walk_forward
    capital = ", ".join(
        f"{study.recipe.base(market).market_profile.costs.capital:g} ({market})"
        for market in study.data_dirs
    )
    return [
        f"Tests of {counted(len(done), 'fold')}, {counted(len(study.seeds), 'seed')} each, phases "
        f"{', '.join(map(str, study.recipe.phases))}. Training expands from fold to fold, and ends "
        f"{counted(section.validation_years, 'calendar year')} before the test, which validation "
        "takes.",
        "Every figure is of the out-of-sample sessions of a market, one fold after the other, net "
        "of costs in the exact simulator.",
        f"Intervals ({section.confidence:.0%}) and probabilities resample dates in blocks of "
        f"{section.block_days} sessions, the same dates for both sides and all markets; seeds are "
        "averaged. Pooled is the mean over the markets.",
        f"The agent is the ensemble: the mean of the seeds' decisions. '{SAME_EXPOSURE}' holds 1/N "
        "with the agent's mean exposure of the fold, in the simulator. The prior at the same "
        "exposure is diluted with cash. On the same path it is diluted to the agent's exposure of "
        "each session, without the costs of moving, so that the timing of cash earns no credit.",
        "CE3, CE5 and CE10 are the sure log growth with the same power utility, at a relative risk "
        "aversion of 3, 5 and 10; at 1 it is the growth itself. Gross is the same path had its "
        "trades been free.",
        "Square-root impact takes coefficient x trade x sqrt(trade / dollar volume of the day) on "
        f"top of the market's costs, with a coefficient of {study.recipe.impact_coefficient:g} and "
        f"a capital of {capital} at the start of each fold; it is 0 where the day's volume is "
        "unknown, and no column where all are.",
        "The share of wealth elsewhere is half the L1 distance of the weights after each trade, "
        f"cash included, mean over the sessions. '{MACRO_ALONE}' is the agent's own goal with the "
        "classical prior inside the sectors. An agent within "
        f"{variants[0].verdicts.same_rule_distance:.0%} of a rule is called by its name.",
        *_earlier_cells(variants),
    ]


def _earlier_cells(variants: list[Variant]) -> list[str]:
    """Say which chains have cells that an earlier version rolled out, and the cure."""
    return [
        f"An earlier version rolled out {counted(chain.n_earlier, 'cell')} of {market}, variant "
        f"{variant.verdicts.variant}, without {IMPACT} and without weights: remove the file "
        f"{RESULT} in their folders and repeat the command, which rolls them out again and trains "
        "nothing."
        for variant in variants
        for market, chain in variant.chains.items()
        if chain.n_earlier
    ]


def missing_cells(study: WalkForward) -> list[tuple[str, str]]:
    """Name the cells that have not finished, with the reason in one line."""
    return [(name, " ".join(why.split())) for name, why in study.missing().items()]
