import dataclasses
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.daily.decision.decide import account_clocks, decide, deployed
from hrl_sarp.daily.market import Today, TrainedRun, read_today
from hrl_sarp.daily.portfolio import Standing
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import CheckpointError, DataError, MissingArtifactError
from tests.daily.conftest import SETTINGS, Site


def decided(today: Today, day: date) -> dict[str, float]:
    """Decide for an account in cash."""
    standing = Standing(day, 1e5, {})
    clocks = account_clocks(today.market, today.run.config, standing)
    return decide(deployed([today]), clocks, standing).targets


def test_a_decision_is_the_same_on_data_that_end_with_its_day(site: Site, tmp_path: Path) -> None:
    whole = site.today()
    for day in site.later_days[3::19]:
        cut = site.today(day)
        write_raw(as_of(site.raw, day), tmp_path / str(day) / "raw")
        alone = site.today(data_dir=tmp_path / str(day) / "raw")
        assert cut.day == alone.day == day
        assert cut.fingerprint == alone.fingerprint
        expected = decided(whole, day)
        assert sum(expected.values()) > 0.5
        assert decided(cut, day) == expected
        assert decided(alone, day) == expected


def test_what_comes_after_the_day_changes_nothing(site: Site, tmp_path: Path) -> None:
    day = site.later_days[20]
    later = pl.col("date") > day
    prices = [pl.when(later).then(pl.col(c) * 3.0).otherwise(pl.col(c)).alias(c)
              for c in ("open", "high", "low", "close", "adj_close")]  # fmt: skip
    other = dataclasses.replace(site.raw, bars=site.raw.bars.with_columns(prices))
    write_raw(other, tmp_path / "raw")
    run = TrainedRun.read(site.run_dir)
    changed = read_today(run, tmp_path / "raw", SETTINGS, day)
    assert decided(changed, day) == decided(site.today(day), day)


def test_days_that_the_run_had_keep_its_sector_table(site: Site) -> None:
    today = site.today()
    run = TrainedRun.read(site.run_dir)
    context = today.agents.seeds[0].context
    table = context.market.sector_embeddings
    n_known = int((today.market.dates <= np.datetime64(run.origin.last_day)).sum())
    assert table is not None
    assert 0 < n_known < len(table)
    assert np.isfinite(table).all()
    assert len(np.unique(table[n_known:].reshape(len(table) - n_known, -1), axis=0)) > 10


def test_a_stock_without_bars_at_the_end_is_halted_and_then_gone(
    site: Site, tmp_path: Path
) -> None:
    days = site.later_days
    held = next(iter(decided(site.today(days[10]), days[10])))
    for missing, is_listed in ((1, True), (SETTINGS.halted_sessions, True),
                               (SETTINGS.halted_sessions + 1, False)):  # fmt: skip
        last = days[10 + missing]
        gone = (pl.col("symbol") == held) & (pl.col("date") > days[10])
        raw = as_of(dataclasses.replace(site.raw, bars=site.raw.bars.filter(~gone)), last)
        folder = tmp_path / str(missing) / "raw"
        write_raw(raw, folder)
        today = site.today(data_dir=folder)
        column = today.market.symbols.index(held)
        assert bool(today.market.listed[-1, column]) is is_listed
        assert not today.market.tradable[-1, column]
        standing = Standing(last, 1e5, {held: 0.05} if is_listed else {})
        clocks = account_clocks(today.market, today.run.config, standing)
        targets = decide(deployed([today]), clocks, standing).targets
        # a halted holding cannot be traded, so the decision keeps it
        assert targets.get(held, 0.0) == (pytest.approx(0.05) if is_listed else 0.0)


def test_a_day_that_is_no_session_is_refused_with_the_nearest(site: Site) -> None:
    sunday = date(2007, 7, 1)
    with pytest.raises(DataError, match=r"no session of the data.*2007-06-29"):
        site.today(sunday)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="no run at"):
        TrainedRun.read(tmp_path)


def test_a_run_on_other_spans_than_its_configuration_says_is_refused(site: Site) -> None:
    run = TrainedRun.read(site.run_dir)
    facts = {**run.origin.facts, "training span": "2005-01-03 to 2006-01-31"}
    other = dataclasses.replace(run, origin=dataclasses.replace(run.origin, facts=facts))
    with pytest.raises(CheckpointError, match=r"training span.*2006-01-31"):
        read_today(other, site.whole, SETTINGS)
