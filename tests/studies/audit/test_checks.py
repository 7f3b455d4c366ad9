"""What the audit says, and how it chooses its days and accounts for sessions."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from hrl_sarp.contracts import Market
from hrl_sarp.data.quality.validation import ValidationReport
from hrl_sarp.data.store import RawData
from hrl_sarp.envs import make_level
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.studies.audit import Audit, Check, audit_table, rebuilt, verdict
from hrl_sarp.studies.audit.behaviour import with_shuffled_future, wrong_sessions
from hrl_sarp.studies.audit.futures import Future
from hrl_sarp.studies.audit.rebuilt import Subject, quiet_row, try_future, whole_until
from hrl_sarp.studies.audit.spans import check_vintages
from tests import raw_data, tiny_runs


def report_of(*days: np.datetime64) -> ValidationReport:
    found = {"rule": ["taken_back"] * len(days), "date": [day.item() for day in days]}
    table = pl.DataFrame(found, schema={"rule": pl.String(), "date": pl.Date()})
    return ValidationReport(table, n_bars=1, n_symbols=1)


def halted(market: Market, row: int, n_days: int) -> Market:
    """Halt the first stock for some days up to a row."""
    tradable = np.ones_like(market.tradable)
    tradable[row + 1 - n_days : row + 1, 0] = False
    return replace(market, tradable=tradable, listed=np.ones_like(tradable))


def test_a_halted_stock_hides_whether_it_has_left_since_its_last_bar() -> None:
    market = halted(tiny_runs.tiny_market(), row=100, n_days=3)
    assert [whole_until(market, row) for row in (97, 98, 100, 101)] == [97, 97, 97, 101]


def test_the_day_has_no_halt_and_no_finding_that_later_bars_decide() -> None:
    market = halted(tiny_runs.tiny_market(), row=102, n_days=3)
    assert quiet_row(market, report_of(), 95, reach=6) == 95
    assert quiet_row(market, report_of(), 100, reach=6) == 103
    assert quiet_row(market, report_of(), market.n_days - 1, reach=6) == market.n_days - 2
    # a finding of row 104 touches rows 98 to 110
    assert quiet_row(market, report_of(market.dates[104]), 100, reach=6) == 111


def test_another_future_keeps_the_calendar_and_all_rows_up_to_the_day() -> None:
    market = tiny_runs.tiny_market()
    other = with_shuffled_future(market, 120)
    np.testing.assert_array_equal(other.dates, market.dates)
    np.testing.assert_array_equal(other.is_week_end, market.is_week_end)
    np.testing.assert_array_equal(other.stock_features[:121], market.stock_features[:121])
    assert not np.array_equal(other.stock_features[121:], market.stock_features[121:])
    # rows move together: each row of the other market is a row of this one in every table
    rows = [int(np.flatnonzero((market.stock_features == row).all(axis=(1, 2)))[0])
            for row in other.stock_features]  # fmt: skip
    assert sorted(rows) == list(range(market.n_days))
    np.testing.assert_array_equal(other.overnight_return, market.overnight_return[rows])


@pytest.mark.parametrize("error", [0.0, 1e-6])
def test_a_session_that_earns_another_return_is_found(error: float) -> None:
    market, config = tiny_runs.with_nodes(tiny_runs.tiny_market()), tiny_runs.tiny_config()
    level = make_level(MarketTensors(market, torch.float64, "cpu"), config, "micro", 2)
    level.reset(torch.tensor([60, 60]), torch.ones(2, dtype=torch.bool))
    size = level.action_space.shape[0]
    trades = [level.step(torch.full((2, size), 1 / size)).trade for _ in range(5)]
    third = trades[2]
    trades[2] = replace(third, gross_return=third.gross_return + error)
    assert wrong_sessions(market, trades) == ([63] if error else [])


def test_the_verdict_counts_leaks_and_notes() -> None:
    checks = (
        Check.of("corrupted", "changed", ["return_5d of 2020-01-02 (t = 2020-01-06)"]),
        Check.of("lag", "correlated", [], "nothing"),
        Check("survivorship", "counted", "note", ("nobody leaves",)),
    )
    audit = Audit("data/raw", None, checks, ("2020-01-06",))
    assert verdict(audit) == "1 of 3 checks found a leak. 1 left a note."
    assert verdict(replace(audit, checks=checks[1:2])) == "No leak was found in 1 checks."
    table = audit_table(audit)
    assert table.rows[0][:3] == ("corrupted", "leak", checks[0].places[0])
    assert table.emphasised == {"corrupted"}
    assert "t = 2020-01-06" in table.whole_note


def test_a_leak_at_one_day_counts_although_nothing_can_change_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    market, raw = tiny_runs.tiny_market(), raw_data.random_raw(np.random.default_rng(0), 700)
    seen = market.stock_features.copy()
    seen[7] += 1.0
    monkeypatch.setattr(rebuilt, "assemble_again", lambda *_: replace(market, stock_features=seen))
    asked = Subject(raw, tiny_runs.tiny_config(), market, report_of(), (100, 120))

    def change(same: RawData, day: np.datetime64) -> RawData:
        return replace(same, bars=same.bars.head(9)) if day == market.dates[100] else same

    found = try_future(asked, Future("own", "changed", change))
    assert found.result == "leak"
    assert all(f"of {market.dates[7]} (t = {market.dates[100]})" in where for where in found.places)
    found = try_future(replace(asked, rows=(120,)), Future("own", "changed", change))
    assert found.result == "not applicable"
    assert found.places == (f"there is nothing to change after {market.dates[120]}",)
    found = try_future(replace(asked, rows=(110, 120)), Future("own", "changed", change))
    days = f"{market.dates[110]}, {market.dates[120]}"
    assert found.places == (f"there is nothing to change after {days}",)


def test_scalers_that_were_fitted_after_the_training_span_are_a_leak() -> None:
    market = tiny_runs.tiny_market()
    first, end = market.dates[0], market.dates[market.split.train.stop - 1]

    def fitted_to(day: np.datetime64) -> Check:
        span = [str(first), str(day)]
        return check_vintages(replace(market, manifest={"fitted_span": span}), "", ())

    assert fitted_to(end).result == "ok"
    late = fitted_to(end + np.timedelta64(1, "D"))
    assert late.places == (f"scalers and regimes to {end + np.timedelta64(1, 'D')}",)
    assert late.result == "leak"
