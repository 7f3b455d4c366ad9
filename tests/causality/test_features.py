"""Whatever happens after day t, every row up to t stays the same."""

import numpy as np
import pytest

from hrl_sarp.studies.audit.futures import FUTURES, Future, corrupt
from hrl_sarp.studies.audit.rebuilt import Subject, assemble_again, try_future
from tests import raw_data
from tests.causality import audited


@pytest.fixture(autouse=True)
def _calendars(monkeypatch: pytest.MonkeyPatch) -> None:
    audited.remember_calendars(monkeypatch)


@pytest.fixture(scope="module", params=["us", "sample"])
def subject(request: pytest.FixtureRequest) -> Subject:
    raw = audited.raw_with_reports(np.random.default_rng(0))
    if request.param == "sample":
        raw = raw_data.closes_only(raw)
    return audited.subject(raw, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("market", ["us", "sample"])
def test_a_market_without_leaks_passes_every_check(market: str) -> None:
    raw = audited.raw_with_reports(np.random.default_rng(1))
    if market == "sample":
        raw = raw_data.closes_only(raw)
    checks = audited.all_checks(audited.subject(raw, market))
    assert audited.leaks_of(checks) == []
    assert sum(check.result == "ok" for check in checks) >= 13


@pytest.mark.parametrize("future", FUTURES, ids=lambda future: future.name)
def test_rows_up_to_t_ignore_everything_unknown_at_t(subject: Subject, future: Future) -> None:
    check = try_future(subject, future)
    assert check.result in ("ok", "not applicable"), check.where
    if check.result == "not applicable":  # closes alone, without series that are printed late
        assert subject.config.market == "sample"
        assert future.name in ("split later", "not printed yet")


def test_the_changes_do_move_later_rows(subject: Subject) -> None:
    # positive control: else the test above could not fail
    market, row = subject.market, subject.rows[-1]
    changed = assemble_again(corrupt(subject.raw, market.dates[row]), subject.config)
    later = slice(row + 1, None)
    moved = np.any(changed.stock_features[later] != market.stock_features[later], axis=(0, 1))
    assert moved.all(), np.array(market.feature_names)[~moved]
