"""The audit finds planted leaks, and flags none of their clean twins."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import Market
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import CheckpointError
from hrl_sarp.graph.sector_graph import node_features
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from hrl_sarp.training.phase import save_sector_table, with_sector_table
from tests import factories, tiny_runs
from tests.causality import audited
from tests.causality import leaky_variants as variants

PLANTED = variants.ASSEMBLY | variants.BEHAVIOUR


@pytest.fixture(scope="module")
def raw() -> RawData:
    return audited.raw_with_reports(np.random.default_rng(0))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    audited.remember_calendars(monkeypatch)
    monkeypatch.setattr("hrl_sarp.studies.audit.behaviour.SESSIONS", 12)
    monkeypatch.setattr("hrl_sarp.market.assemble.fit_regime_model", lambda *data: variants.MODEL)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found_and_named(
    name: str, raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = PLANTED[name]
    monkeypatch.setattr(variant.place, variant.leaky)
    check = audited.check_of(audited.on_one_day(audited.subject(raw)), variant.check)
    assert check.result == "leak"
    assert any(variant.names in place for place in check.places), check.places


@pytest.mark.parametrize("name", PLANTED)
def test_its_clean_twin_passes_that_check(
    name: str, raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = PLANTED[name]
    monkeypatch.setattr(variant.place, variant.clean)
    check = audited.check_of(audited.on_one_day(audited.subject(raw)), variant.check)
    assert check.result == "ok", check.places


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_its_clean_twin_is_flagged_by_no_check(
    name: str, raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = PLANTED[name]
    monkeypatch.setattr(variant.place, variant.clean)
    assert audited.leaks_of(audited.all_checks(audited.subject(raw))) == []


def test_a_sector_table_fitted_past_the_fold_is_refused(tmp_path: Path) -> None:
    config = tiny_runs.tiny_config()
    market = tiny_runs.tiny_market()
    table = node_features(market, config.macro_agent.graph)
    context = tiny_runs.context_of(market, config, tmp_path)
    path = context.folder(1) / "sector_graph.pt"
    save_sector_table(path, context, table)
    assert np.array_equal(with_sector_table(context).market.sector_embeddings, table)

    longer = dataclasses.replace(
        market.split, train=dataclasses.replace(market.split.train, stop=market.n_days)
    )
    past = tiny_runs.context_of(dataclasses.replace(market, split=longer), config, tmp_path)
    save_sector_table(path, past, table)
    with pytest.raises(CheckpointError, match=re.escape(path.name)):
        with_sector_table(context)


def gain_of_buying_the_winner_of_the_day(market: Market) -> float:
    """Hold each day the stock that has just gained most; t statistic of what it earns over 1/N.

    Returns are drawn independently, so it earns nothing unless it is paid the day it has seen.
    """
    total = market.session_return()
    costs = factories.cost_config(buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
    simulator = PortfolioSimulator(market, costs, factories.risk_config(), 1, torch.float64)
    simulator.reset(torch.tensor([0]))
    extra = []
    for day in range(market.n_days - 1):
        target = torch.zeros(1, market.n_assets, dtype=torch.float64)
        target[0, int(np.argmax(total[day]))] = 1.0
        earned = float(simulator.step(target).gross_return[0])
        extra.append(earned - total[day + 1].mean())
    return float(np.mean(extra) / (np.std(extra) / np.sqrt(len(extra))))


def test_a_fill_in_the_bar_that_was_decided_on_pays_what_nobody_could_earn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    market = factories.random_market(
        np.random.default_rng(5), n_days=150, halts=False, delistings=False
    )
    assert abs(gain_of_buying_the_winner_of_the_day(market)) < 2
    place = "hrl_sarp.simulator.fused._market_arrays"
    monkeypatch.setattr(place, variants.tables_of_the_decision)
    assert gain_of_buying_the_winner_of_the_day(market) > 5


def test_there_are_enough_kinds_of_leaks() -> None:
    assert len(PLANTED) >= 20
