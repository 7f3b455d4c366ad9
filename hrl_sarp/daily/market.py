"""The market of a trained run as it stands at the close of a day, also after the run's own data.

Agents were fitted on a training span. Later data continue it: the span, the features and all that
was fitted stay, and only rows are added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch

from hrl_sarp.config.loading import name_changes
from hrl_sarp.config.market_schema import SpanConfig, SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.store import RawData, read_raw
from hrl_sarp.encoders.windows.panel import bars_of_market
from hrl_sarp.errors import CheckpointError, DataError
from hrl_sarp.evaluation.policies import LoadedAgents
from hrl_sarp.market.assemble import assemble_market
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.own.profile import left_out
from hrl_sarp.market.sector_table import Origin, market_facts, market_fingerprint, read_origin
from hrl_sarp.observed.continued import RunTable, continue_embeddings
from hrl_sarp.observed.stocks import NO, observed_words
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.files import sha256_file, sha256_plain
from hrl_sarp.run.phases import CERTIFICATION, PHASES, best_file, config_of_run, seed_folders
from hrl_sarp.run.session import StopFlag
from hrl_sarp.training.curriculum import make_context

SAME_FACTS = ("profile", "training span")
"""Of `market_facts`: what later data must share with those of the training."""
FEATURES, SERIES = "market features", "series"
SAME_NAMES = ("sectors", "stock features", FEATURES)
"""The same; these are lists of names. So are `SERIES`: where VIX is missing, a feature would be
read from VIXCLS, which comes later and moves otherwise."""
MOST_GONE = 0.5
"""Share of the run's stocks that data of an earlier day than its last may lack: some were listed
later. Of data that go on `max_missing_share` may be lacking."""
SHOWN = 5
"""Stocks that a line names."""


@dataclass(frozen=True)
class TrainedRun:
    """A run of one seed or of several, whose agents decide.

    Examples:
        >>> [field for field in TrainedRun.__dataclass_fields__]
        ['log_dir', 'config', 'origin', 'seeds']
    """

    log_dir: Path
    config: RunConfig
    """With the spans by their days."""
    origin: Origin
    seeds: tuple[int, ...]

    @classmethod
    def read(cls, log_dir: Path) -> "TrainedRun":
        """Read what a run was trained on; its agents are not loaded.

        Args:
            log_dir: of the run.

        Returns:
            The run.

        Raises:
            MissingArtifactError: if there is no run, or its phase 1 has not finished.
            CheckpointError: if a file is damaged, was written by a version before, or belongs to a
                fold of a study.
        """
        folders = seed_folders(log_dir)
        first = next(iter(folders.values()))
        config = config_of_run(log_dir)
        path = best_file(first, 1, which=1)
        origin = read_origin(path)
        observe = observed_words(config)
        if observe != NO and origin.observed is None:
            raise CheckpointError(
                f"{path}: its agents observe tables (`observe: {observe}`), but it does not keep "
                "their encoders or forecaster, so that new days cannot be shown: expected a run of "
                "this version on collected data; run `hrl-sarp train --phase 1` and the phases "
                "after it again"
            )
        if not origin.spans:
            raise CheckpointError(
                f"{path} does not say on which spans it was trained: expected a run of `hrl-sarp "
                "train` on collected data, found one on a market made in memory"
            )
        seeds = tuple(config.seed if seed is None else seed for seed in folders)
        return cls(log_dir, _dated(config, origin), origin, seeds)

    @property
    def table(self) -> RunTable:
        """What the agents of the run observe of each stock."""
        first = next(iter(seed_folders(self.log_dir).values()))
        stocks = tuple(self.origin.facts["stocks"].split(", "))
        kept = self.origin.observed or {}
        return RunTable(best_file(first, 1, which=1), self.origin.dates, stocks, kept)


@dataclass(frozen=True)
class Today:
    """What is known at a close, for the agents of a run.

    Examples:
        >>> [field for field in Today.__dataclass_fields__]
        ['run', 'raw', 'market', 'halted_at_end']
    """

    run: TrainedRun
    raw: RawData
    """Up to the day."""
    market: Market
    """Its last row is the day."""
    halted_at_end: int

    @property
    def day(self) -> date:
        """The session at whose close the agents decide."""
        day: date = self.market.dates[-1].item()
        return day

    @property
    def closes(self) -> dict[str, float]:
        """Close as traded of each stock that may be traded on the day."""
        days = self.last_days
        return {s: close for s, close in self.last_closes.items() if days[s] == self.day}

    @cached_property
    def last_closes(self) -> dict[str, float]:
        """Last close as traded of every stock of the market, by `last_days`."""
        days = pl.DataFrame(
            list(self.last_days.items()), {"symbol": pl.String, "date": pl.Date}, orient="row"
        )
        found = self.raw.bars.join(days, on=["symbol", "date"], how="semi")
        return dict(found.select("symbol", "close").sort("symbol").iter_rows())

    @cached_property
    def last_days(self) -> dict[str, date]:
        """Day of the last bar of each stock of the market that has one.

        Bars that the validation keeps out do not count.
        """
        tradable, dates = self.market.tradable, self.market.dates
        rows = len(dates) - 1 - tradable[::-1].argmax(axis=0)
        days = zip(self.market.symbols, dates[rows].tolist(), strict=True)
        return {s: day for (s, day), row in zip(days, tradable.T, strict=True) if row.any()}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the market up to the day."""
        return market_fingerprint(self.market)

    @cached_property
    def agents(self) -> LoadedAgents:
        """The agents of the run, on this market."""
        context = make_context(
            self.run.config,
            self.market,
            self.run.log_dir,
            torch.device("cpu"),
            StopFlag(),
            resume=False,
        )
        return LoadedAgents.of(replace(context, goes_on=True))


