"""Runs all checks of the audit over a folder of data, and over the agents of a run."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from loguru import logger
from threadpoolctl import threadpool_limits

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.quality.validation import ValidationReport, read_validated
from hrl_sarp.data.store import RawData
from hrl_sarp.envs.rollout import Policy
from hrl_sarp.errors import CheckpointError, FeatureError
from hrl_sarp.evaluation.policies import trained_policies
from hrl_sarp.market.cache import data_hash, market_key
from hrl_sarp.market.own.profile import own_names
from hrl_sarp.observed.stocks import with_stock_embeddings
from hrl_sarp.run.session import StopFlag, one_thread
from hrl_sarp.run.terminal import stretch
from hrl_sarp.studies.audit import behaviour, evidence, spans
from hrl_sarp.studies.audit.checks import Check
from hrl_sarp.studies.audit.futures import FUTURES
from hrl_sarp.studies.audit.rebuilt import Subject, check_embeddings, try_future
from hrl_sarp.training import make_context
from hrl_sarp.training.phase import PhaseContext

READING = 0.05
"""Share of the bar that reading and assembling take."""
LEFT_OUT = ("they are left out, because own features or what they read have seen the future",)
"""Why the agents of a run were not audited."""
Step = tuple[str, Callable[[], list[Check]]]
"""Name on the screen, and what makes the checks."""


@dataclass(frozen=True)
class Audit:
    """What all checks came to.

    Examples:
        >>> Audit("data/raw", None, (Check("lag", "correlated", "ok"),)).n_leaks
        0
    """

    data: str
    """Folder of the data."""
    run: str | None
    """Log folder of the agents; None where only the data were audited."""
    checks: tuple[Check, ...]
    days: tuple[str, ...] = ()
    """Every t after which the future was changed."""

    @property
    def n_leaks(self) -> int:
        """Checks that found a leak."""
        return sum(check.result == "leak" for check in self.checks)


@threadpool_limits.wrap(limits=1)  # the matrices of the regime model are tiny
@one_thread()
def run_audit(data_dir: Path, config: RunConfig, log_dir: Path | None = None) -> Audit:
    """Look for the future in a user's data, features, rewards, policies and agents.

    Args:
        data_dir: `data/raw` as written by collect-data.
        config: of the user: market, own features, rewards and policies.
        log_dir: of a trained run; None audits the data and the rules alone.

    Returns:
        All checks, in the order in which they were made.

    Raises:
        HrlSarpError: if no market can be made of the data, or the run belongs to another one.
    """
    with stretch(0.0, READING, "reading the data"):
        raw, report = read_validated(data_dir, config)
        own, subject = require_subject(raw, config, report)
        # agents that were trained without these features do not fit a market with them
        agents = None if own.result == "leak" else log_dir
        observed = load_observed(subject, data_dir, agents)
    checks = [own]
    if log_dir is not None and observed.trained is None:
        checks.append(Check("agents", "loaded the agents of the run", "not applicable", LEFT_OUT))
    steps = [*data_steps(subject), *agent_steps(subject, observed)]
    share = (1.0 - READING) / len(steps)
    for number, (name, make) in enumerate(steps):
        begin = READING + number * share
        with stretch(begin, begin + share, name):
            made = make()
        for check in made:
            logger.info(f"{check.name}: {check.result}")
        checks += made
    days = tuple(str(subject.market.dates[row]) for row in subject.rows)
    return Audit(str(data_dir), None if log_dir is None else str(log_dir), tuple(checks), days)


def require_subject(
    raw: RawData, config: RunConfig, report: ValidationReport
) -> tuple[Check, Subject]:
    """Assemble the market, without the own features that look ahead.

    Args:
        raw: as collected.
        config: names the user's functions.
        report: of the validation.

    Returns:
        The check of own features, and what is left to be audited.

    Raises:
        HrlSarpError: if no market can be made of the data.
    """
    profile = config.market_profile
    of_stocks, of_market = own_names(raw)
    names = [*of_stocks, *of_market, *profile.extra_stock_features, *profile.extra_macro_features]
    tried = "computed functions again on the past alone; correlated tables with later returns"
    if not names:
        nothing = Check("own features", tried, "not applicable", ("there are none",))
        return nothing, Subject.of(raw, config, report)
    leaks = dict[str, str]()
    while True:
        try:
            subject = Subject.of(*_without(raw, config, leaks), report)
        except FeatureError as error:
            new = error.looking_ahead.keys() - leaks.keys()
            if not new:
                raise
            leaks |= error.looking_ahead
            continue
        told = [f"{name}: {problem}" for name, problem in leaks.items()]
        return Check.of("own features", tried, told, f"tried {', '.join(names)}"), subject


def _without(raw: RawData, config: RunConfig, names: Collection[str]) -> tuple[RawData, RunConfig]:
    """Take features out of the data and the configuration."""
    own, profile = raw.own_features, config.market_profile
    if own is not None:
        kept = own.filter(~pl.col("name").is_in(list(names)))
        raw = dataclasses.replace(raw, own_features=kept)
    lists = {
        key: [name for name in getattr(profile, key) if name not in names]
        for key in ("extra_stock_features", "extra_macro_features")
    }
    return raw, config.model_copy(update={"market_profile": profile.model_copy(update=lists)})


def data_steps(subject: Subject) -> list[Step]:
    """List the checks of data, features and labels."""
    raw, market, config = subject.raw, subject.market, subject.config
    return [
        *((future.name, partial(_one, try_future, subject, future)) for future in FUTURES),
        ("embeddings", partial(_one, check_embeddings, subject, subject.rows)),
        ("sector graph", partial(_one, behaviour.check_graph, market, config, subject.rows)),
        ("split overlap", partial(_one, spans.check_spans, market, config)),
        ("lag", partial(_one, evidence.check_lag, market)),
        ("publication", partial(_one, evidence.check_publication, raw)),
        ("survivorship", partial(_one, evidence.check_survivorship, raw)),
        ("duplicates", partial(_one, evidence.check_duplicates, market, subject.report)),
    ]


def _one(make: Callable[..., Check], *given: Any) -> list[Check]:
    return [make(*given)]


@dataclass(frozen=True)
class Observed:
    """The market as agents see it, and the agents of a run, if there are any."""

    market: Market
    """With the embeddings of its encoders."""
    trained: behaviour.Trained | None
    """Loads the policies of the run."""
    past: tuple[str, ...]
    """Files that were refused, because they were fitted on days after the training span."""


def load_observed(subject: Subject, data_dir: Path, log_dir: Path | None) -> Observed:
    """Load encoders and agents; those that have seen the future are named and left out.

    Args:
        subject: the data and their market.
        data_dir: of the data; encoders lie beside it.
        log_dir: of the run; None without one.

    Returns:
        What agents see and do.

    Raises:
        HrlSarpError: if encoders or agents are missing, damaged or of another market.
    """
    market, config, cpu = subject.market, subject.config, torch.device("cpu")
    facts = {"data_hash": data_hash(data_dir), "market_hash": market_key(data_dir, config)}
    market = dataclasses.replace(market, manifest={**market.manifest, **facts})

    try:
        market = with_stock_embeddings(market, data_dir, config, cpu)
        if log_dir is None:
            return Observed(market, None, ())
        context = make_context(config, market, log_dir, cpu, StopFlag(), resume=False)
        trained = partial(_policies_of, context)
        trained(lambda same: same)
    except CheckpointError as error:
        if not error.has_seen_future:
            raise
        return Observed(market, None, (str(error),))
    return Observed(market, trained, ())


def _policies_of(context: PhaseContext, change: behaviour.Change) -> Sequence[Policy]:
    return trained_policies(context, change)[0]


def agent_steps(subject: Subject, observed: Observed) -> list[Step]:
    """List the checks of what is fitted, seen, decided, earned and rewarded."""
    market, trained = observed.market, observed.trained
    agents = "agents" if trained else ""
    seen = market, subject.config, subject.rows
    return [
        ("vintages", partial(_one, spans.check_vintages, market, agents, observed.past)),
        ("levels", partial(behaviour.check_levels, *seen)),
        ("decisions", partial(_one, behaviour.check_decisions, *seen, trained)),
    ]
