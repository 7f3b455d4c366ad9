"""The small market that the audit looks at in these tests, and a way to ask for one check alone."""

import dataclasses
from functools import cache

import exchange_calendars
import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.quality.validation import validate
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA, RawData
from hrl_sarp.studies.audit import Check
from hrl_sarp.studies.audit.rebuilt import Subject
from hrl_sarp.studies.audit.run import Observed, agent_steps, data_steps, require_subject
from tests import raw_data

N_DAYS = 700
DAYS_OF_A_QUARTER = 63
FIRST_PRINT, SECOND_PRINT = 40, 90
"""Days after the end of a quarter on which a report and its correction are published."""
OF_LEVELS = ("observations", "rewards", "fills")
"""Checks that one walk makes."""


def raw_with_reports(rng: np.random.Generator) -> RawData:
    """Draw prices, and a quarterly report of each stock that is corrected later."""
    raw = raw_data.random_raw(rng, N_DAYS)
    return RawData(**{**vars(raw), "own_features": reports(raw, rng)})


def reports(raw: RawData, rng: np.random.Generator) -> pl.DataFrame:
    ends = raw_data.sessions(N_DAYS)[::DAYS_OF_A_QUARTER]
    symbols = raw.bars["symbol"].unique().sort().to_list()
    parts = [
        pl.DataFrame(
            {
                "date": ends,
                "known_at": ends + np.timedelta64(lag, "D"),
                "symbol": [symbol] * len(ends),
                "name": ["report"] * len(ends),
                "value": rng.normal(size=len(ends)),
            },
            schema=OWN_FEATURES_SCHEMA,
        )
        for symbol in symbols
        for lag in (FIRST_PRINT, SECOND_PRINT)
    ]
    return pl.concat(parts).sort("name", "symbol", "known_at", "date")


def subject(raw: RawData, market: str = "us", config: RunConfig | None = None) -> Subject:
    """Assemble the market with whatever parts a test has replaced."""
    return audited(raw, market, config)[1]


def audited(
    raw: RawData, market: str = "us", config: RunConfig | None = None
) -> tuple[Check, Subject]:
    """Return the check of own features, and what is left to be audited."""
    config = config or small_config(market)
    data, profile = config.data, config.market_profile
    report = validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)
    return require_subject(raw, config, report)


def on_one_day(found: Subject) -> Subject:
    """Keep the last day t alone: making a market takes its time."""
    return dataclasses.replace(found, rows=found.rows[-1:])


def check_of(found: Subject, name: str) -> Check:
    """Make one check of the audit."""
    observed = Observed(found.market, None, ())
    steps = dict([*data_steps(found), *agent_steps(found, observed)])
    made = steps["levels" if name in OF_LEVELS else name]()
    return next(check for check in made if check.name == name)


def all_checks(found: Subject) -> list[Check]:
    """Make all checks of the audit but that of own features."""
    observed = Observed(found.market, None, ())
    steps = [*data_steps(found), *agent_steps(found, observed)]
    return [check for _, make in steps for check in make()]


def leaks_of(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {check.where}" for check in checks if check.result == "leak"]


def remember_calendars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each exchange calendar once: it takes most of the time of a small market."""
    monkeypatch.setattr(exchange_calendars, "get_calendar", _CALENDARS)


_CALENDARS = cache(exchange_calendars.get_calendar)


@cache
def small_config(market: str) -> RunConfig:
    """Return the configuration of three sectors whose spans lie inside the data."""
    few = {"baselines": ["inverse_volatility"]}
    config = raw_data.small_config(market, N_DAYS)
    evaluation = config.evaluation.model_copy(update=few)
    return config.model_copy(update={"evaluation": evaluation})