def read_today(
    run: TrainedRun, data_dir: Path, settings: DailyConfig, day: date | None = None
) -> Today:
    """Assemble the market of a run as it stood at the close of a day.

    Args:
        run: whose agents decide.
        data_dir: `data/raw`, kept up to date.
        settings: of daily decisions.
        day: a session of the data; later rows are cut before anything is computed. None is the last
            one.

    Returns:
        The market, with the day as its last row.

    Raises:
        DataError: if the day is no session of the data, or the data cannot be used.
        CheckpointError: if the data do not continue those of the training, or what its agents
            observe is not beside them.
    """
    raw = read_raw(data_dir)
    sessions = raw.bars["date"].unique().sort()
    last = sessions[-1]
    if day is None or day == last:
        market = assembled_market(data_dir, run.config, settings.halted_sessions)
        report = None
    else:
        if day not in sessions:
            earlier = sessions.filter(sessions < day)
            near = f"the last one before it is {earlier[-1]}" if len(earlier) else "none is before"
            raise DataError(
                f"{data_dir}: --as-of {day} is no session of the data ({sessions[0]} to {last}); "
                f"{near}"
            )
        raw = as_of(raw, day)
        report = _validate(raw, run.config)
        market = assemble_market(
            raw, run.config, report=report, halted_at_end=settings.halted_sessions
        )
    _require_continued(run, market, raw, settings)
    if run.origin.observed is not None:
        findings = (report or _validate(raw, run.config)).table
        bars = bars_of_market(raw, findings, market, data_dir, settings.halted_sessions)
        market = continue_embeddings(market, bars, run.table, data_dir, run.config)
    return Today(run, raw, market, settings.halted_sessions)


def agents_hash(runs: Sequence[TrainedRun]) -> str:
    """Hash everything that decides: agents, what was granted to them, configuration.

    Args:
        runs: that decide as one.

    Returns:
        SHA-256 as 64 hex digits; it does not depend on where the runs lie.
    """
    found: list[Any] = []
    for run in runs:
        files = [run.log_dir / CERTIFICATION]
        for folder in seed_folders(run.log_dir).values():
            files.append(folder / PHASES[0].folder / CONFIG)
            files += [folder / phase.folder / name for phase in PHASES for name in phase.best]
        found.append(
            {
                path.relative_to(run.log_dir).as_posix(): sha256_file(path)
                for path in files
                if path.is_file()
            }
        )
    return sha256_plain(found)


def _validate(raw: RawData, config: RunConfig) -> ValidationReport:
    profile, data = config.market_profile, config.data
    return validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)


def _dated(config: RunConfig, origin: Origin) -> RunConfig:
    """Fix the spans of a run by their days; the test span goes on for as long as the data do."""
    train, validation, test = (
        SpanConfig(start=date.fromisoformat(first), end=date.fromisoformat(last))
        for first, last in (origin.spans[name] for name in ("train", "validation", "test"))
    )
    spans = SpansConfig(
        train=train, validation=validation, test=test.model_copy(update={"end": date.max})
    )
    profile = config.market_profile.model_copy(update={"spans": spans})
    return config.model_copy(update={"market_profile": profile})


def _require_continued(
    run: TrainedRun, market: Market, raw: RawData, settings: DailyConfig
) -> None:
    """Refuse data whose market is another one than that of the training."""
    there, here = run.origin.facts, market_facts(market)
    problems = name_changes(
        *({name: facts[name] for name in SAME_FACTS} for facts in (there, here))
    )
    reasons = left_out(market)
    for fact in SAME_NAMES:
        problems += _name_differences(fact, there[fact], here[fact], reasons)
    # runs of a version before do not say it; other features have other series
    if SERIES in there and there[FEATURES] == here[FEATURES]:
        problems += _name_differences(SERIES, there[SERIES], here[SERIES], {})
    stocks, in_data = there["stocks"].split(", "), set(raw.bars["symbol"].unique())
    gone = [symbol for symbol in stocks if symbol not in in_data]
    goes_on = market.dates[-1] >= run.origin.dates[-1]
    if len(gone) > len(stocks) * (settings.max_missing_share if goes_on else MOST_GONE):
        more = ", ..." if len(gone) > SHOWN else ""
        problems.append(
            f"{len(gone)} of its {len(stocks)} stocks are not in the data "
            f"({', '.join(gone[:SHOWN])}{more}): another universe, or files that did not come"
        )
    if problems:
        raise CheckpointError(
            f"the data do not continue those of {run.log_dir}: {'; '.join(problems)}; give the "
            "data folder of its training, brought up to date"
        )


def _name_differences(fact: str, there: str, here: str, reasons: Mapping[str, str]) -> list[str]:
    """Say in which of their names two lists differ."""
    wanted, found = there.split(", "), here.split(", ")
    lacking = [
        f"{name} ({reasons[name]})" if name in reasons else name
        for name in wanted
        if name not in found
    ]
    surplus = [name for name in found if name not in wanted]
    problems = (
        [f"{fact} that the run has and the data lack: {', '.join(lacking)}"] if lacking else []
    )
    if surplus:
        problems.append(f"{fact} that the run does not know: {', '.join(surplus)}")
    if there != here and not problems:
        problems.append(f"{fact} in another order")
    return problems
