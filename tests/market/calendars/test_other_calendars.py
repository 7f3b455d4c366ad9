"""Markets of other calendars: a year has their own number of sessions, in features and figures."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import USUAL_SESSIONS, SessionCounts
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality.validation import validate
from hrl_sarp.data.session_counts import session_counts
from hrl_sarp.data.sources.files import folder
from hrl_sarp.evaluation.backtest import run_backtest
from hrl_sarp.evaluation.performance import measure_policies
from hrl_sarp.market.assemble import assemble_market
from hrl_sarp.metrics import annual_return, annual_volatility
from hrl_sarp.training import run_phase
from tests.tiny_runs import TINY, changed, context_of

SPANS = {
    "train": {"start": date(2020, 6, 1), "end": date(2021, 3, 31)},
    "validation": {"start": date(2021, 4, 1), "end": date(2021, 8, 31)},
    "test": {"start": date(2021, 9, 1), "end": date(2021, 12, 31)},
}


def write_files(into: Path, calendar: str, sectors: list[str]) -> Path:
    """Generate six instruments that move by 2 % on every session of the calendar."""
    days = sessions_between(calendar, date(2019, 1, 1), date(2021, 12, 31))
    rng = np.random.default_rng(3)
    common = rng.normal(5e-4, 0.02, len(days))
    frames = []
    for number in range(6):
        close = 10 * np.exp(np.cumsum(common + rng.normal(0, 0.02, len(days))))
        opening = close * np.exp(rng.normal(0, 0.005, len(days)))
        prices = {
            "open": opening,
            "high": np.maximum(opening, close) * 1.002,
            "low": np.minimum(opening, close) / 1.002,
            "close": close,
            "volume": np.exp(rng.normal(13, 0.3, len(days))),
        }
        frames.append(pl.DataFrame({"date": days, "symbol": [f"C{number}"] * len(days), **prices}))
    into.mkdir()
    pl.concat(frames).write_csv(into / "prices.csv")
    named = [(f"C{number}", sectors[number % len(sectors)]) for number in range(6)]
    pl.DataFrame(named, ["symbol", "sector"], orient="row").write_csv(into / "sectors.csv")
    return into


def configured(market: str) -> RunConfig:
    baselines = {"baselines": [], "bootstrap_samples": 20, "random_portfolios": 0}
    overrides = {"market_profile": {"spans": SPANS}, "evaluation": baselines}
    return load_config(market=market, overrides=overrides)


@pytest.mark.parametrize(
    ("market", "counts"),
    [
        ("us", SessionCounts(5, 252)),
        ("nse", SessionCounts(5, 252)),
        ("sample", SessionCounts(5, 252)),
        ("synthetic", SessionCounts(5, 252)),
        ("crypto", SessionCounts(7, 365)),
        ("fx", SessionCounts(5, 261)),
    ],
)
def test_sessions_of_each_market(market: str, counts: SessionCounts) -> None:
    assert session_counts(load_config(market=market).market_profile) == counts


def test_lengths_of_time_of_a_stock_exchange_are_those_of_their_names() -> None:
    usual = USUAL_SESSIONS
    assert (usual.week, usual.month, usual.quarter, usual.half, usual.year) == (5, 20, 65, 126, 252)
    assert (usual.scaled(22), usual.scaled(66), usual.scaled(21)) == (22, 66, 21)
    assert SessionCounts(7, 365).scaled(21) == 30


@pytest.mark.parametrize(
    ("market", "calendar", "year"), [("crypto", "24/7", 365), ("fx", "24/5", 261)]
)
def test_market_of_another_calendar_is_measured_with_its_own_year(
    market: str, calendar: str, year: int, tmp_path: Path
) -> None:
    config = configured(market)
    raw = folder.load(write_files(tmp_path / "in", calendar, config.market_profile.sectors))
    profile, data = config.market_profile, config.data
    report = validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)
    assert report.table.is_empty()
    found = assemble_market(raw, config, report=report)
    assert found.sessions.year == year
    result = run_backtest(found, [], "test", config)
    figures = measure_policies(result.main, found, config, result.trials, result.policy_names)
    net = result.main.net_return[:, result.main.names.index("1/N")]
    assert figures["1/N"]["annual_return"] == annual_return(net, year)
    assert figures["1/N"]["volatility"] == annual_volatility(net, year)
    if year == 261:
        return  # weeks of five sessions are trained elsewhere
    once = {"macro_agent": {"pretrain": {"epochs": 1}}, "micro_agent": {"pretrain": {"epochs": 1}}}
    context = context_of(found, changed(changed(config, TINY), once), tmp_path / "logs")
    for phase in (1, 2, 3):
        summary = run_phase(phase, context).summary
        assert all(np.isfinite(value) for value in summary.values() if isinstance(value, float))
