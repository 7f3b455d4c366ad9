"""What a backtest tells the trial log, and what it learns from it about the span."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Trajectory
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.performance import column, market_rows
from hrl_sarp.evaluation.statistics import Trials, appraise
from hrl_sarp.run.files import read_json, sha256_plain
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.trials import Kind, Span, Trial, TrialLog, distinct, prices_hash

APPRAISAL = "appraisal_ratio"
"""Metric of a backtest's trials: per session, against 1/N."""
SELECTION = "objective_pct"
"""Metric of the trials that validation chose from: the objective over the rule, % a year."""
DIGITS = 9
"""Decimals of the returns that tell configurations apart; further ones differ between machines."""


@dataclass(frozen=True)
class SpanHistory:
    """What the trial log knew of a span before a backtest opened it."""

    openings: int
    """How often one of its sessions was looked at."""
    configurations: int
    """How many configurations were evaluated then, without baselines."""


@dataclass(frozen=True)
class Looked:
    """The trials of a backtest's policies, and what came before; None without a log."""

    trials: Trials
    history: SpanHistory | None


def record_backtest(
    main: Trajectory,
    market: Market,
    span: Span,
    config: RunConfig,
    policy_names: Sequence[str],
    log: TrialLog | None,
) -> Looked:
    """Add every row of a backtest to the log, and count what was evaluated on its span.

    A configuration is known by its name and its returns: a policy that decides otherwise than
    before is another one, and one that is only shown again is not. Baselines are added, too, but
    are no trials of the policies, because they were fixed before the span was seen. Trials of
    tuning count whatever their span: their values may be those of the policies.
    """
    now = list(_shown(main, market, span, config, policy_names))
    before: list[Trial] = []
    tuned: list[Trial] = []
    if log is not None:
        known = [each for each in log.trials(market=prices_hash(market)) if each.bears_on(span)]
        before = [trial for trial in known if trial.span.overlaps(span)]
        tuned = [trial for trial in known if not trial.span.overlaps(span)]
        log.add(*now)
    own = distinct(trial for trial in [*tuned, *before, *now] if trial.kind != "baseline")
    ratios = tuple(
        trial.value
        for trial in own.values()
        if trial.metric == APPRAISAL and trial.span == span and trial.value is not None
    )
    tried = len(distinct(trial for trial in before if trial.kind != "baseline"))
    openings = len({trial.time for trial in before})
    history = None if log is None else SpanHistory(openings, tried)
    return Looked(Trials(len(own), ratios), history)


def _shown(
    main: Trajectory,
    market: Market,
    span: Span,
    config: RunConfig,
    policy_names: Sequence[str],
) -> Iterator[Trial]:
    rows = market_rows(market, main)
    excess = main.net_return - market.risk_free[rows].astype(np.float64)[:, None]
    appraisals = appraise(excess, excess[:, column(main, EQUAL_WEIGHT)])
    where = prices_hash(market)
    for i, name in enumerate(main.names):
        returns = np.round(main.net_return[:, i], DIGITS) + 0.0  # no negative zeros
        same = sha256_plain([name, hashlib.sha256(returns.tobytes()).hexdigest()])
        kind: Kind = "backtest" if name in policy_names else "baseline"
        ratio = appraisals[i].ratio
        yield Trial(kind, name, same, where, span, APPRAISAL, ratio, config.seed)


def record_selection(log_dir: Path, market: Market, config: RunConfig, log: TrialLog) -> None:
    """Add the temperatures and evaluations that validation chose from, in all finished phases.

    They are read from the metrics of the run in `log_dir`. What the log holds already is not added
    again.
    """
    span = Span.of(market, "validation")
    where, seed, run = prices_hash(market), config.seed, config_hash(config)
    new = [
        Trial("selection", name, sha256_plain([run, name]), where, span, SELECTION, value, seed)
        for files in PHASES
        if (path := log_dir / files.folder / files.metrics).is_file()
        for name, value in _chosen_from(
            files.number, read_json(path, f"hrl-sarp train --phase {files.number}")
        )
    ]
    known = {trial.key for trial in log.trials(span, where, SELECTION)}
    log.add(*(trial for trial in new if trial.key not in known))


def _chosen_from(number: int, metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Name what a phase's validation compared, with its score where the metrics keep it."""
    for temperature, score in metrics.get("temperatures", {}).items():
        yield f"phase {number}, temperature {temperature}", score
    scores = [
        value
        for row in metrics.get("history", [])
        for key, value in row.items()
        if key.endswith(f"/{SELECTION}")
    ]
    count = int(metrics.get("n_evaluations", 0))
    scores = scores if len(scores) == count else [None] * count
    for i, score in enumerate(scores):
        yield f"phase {number}, evaluation {i}", score
