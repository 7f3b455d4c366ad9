"""Whatever happens after day t, every row up to t stays the same to the last bit."""

import numpy as np
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.data.store import RawData
from tests import raw_data
from tests.causality import changed_futures as futures

Case = tuple[str, RawData, Market]


@pytest.fixture(autouse=True)
def _calendars(monkeypatch: pytest.MonkeyPatch) -> None:
    futures.remember_calendars(monkeypatch)


@pytest.fixture(scope="module", params=["us", "sample"])
def case(request: pytest.FixtureRequest) -> Case:
    raw = raw_data.random_raw(np.random.default_rng(0), futures.N_DAYS)
    if request.param == "sample":
        raw = raw_data.closes_only(raw)
    return request.param, raw, futures.assemble(request.param, raw)


@pytest.mark.parametrize(
    "change",
    [futures.truncate, futures.corrupt, futures.permute, futures.unpublish, futures.readjust],
)
@pytest.mark.parametrize("row", [575])
def test_rows_up_to_t_ignore_everything_unknown_at_t(
    case: Case, change: futures.Change, row: int
) -> None:
    name, raw, expected = case
    if change is futures.readjust and name == "sample":
        pytest.skip("closes that are adjusted themselves have no other close to be measured by")
    day = futures.day_with_all_bars(raw, row)
    found = futures.assemble(name, change(raw, day))
    moved = set(futures.moved_until(expected, found, day))
    if change is futures.unpublish:
        # cash earns the rate of the month before, which is printed later: a return, seen by nobody
        moved -= {"risk_free"}
    assert moved == set()


def test_the_changes_do_move_later_rows(case: Case) -> None:
    # positive control: else the tests above could not fail
    name, raw, expected = case
    day = futures.day_with_all_bars(raw, 560)
    n_rows = int(np.searchsorted(expected.dates, day, side="right"))
    changed = futures.assemble(name, futures.corrupt(raw, day))
    moved = np.any(changed.stock_features[n_rows:] != expected.stock_features[n_rows:], axis=(0, 1))
    assert moved.all(), np.array(expected.feature_names)[~moved]
