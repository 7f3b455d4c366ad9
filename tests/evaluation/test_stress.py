"""Scenarios through the simulator: losses, breaches and recoveries worked out by hand."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.config.consistency import require_shock_sectors
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import StressWindow
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.rollout import Decision, DecisionView
from hrl_sarp.errors import ConfigError, MarketError
from hrl_sarp.evaluation.stress import (
    frozen_market,
    recovery_days,
    run_stress_test,
    shocked_market,
)
from hrl_sarp.risk import risk_tables
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, stress_config
from tests.evaluation.small_stress import (
    SECTORS,
    SHOCK,
    WIDE,
    falling_market,
    holder,
    run,
    still_market,
    window,
)

DAY = 9
"""Row of the last real day of `real_market`, a Friday."""


# ---- a world that stands still


def real_market() -> Market:
    rng = np.random.default_rng(0)
    overnight, intraday = rng.normal(0, 0.01, (2, 15, 3))
    return factories.market_with(
        overnight,
        intraday,
        [0, 1, 1],
        stock_features=rng.normal(size=(15, 3, 5)),
        risk_free=np.full(15, 1e-4),
        filtered_regime=rng.dirichlet(np.ones(3), 15),
    )


def test_the_past_stays_and_the_future_repeats_the_last_day() -> None:
    market = real_market()
    frozen = frozen_market(market, DAY, 6)
    assert frozen.n_days == DAY + 1 + 6
    for name in ("stock_features", "macro_features", "filtered_regime", "slots", "eligible"):
        before, after = getattr(market, name), getattr(frozen, name)
        np.testing.assert_array_equal(after[: DAY + 1], before[: DAY + 1])
        np.testing.assert_array_equal(after[DAY + 1 :], np.repeat(before[[DAY]], 6, axis=0))
    for name in ("overnight_return", "intraday_return", "risk_free", "benchmark_return"):
        before, after = getattr(market, name), getattr(frozen, name)
        np.testing.assert_array_equal(after[: DAY + 1], before[: DAY + 1])
        assert not after[DAY + 1 :].any()


def test_risk_tables_repeat_the_last_day_too() -> None:
    market = real_market()
    risk = risk_tables(market, load_config(market="sample"))
    frozen = frozen_market(replace(market, risk=risk), DAY, 6)
    assert frozen.risk is not None
    assert frozen.risk.input_names == risk.input_names
    for name in ("inputs", "sector_prior", "stock_prior", "prior_exposure", "normal_variance"):
        before, after = getattr(risk, name), getattr(frozen.risk, name)
        np.testing.assert_array_equal(after[: DAY + 1], before[: DAY + 1])
        np.testing.assert_array_equal(after[DAY + 1 :], np.repeat(before[[DAY]], 6, axis=0))


def test_appended_sessions_are_the_weekdays_that_follow() -> None:
    frozen = frozen_market(real_market(), DAY, 6)  # row 9 is Friday 2001-01-12
    later = [str(day) for day in frozen.dates[DAY + 1 :]]
    assert later == [f"2001-01-{day}" for day in (15, 16, 17, 18, 19, 22)]
    assert frozen.is_week_end[DAY:].tolist() == [True, False, False, False, False, True, False]


def test_a_stock_halted_on_the_last_day_trades_again_and_a_vanished_one_does_not() -> None:
    market = real_market()
    tradable, listed = market.tradable.copy(), market.listed.copy()
    tradable[DAY, 0] = False
    tradable[DAY:, 2] = listed[DAY:, 2] = False
    halted = factories.market_with(
        market.overnight_return,
        market.intraday_return,
        market.sector_of,
        tradable=tradable,
        listed=listed,
    )
    frozen = frozen_market(halted, DAY, 3)
    assert not frozen.tradable[DAY, 0]
    assert frozen.tradable[DAY + 1 :].tolist() == [[True, True, False]] * 3


def test_sectors_fall_and_recover_to_the_digit() -> None:
    market = shocked_market(
        frozen_market(real_market(), DAY, 8), DAY, SHOCK, stress_config(SECTORS, [SHOCK])
    )
    moves = (1 + market.overnight_return[DAY + 1 :]) * (1 + market.intraday_return[DAY + 1 :])
    # 0.64 over two sessions is 0.8 each; undone over four it is 1.25^(1/2). 1.21 is 1.1 each.
    assert moves[:2, 0] == pytest.approx([0.8, 0.8])
    assert moves[2:6, 0] == pytest.approx([1.25**0.5] * 4)
    assert moves[:2, 1] == pytest.approx([1.1, 1.1])
    np.testing.assert_array_equal(moves[:, 1], moves[:, 2])  # both are of sector 1
    assert moves[:2].prod(axis=0) == pytest.approx([0.64, 1.21, 1.21])
    assert moves.prod(axis=0) == pytest.approx([1.0, 1.0, 1.0])
    assert moves[6:].tolist() == [[1.0] * 3] * 2


def test_nights_take_their_share_of_the_logarithm() -> None:
    frozen = frozen_market(real_market(), DAY, 8)
    market = shocked_market(
        frozen, DAY, SHOCK, stress_config(SECTORS, [SHOCK], overnight_share=0.25)
    )
    assert market.overnight_return[DAY + 1, 0] == pytest.approx(0.8**0.25 - 1)
    assert market.intraday_return[DAY + 1, 0] == pytest.approx(0.8**0.75 - 1)


def test_data_of_closes_only_move_over_night() -> None:
    market = real_market()
    closes = factories.market_with(market.overnight_return, np.zeros((15, 3)), market.sector_of)
    shocked = shocked_market(
        frozen_market(closes, DAY, 6), DAY, SHOCK, stress_config(SECTORS, [SHOCK])
    )
    assert not shocked.intraday_return.any()
    assert shocked.overnight_return[DAY + 1, 0] == pytest.approx(-0.2)


def test_the_index_earns_what_the_universe_does() -> None:
    market = shocked_market(
        frozen_market(real_market(), DAY, 6), DAY, SHOCK, stress_config(SECTORS, [SHOCK])
    )
    # a third each: nights of sqrt(0.8) and sqrt(1.1), then days of the same
    half = (0.8**0.5 + 2 * 1.1**0.5) / 3
    assert market.benchmark_return[DAY + 1] == pytest.approx(half**2 - 1)
    np.testing.assert_array_equal(
        market.benchmark_return[: DAY + 1], real_market().benchmark_return[: DAY + 1]
    )


def test_a_sector_without_a_shock_sector_is_refused_by_name() -> None:
    unmapped = stress_config({"Sector0": "A"}, [SHOCK])
    with pytest.raises(ConfigError, match="no shock sector for Sector1; expected one of A, B"):
        shocked_market(frozen_market(real_market(), DAY, 6), DAY, SHOCK, unmapped)


@pytest.mark.parametrize("names", [["My chips"], ["A: b", "it's"], ["Chips and code", "Pills"]])
def test_what_a_refused_stress_test_tells_to_write_is_what_it_takes(
    names: list[str], tmp_path: Path
) -> None:
    config = load_config(market="own")
    with pytest.raises(ConfigError) as refused:
        require_shock_sectors(config, names)
    first, leave_out = re.findall("`([^`]*: {[^`]*})`", str(refused.value))
    own_file = tmp_path / "mine.yaml"
    own_file.write_text(first)
    require_shock_sectors(load_config(market="own", own_file=own_file), names[:1])
    own_file.write_text(leave_out)
    require_shock_sectors(load_config(market="own", own_file=own_file), names)


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
        frozen = int(view.days) >= view.tensors.n_days - 7  # the close before the shock and later
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
        seen.append(view.tensors.slot_features[view.days])
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


def test_every_profile_maps_all_its_sectors() -> None:
    for name in ("sample", "us", "nse", "synthetic"):
        config: RunConfig = load_config(market=name)
        assert set(config.market_profile.sectors) == set(config.market_profile.stress.sectors)
