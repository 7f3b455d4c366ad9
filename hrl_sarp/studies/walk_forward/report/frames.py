"""The figures of a walk-forward as tables that other programs read."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

import polars as pl

from hrl_sarp.run.trials import Trial
from hrl_sarp.studies.walk_forward.report.pages import Variant
from hrl_sarp.studies.walk_forward.verdicts import Verdicts

FIGURES = {
    "variant": pl.String,
    "market": pl.String,
    "policy": pl.String,
    "reference": pl.String,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "above": pl.Float64,
}
"""Columns of `table.parquet`."""
TRIALS = dict.fromkeys(("fold", "first", "last"), pl.String) | {
    part.name: {"value": pl.Float64, "seed": pl.Int64}.get(part.name, pl.String)
    for part in fields(Trial)
    if part.name != "span"
}
"""Columns of `trials.parquet`."""


def figures_frame(variants: Sequence[Variant]) -> pl.DataFrame:
    """List every figure of every variant, one a row.

    Args:
        variants: of a study.

    Returns:
        Levels of each policy have no reference, interval or probability. Differences of the agent
        have all of them (but for `distance`, the share of wealth that it holds elsewhere than a
        rule), and so have steps, whose policy is named by the reference ("phase 2 over
        phase 1"). The pooled ones have the market `pooled`. Units are those of the tables.
    """
    rows = [row for variant in variants for row in _rows(variant)]
    return pl.DataFrame(rows, schema=FIGURES, orient="row")


def trials_frame(trials: Sequence[Trial], spans: set[str]) -> pl.DataFrame:
    """List the trials on the folds of a study, as the trial log has them.

    Args:
        trials: of a log.
        spans: names of the folds.

    Returns:
        One row for each line of the log, the days of its span as `first` and `last`. Without a
        line it has the same columns.
    """
    rows = []
    for trial in trials:
        if trial.span.name in spans:
            plain = asdict(trial)
            span = plain.pop("span")
            rows.append(
                {"fold": span["name"], "first": span["first"], "last": span["last"], **plain}
            )
    return pl.DataFrame(rows, schema=TRIALS)


def _rows(variant: Variant) -> Iterator[tuple[Any, ...]]:
    found = variant.verdicts
    for market, policies in found.policies.items():
        for name, levels in policies.items():
            for measure, value in levels.items():
                yield found.variant, market, name, None, measure, value, None, None, None
    yield from _beside(found)
    named = {**{t: (found.agent, each) for t, each in found.comparisons.items()},
             **{t: (None, each) for t, each in found.steps.items()}}  # fmt: skip
    for title, (policy, by_market) in named.items():
        for market, measures in by_market.items():
            for measure, each in measures.items():
                yield (
                    found.variant, market, policy, title, measure,
                    each.value, each.low, each.high, each.above,
                )  # fmt: skip


def _beside(found: Verdicts) -> Iterator[tuple[Any, ...]]:
    """List growth under each friction, and how far the agent is from each rule."""
    levels = [
        (market, policy, None, f"growth, {friction}", value)
        for market, by_policy in found.growth.items()
        for policy, by_friction in by_policy.items()
        for friction, value in by_friction.items()
    ]
    distances = [
        (market, found.agent, rule, "distance", value)
        for market, by_rule in found.distance.items()
        for rule, value in by_rule.items()
    ]
    for row in (*levels, *distances):
        yield (found.variant, *row, None, None, None)
