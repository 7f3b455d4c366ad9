from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import peers


def test_what_cannot_be_imported_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_bt(name: str) -> Any:
        if name == "bt":
            return ModuleType(name)
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(peers, "import_module", only_bt)
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    found, reasons = peers.importable()
    assert list(found) == ["bt"]
    expected = {"vectorbt", "finrl", "gym_trading_env", "torchtrade", "tensortrade"}
    assert set(reasons) == expected
    assert reasons["tensortrade"] == "No module named 'tensortrade'"


@pytest.mark.parametrize("rate", [0.0, peers.RATE])
def test_shares_given_to_peers_book_our_wealth_by_hand(rate: float) -> None:
    task = peers.draw_task(7, rate)
    wealth, shares = task.ours
    cash = peers.CAPITAL
    for day in range(1, len(wealth)):
        traded = (shares[day] - shares[day - 1]) * task.prices[day]
        cash -= traded.sum() + rate * np.abs(traded).sum()
        assert cash + shares[day] @ task.prices[day] == pytest.approx(wealth[day], rel=1e-12)
    # a year of whole turns at 10 bps a side takes a tenth of wealth or more
    assert (wealth[-1] < 0.9 * peers.draw_task(7, 0.0).ours[0][-1]) == (rate > 0)


def test_a_book_that_differs_is_told_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: Any, task: peers.Task) -> np.ndarray:
        return task.ours[0] * np.linspace(1, 1 + 1e-6, len(task.prices))

    monkeypatch.setattr(peers, "BOOKS", {"bt": wrong})
    monkeypatch.setattr(peers, "SIZES", (3,))
    apart = peers.differences({"bt": SimpleNamespace()})  # type: ignore[dict-item]
    assert list(apart) == ["bt, 3 stocks, 0 bps", "bt, 3 stocks, 10 bps"]
    assert min(apart.values()) == pytest.approx(1e-6, rel=1e-6)
