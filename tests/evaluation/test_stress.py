"""Scenarios through the simulator: losses, breaches and recoveries worked out by hand."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig, ShockConfig, StressWindow
from hrl_sarp.contracts import Market
from hrl_sarp.errors import MarketError
from hrl_sarp.evaluation.policies import Decision, DecisionView
from hrl_sarp.evaluation.stress import PoliciesOn, StressResult, recovery_days, run_stress_test
from hrl_sarp.evaluation.stress_report import headline, scenario_table, write_stress_test
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, buy_once, stress_config

SECTORS = {"Sector0": "A", "Sector1": "B"}
SHOCK = ShockConfig(
    name="fall", sector_returns=[-0.36, 0.21], days=2, recovery_days=4, probability=0.1
)
WIDE = factories.risk_config(stock_cap=1.0, sector_cap=1.0)


def holder(name: str, *shares: float) -> PoliciesOn:
    return lambda market: [ScriptedPolicy(name, buy_once(*shares))]


def still_market(n_days: int = 40) -> Market:
    """Two stocks of two sectors that never move, but once so long ago that no policy held them."""
    intraday = np.zeros((n_days, 2))
    intraday[1] = 0.01
    return factories.market_with(np.zeros((n_days, 2)), intraday, [0, 1])


def window(name: str, market: Market, first: int, last: int) -> StressWindow:
    start, end = (date.fromisoformat(str(market.dates[row])) for row in (first, last))
    return StressWindow(name=name, start=start, end=end)


def run(
    market: Market, policies: PoliciesOn, shocks: Sequence[ShockConfig] = (SHOCK,), **changes: Any
) -> StressResult:
    changes = {"risk": WIDE, **changes}
    return run_stress_test(market, policies, stress_config(SECTORS, list(shocks), **changes))


# ---- shocks


def test_a_held_portfolio_loses_the_sum_of_weight_times_return() -> None:
    (scenario,) = run(still_market(), holder("own", 0.5, 0.3)).scenarios
    figures = scenario.figures["own"]
    # 0.5 x -0.36 + 0.3 x 0.21 = -0.117, whatever the split of days and nights
    assert figures.loss == pytest.approx(0.117, abs=1e-12)
    # on the way: 0.5 x 0.8 + 0.3 x 1.1 + 0.2 = 0.93, then 0.883, back in four sessions
    back = [0.5 * 0.64 * 1.25 ** (k / 2) + 0.3 * 1.21 / 1.1 ** (k / 2) + 0.2 for k in range(5)]
    path = scenario.wealth[:, scenario.names.index("own")]
    assert path == pytest.approx([1.0, 0.93, *back])
    assert back[-1] == pytest.approx(1.0)
    assert figures.recovery_days == 4


def test_costs_of_the_entry_are_paid_before_the_stress() -> None:
    costly = run(still_market(), holder("own", 0.5, 0.3), costs=factories.cost_config())
    assert costly.scenarios[0].figures["own"].loss == pytest.approx(0.117, abs=1e-12)
    assert costly.scenarios[0].figures["own"].turnover == 0.0


def test_trading_in_the_stress_costs_what_the_simulator_charges() -> None:
    def sells_all(view: DecisionView) -> Decision:
        frozen = view.day >= view.tensors.n_days - 7  # the close before the shock and later
        return Decision(torch.tensor([0.0, 0.0] if frozen else [0.5, 0.0]))

    costs = factories.cost_config(sell_bps=100.0, slippage_bps=0.0, buy_bps=0.0)
    found = run(still_market(), lambda market: [ScriptedPolicy("own", sells_all)], costs=costs)
    # the night takes 0.5 to 0.5 x sqrt(0.8); that is sold at 1 %
    night = 0.5 * 0.8**0.5
    wealth = 0.5 + night - 0.01 * night
    assert found.scenarios[0].figures["own"].loss == pytest.approx(1 - wealth, abs=1e-12)


def test_equal_sectors_lose_what_is_known_of_the_seven_shocks() -> None:
    # means of the eleven returns; an earlier system's table says -28.9, -10.6, -11.4, ...
    known = [0.289, 0.105, 0.114, 0.114, 0.350, 0.075, 0.090]
    still = np.zeros((40, 11))
    given = load_config().stress
    shocks = [shock.model_copy(update={"recovery_days": 1}) for shock in given.shocks]
    names = {f"Sector{i}": name for i, name in enumerate(given.sectors)}
    config = stress_config(names, shocks, risk=WIDE, sectors=given.sectors)
    market = factories.market_with(still, still, range(11))
    found = run_stress_test(market, holder("own", *[1 / 11 * 0.98] * 11), config)
    losses = [scenario.figures["own"].loss / 0.98 for scenario in found.scenarios]
    assert losses == pytest.approx(known, abs=6e-4)


def test_breaches_are_counted_where_drift_passes_a_cap() -> None:
    risk = factories.risk_config(stock_cap=0.5, sector_cap=0.5, gate_drawdown=0.1)
    found = run(still_market(), holder("own", 0.5, 0.45), risk=risk)
    figures = found.scenarios[0].figures["own"]
    # after the first night stock 1 holds 0.45 x 1.0488 / (0.05 + 0.5 x 0.8944 + 0.45 x 1.0488)
    # = 0.487 < 0.5; after the second 0.5191 / 0.9268 = 0.56 > 0.5, a sector of its own
    assert (figures.stock_cap_days, figures.sector_cap_days) == (1, 1)
    # closes: 0.945, then 0.9145: never 10 % down; a limit of 5 % is passed on both
    assert figures.drawdown_limit_days == 0
    tight = run(still_market(), holder("own", 0.5, 0.45), risk=risk.model_copy(
        update={"gate_drawdown": 0.05}))  # fmt: skip
    assert tight.scenarios[0].figures["own"].drawdown_limit_days == 2


def test_the_index_has_no_part_in_shocks_and_1_n_always_has() -> None:
    (scenario,) = run(still_market(), holder("own", 0.5, 0.3)).scenarios
    assert "index" not in scenario.names
    assert "1/N" in scenario.names


def test_policies_of_a_shock_see_the_last_day_again_and_again() -> None:
    rng = np.random.default_rng(1)
    still = np.zeros((40, 2))
    market = factories.market_with(still, still, [0, 1], stock_features=rng.normal(size=(40, 2, 5)))
    seen: list[torch.Tensor] = []

    def script(view: DecisionView) -> Decision:
        seen.append(view.tensors.slot_features[view.day])
        return Decision(torch.tensor([0.5, 0.3]))

    run(market, lambda read: [ScriptedPolicy("own", script)])
    warm_up = 3
    after = seen[warm_up:]
    assert len(after) == SHOCK.days + SHOCK.recovery_days
    assert all(torch.equal(row, after[0]) for row in after)
    assert not torch.equal(seen[0], after[0])


def test_too_little_history_for_the_warm_up_is_refused() -> None:
    told = r"2 sessions before .* expected the 3 of stress\.warm_up_days"
    with pytest.raises(MarketError, match=told):
        run(still_market(3), holder("own", 0.5, 0.3))


# ---- windows


def falling_market() -> Market:
    """One stock: 10 % down on rows 21 and 22, then 5 % up a day from row 23 on."""
    intraday = np.zeros((60, 2))
    intraday[21:23], intraday[23:] = -0.10, 0.05
    return factories.market_with(np.zeros((60, 2)), intraday, [0, 1])


def test_a_window_counts_from_the_close_of_its_first_day() -> None:
    market = falling_market()
    found = run(
        market,
        holder("own", 0.5, 0.5),
        shocks=[],
        windows=[window("fall", market, 20, 24)],
        risk=factories.risk_config(stock_cap=1.0, sector_cap=1.0, min_cash=0.0),
    )
    (scenario,) = found.scenarios
    figures = scenario.figures["own"]
    assert (scenario.kind, scenario.n_days) == ("window", 4)
    # rows 21 to 24: 0.9 x 0.9 x 1.05 x 1.05
    assert figures.loss == pytest.approx(1 - 0.81 * 1.1025)
    assert figures.max_drawdown == pytest.approx(0.19)
    # 0.81 x 1.05^n reaches 1 (less 0.1 %) at n = 5: 1.0338; 0.9846 at n = 4
    assert figures.recovery_days == 5
    assert str(scenario.dates[0]) == str(market.dates[20])
    assert len(scenario.wealth) == 1 + 4 + 10  # recovery is watched for 10 sessions


def test_windows_say_what_was_seen_and_which_are_not_covered() -> None:
    market = falling_market()  # trained to row 35, validated on rows 37 to 47, tested from 49
    windows = [
        window("early", market, 2, 8),
        window("trained", market, 10, 20),
        window("both", market, 30, 40),
        window("new", market, 49, 55),
        StressWindow(name="later", start=date(2030, 1, 1), end=date(2030, 2, 1)),
        StressWindow(name="weekend", start=date(2001, 2, 3), end=date(2001, 2, 4)),
    ]
    found = run(market, holder("own", 0.5, 0.3), shocks=[], windows=windows)
    assert {s.name: s.seen for s in found.scenarios} == {
        "trained": ("train",),
        "both": ("train", "validation"),
        "new": (),
    }
    assert found.not_covered == {
        "early": "the universe and 3 sessions of warm-up exist first on 2001-01-04",
        "later": f"the data end on {market.dates[-1]}",
        "weekend": "the data have no two sessions in it",
    }
    assert "index" in found.scenarios[0].names


# ---- recovery


@pytest.mark.parametrize(
    ("moves", "n_days", "expected"),
    [
        ([0.1, -0.5, 1.0, 0.1], 2, 1),  # peak 1.1, trough 0.55, 1.1 again after one session
        ([-0.5, 0.5, 0.3, 0.1], 1, 3),  # 0.5, then 0.75, 0.975, 1.0725
        ([-0.5, 0.1, 0.1], 1, None),
        ([0.1, 0.1], 2, 0),
        ([-0.0005, 0.0], 1, 0),  # less than recovered_within
    ],
)
def test_recovery_runs_from_the_deepest_point_to_the_peak_before(
    moves: list[float], n_days: int, expected: int | None
) -> None:
    config = stress_config(SECTORS, [SHOCK])
    assert recovery_days(np.array(moves), n_days, config.stress) == expected


# ---- report


@pytest.fixture(scope="module")
def result() -> StressResult:
    market = falling_market()
    windows = [window("replayed", market, 20, 24), window("unseen", market, 49, 55)]
    windows.append(StressWindow(name="later", start=date(2030, 1, 1), end=date(2030, 2, 1)))
    risk = factories.risk_config(stock_cap=0.5, sector_cap=0.5)
    return run(market, holder("own", 0.5, 0.3), windows=windows, risk=risk)


def test_the_files_hold_every_policy_of_every_scenario(
    result: StressResult, tmp_path: Path
) -> None:
    page = write_stress_test(result, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert [s["name"] for s in found["scenarios"]] == ["replayed", "unseen", "fall"]
    # three sessions of 5 % in the warm-up: 0.8 in stocks became 0.9261 of 1.1261
    loss = 0.117 * 1.05**3 / (0.2 + 0.8 * 1.05**3)
    assert found["scenarios"][2]["policies"]["own"]["loss"] == pytest.approx(loss)
    assert found["scenarios"][0]["seen"] == ["train"]
    assert found["not_covered"].keys() == {"later"}
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_table_and_the_sentences_say_the_same(result: StressResult) -> None:
    rows = {row[0]: row for row in scenario_table(result).rows}
    assert rows["fall"][3] == "12.0 %"
    assert rows["replayed"][2] == "train"
    # own holds 0.8: 1 - 0.8 x (1 - 0.81) = 0.848 after two falls of 10 %
    assert rows["replayed"][5] == "15.2 %"
    sentences = " ".join(headline(result))
    assert "Not run: later (the data end on" in sentences
    assert "no evidence for them: replayed." in sentences


def test_a_result_without_scenarios_still_makes_a_page(tmp_path: Path) -> None:
    found = run(still_market(), holder("own", 0.5, 0.3), shocks=[])
    assert "<svg" not in write_stress_test(found, tmp_path).read_text()


def test_every_profile_maps_all_its_sectors() -> None:
    for name in ("sample", "us", "nse", "synthetic"):
        config: RunConfig = load_config(market=name)
        assert set(config.market_profile.sectors) == set(config.market_profile.stress.sectors)
