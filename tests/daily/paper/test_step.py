"""A paper account over the later days of a small run: parity, catching up, and what can happen."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.contracts import DayRange
from hrl_sarp.daily.market import TrainedRun, agents_hash
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms
from hrl_sarp.daily.paper.book import first_day, next_day
from hrl_sarp.daily.paper.known import KnownDay, View, bars_of
from hrl_sarp.daily.paper.step import markets_of, open_account, step_account
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import DataError
from hrl_sarp.evaluation.backtest import backtest
from tests.command_line import Command, assert_refused
from tests.daily.conftest import N_DAYS, QUIET
from tests.daily.paper.conftest import (
    DAYS,
    DIVIDEND_ROW,
    ENDS,
    HALTED,
    LAST_BAR,
    NOW,
    PAUSE,
    PAUSES,
    PAYS,
    RULES,
    SHORT,
    SHORT_PAUSE,
    SPLIT_ROW,
    SPLITS,
    START,
    PaperSite,
    day_of,
    events_of,
)
from tests.tiny_runs import changed

Booked = Callable[[int | None], tuple[PaperDay, ...]]
PRECISE = 1e-9


def test_an_account_of_fractions_is_the_backtest(paper_site: PaperSite, tmp_path: Path) -> None:
    """On the days as they were drawn, with halts, splits and dividends, until the last one."""
    site, path = paper_site.site, tmp_path / "paper.sqlite"
    rules = QUIET
    open_account(path, [site.run_dir], site.whole, rules, 1e5, None, NOW, START)
    with PaperAccount.open(path) as account:
        markets = markets_of(account, site.whole, rules)
        step_account(account, markets, rules, NOW)
        days, view = account.days, markets.view
    assert {"halted", "cancelled"} <= {e["kind"] for d in days for e in d.events}
    rows = DayRange(view.row(START), view.market.n_days)
    ledger = backtest(view.market, [view.policy], rows, view.todays[0].run.config)
    assert [day.item() for day in ledger.dates] == [day.day for day in days[1:]]
    for name in ("net_return", "gross_return", "cost", "turnover"):
        own = np.array([getattr(day, name) for day in days[1:]])
        assert np.abs(own - getattr(ledger, name)[:, 1]).max() < PRECISE
    wealth = np.array([day.wealth for day in days[1:]]) / 1e5
    assert np.abs(wealth - ledger.wealth[:, 1]).max() < PRECISE
    for place, symbol in enumerate(view.market.symbols):
        after = np.array([day.standing.memory.traded.get(symbol, 0.0) for day in days[1:]])
        assert np.abs(after - ledger.weights_after[:, 1, place]).max() < PRECISE
        target = np.array([day.decision["targets"].get(symbol, 0.0) for day in days[:-1]])
        assert np.abs(target - ledger.target_weights[:, 1, place]).max() < PRECISE
    assert ledger.cost[:, 1].max() > 0


def test_whole_shares_stay_near_the_backtest(booked: Booked) -> None:
    whole, fractions = booked(1), booked(None)
    gaps = [abs(a.wealth / b.wealth - 1) for a, b in zip(whole, fractions, strict=True)]
    assert 0 < max(gaps) < 0.01


@pytest.mark.parametrize("lot_size", [None, 1])
def test_sessions_caught_up_are_those_booked_on_time(
    lot_size: int | None, paper_site: PaperSite, tmp_path: Path
) -> None:
    """Around the end of a stock, where hindsight knows most; each data folder is cut at its day."""
    first, last, start = LAST_BAR, LAST_BAR + HALTED + 1, DAYS[LAST_BAR - 1]
    on_time, late = tmp_path / "on_time.sqlite", tmp_path / "late.sqlite"
    paper_site.begin(on_time, lot_size, LAST_BAR - 1, start)
    for row in range(first, last + 1):
        paper_site.booked(on_time, row)
    paper_site.begin(late, lot_size, N_DAYS - 1, start)
    shutil.copyfile(late, tmp_path / "begun.sqlite")
    caught_up = paper_site.booked(late)
    with PaperAccount.open(on_time) as account:
        days = account.days
    assert len(days) == last - first + 2
    assert [day.to_json() for day in caught_up[: len(days)]] == [day.to_json() for day in days]


def test_a_second_step_does_nothing_and_says_so(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    path, row = tmp_path / "paper.sqlite", DAYS.index(START) + 2
    options = ["--account", path, "--data-dir", paper_site.cut(row)]
    options += ["--settings", paper_site.settings]
    begun = command(
        "paper", "init", *options, "--log-dir", paper_site.site.run_dir, "--start", START
    )
    assert begun[0] == 0, begun
    assert f"100,000.00 in cash at the close of {START}" in begun[1]
    code, out, _ = command("paper", "step", *options)
    assert (code, out.count("\n")) == (0, 2)
    assert str(DAYS[row]) in out
    content = path.read_bytes()
    code, out, _ = command("paper", "step", *options)
    assert (code, out.startswith("nothing to do")) == (0, True)
    code, out, _ = command("paper", "step", *options, "--json")
    found = json.loads(out)
    assert (code, found["booked"], found["day"]) == (0, [], str(DAYS[row]))
    assert found["orders"]
    assert path.read_bytes() == content
    older = [*options, "--data-dir", paper_site.cut(row - 1)]
    assert_refused(command("paper", "step", *older), "data end on", str(DAYS[row]), "update-data")
    assert path.read_bytes() == content


@pytest.mark.parametrize("lot_size", [None, 1])
def test_wealth_is_cash_and_holdings_and_grows_by_the_returns(
    lot_size: int | None, booked: Booked
) -> None:
    days = booked(lot_size)
    assert days[0].wealth == days[0].cash == 1e5
    for before, day in pairwise(days):
        values = math.fsum(h["value"] for h in day.holdings.values())
        assert day.cash + values == pytest.approx(day.wealth, rel=1e-12)
        assert day.wealth == pytest.approx(before.wealth * (1 + day.net_return), rel=1e-12)
        assert day.cash > 0
        worth = math.fsum(h["shares"] * h["close"] for h in day.holdings.values())
        assert worth == pytest.approx(values, rel=2e-3)  # a dividend may wait for a bar


def test_whole_shares_are_whole_and_move_by_fills_and_splits_alone(
    paper_site: PaperSite, booked: Booked
) -> None:
    days = booked(1)
    for before, day in pairwise(days):
        bars = bars_of(paper_site.raw, day.day)
        gone = {symbol for _, symbol in events_of((day,), "delisted")}
        moved = {f["symbol"]: f["shares"] * (1 if f["side"] == "buy" else -1) for f in day.fills}
        for symbol in {*before.holdings, *day.holdings, *moved} - gone:
            split = bars[symbol].split if symbol in bars else 1.0
            had = before.holdings.get(symbol, {}).get("shares", 0.0) * split
            has = day.holdings.get(symbol, {}).get("shares", 0.0)
            assert has == pytest.approx(had + moved.get(symbol, 0.0), abs=1e-9)
            assert has == int(has)
        for fill in day.fills:
            assert fill["price"] == pytest.approx(_open(paper_site, day, fill["symbol"]), rel=1e-12)


def _open(paper_site: PaperSite, day: PaperDay, symbol: str) -> float:
    bars = paper_site.raw.bars
    return bars.filter((bars["date"] == day.day) & (bars["symbol"] == symbol))["open"].item()


def test_the_cash_of_whole_shares_adds_up(paper_site: PaperSite, booked: Booked) -> None:
    """Trades, costs, dividends and interest by hand.

    A dividend pays the sell cost of itself, and is the declared one x open / close.
    """
    days, market = booked(1), paper_site.markets().view.market
    costs = paper_site.site.config.market_profile.costs
    sell, dividends = (costs.sell_bps + costs.slippage_bps) * 1e-4, []
    for before, day in pairwise(days):
        if events_of((day,), "delisted") or events_of((before, day), "halted"):
            continue
        row = list(market.dates).index(np.datetime64(day.day))
        bars = bars_of(paper_site.raw, day.day)
        held = {s: h["shares"] for s, h in before.holdings.items() if s in bars}
        declared = {s: n * bars[s].dividend for s, n in held.items() if bars[s].dividend}
        paid = math.fsum(
            amount * _open(paper_site, day, s) / bars[s].close for s, amount in declared.items()
        )
        for symbol, amount in declared.items():
            (text,) = (e["text"] for e in day.events if e["symbol"] == symbol)
            assert f"(declared {amount:.2f}), as cash" in text
            dividends.append((day.day, symbol))
        traded = math.fsum(f["value"] * (-1 if f["side"] == "buy" else 1) for f in day.fills)
        fees = day.cost * before.wealth * (1 + _night(before, day, market, row))
        interest = before.cash * market.risk_free[row]
        expected = before.cash + interest + paid + traded - fees
        assert day.cash == pytest.approx(expected, abs=0.02)  # adjusted closes are rounded
        least = sell * paid
        assert fees >= least * 0.999
    assert dividends == [(DAYS[DIVIDEND_ROW], PAYS)]


def _night(before: PaperDay, day: PaperDay, market: object, row: int) -> float:
    """Return what the holdings earned until the open, as a fraction of wealth."""
    place = {s: column for column, s in enumerate(market.symbols)}
    weights = before.standing.weights
    cash = before.cash / before.wealth
    return cash * market.risk_free[row] + math.fsum(
        w * market.overnight_return[row, place[s]] for s, w in weights.items()
    )


def test_a_split_multiplies_shares_and_pending_orders(booked: Booked) -> None:
    days = booked(1)
    day, before = day_of(days, DAYS[SPLIT_ROW]), day_of(days, DAYS[SPLIT_ROW - 1])
    assert (day.day, SPLITS) in events_of((day,), "split")
    ordered = sum(
        (1 if o["side"] == "buy" else -1) * o["shares"]
        for o in before.decision["orders"]
        if o["symbol"] == SPLITS
    )
    had = before.holdings[SPLITS]["shares"]
    assert day.holdings[SPLITS]["shares"] == pytest.approx(3 * (had + ordered))
    value = day.holdings[SPLITS]["value"] / before.holdings[SPLITS]["value"]
    assert 0.8 < value < 1.2


@pytest.mark.parametrize("lot_size", [None, 1])
def test_a_halt_keeps_the_holding_and_cancels_its_order(
    lot_size: int | None, booked: Booked
) -> None:
    days = booked(lot_size)
    halt, before = day_of(days, DAYS[SHORT[0]]), day_of(days, DAYS[SHORT[0] - 1])
    assert (halt.day, SHORT_PAUSE) in events_of(days, "halted")
    assert halt.holdings[SHORT_PAUSE] == pytest.approx(before.holdings[SHORT_PAUSE])
    assert SHORT_PAUSE not in {o["symbol"] for o in halt.decision["orders"]}
    assert day_of(days, DAYS[SHORT[1]]).holdings[SHORT_PAUSE]["shares"] > 0
    ordered = {o["symbol"] for o in before.decision["orders"]}
    assert ((halt.day, SHORT_PAUSE) in events_of(days, "cancelled")) == (SHORT_PAUSE in ordered)


@pytest.mark.parametrize("lot_size", [None, 1])
@pytest.mark.parametrize(("symbol", "last"), [(ENDS, LAST_BAR), (PAUSES, PAUSE[0] - 1)])
def test_a_stock_without_bars_becomes_cash_when_it_counts_as_gone(
    symbol: str, last: int, lot_size: int | None, paper_site: PaperSite, booked: Booked
) -> None:
    days = booked(lot_size)
    held, gone = day_of(days, DAYS[last + HALTED]), day_of(days, DAYS[last + HALTED + 1])
    assert [day for day, s in events_of(days, "delisted") if s == symbol] == [gone.day]
    assert held.holdings[symbol]["value"] == pytest.approx(
        day_of(days, DAYS[last]).holdings[symbol]["value"]
    )
    assert symbol not in gone.holdings
    costs = paper_site.site.config.market_profile.costs
    kept = 1 + costs.delisting_return
    value = held.holdings[symbol]["value"]
    (text,) = (e["text"] for e in gone.events if e["kind"] == "delisted")
    assert f"x {kept:g}, which is {value * kept:.2f}" in text
    sell = (costs.sell_bps + costs.slippage_bps) * 1e-4
    least = sell * value * kept / (held.wealth * 1.2)
    assert gone.cost >= least


@pytest.mark.parametrize("lot_size", [None, 1])
@pytest.mark.parametrize("lost", [-0.4, -1.0])
def test_what_a_delisting_leaves_is_that_of_the_profile(
    lost: float, lot_size: int | None, paper_site: PaperSite
) -> None:
    (today,) = paper_site.markets().view.todays
    costs = {"market_profile": {"costs": {"delisting_return": lost}}}
    run = replace(today.run, config=changed(today.run.config, costs))
    view = View((replace(today, run=run),))
    rows = range(LAST_BAR - 1, LAST_BAR + HALTED + 2)
    known = [KnownDay(DAYS[row], view, view.row(DAYS[row])) for row in rows]
    terms = Terms(("x",), "y", "us", 1e5, lot_size, HALTED, known[0].day)
    days = [first_day(known[0], terms)]
    for each in known[1:]:
        days.append(next_day(each, days[-1], terms))
    before, gone = days[-2:]
    value = before.holdings[ENDS]["value"]
    assert ENDS not in gone.holdings
    (text,) = (e["text"] for e in gone.events if e["kind"] == "delisted")
    assert f"which is {value * (1 + lost):.2f} before" in text
    # beside the loss the account earns what its other holdings do
    others = math.fsum(
        h["value"] - before.holdings[s]["value"]
        for s, h in gone.holdings.items()
        if s in before.holdings
    )
    traded = math.fsum(f["value"] for f in gone.fills)
    assert gone.wealth - before.wealth - others == pytest.approx(lost * value, abs=traded + 50)


def test_a_start_in_the_past_books_every_session_since(booked: Booked) -> None:
    assert [day.day for day in booked(None)] == DAYS[DAYS.index(START) :]


@pytest.mark.parametrize(
    ("options", "mentioned", "code"),
    [
        (["--start", "2006-06-01"], ["--start 2006-06-01", "training span"], 1),
        (["--start", "2007-07-21"], ["no session of 2007-07-21", "before it is 2007-07-20"], 1),
        (["--capital", "0"], ["--capital", "above 0"], 2),
        (["--capital", "nan"], ["--capital", "above 0"], 2),
        (["--fractional", "--lot-size", "5"], ["--lot-size", "--fractional"], 2),
    ],
)
def test_what_no_account_can_begin_with_is_refused(
    options: list[str],
    mentioned: list[str],
    code: int,
    paper_site: PaperSite,
    tmp_path: Path,
    command: Command,
) -> None:
    given = ["--account", tmp_path / "paper.sqlite", "--data-dir", paper_site.whole]
    given += ["--settings", paper_site.settings]
    given += ["--log-dir", paper_site.site.run_dir]
    assert_refused(command("paper", "init", *given, *options), *mentioned, code=code)
    assert not (tmp_path / "paper.sqlite").exists()


def test_an_account_is_never_overwritten(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "paper.sqlite").write_text("mine")
    given = ["--account", tmp_path / "paper.sqlite", "--data-dir", paper_site.whole]
    given += ["--settings", paper_site.settings]
    given += ["--log-dir", paper_site.site.run_dir]
    assert_refused(command("paper", "init", *given), "exists", code=2)
    assert (tmp_path / "paper.sqlite").read_text() == "mine"


def test_agents_that_were_trained_again_are_refused(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(paper_site.site.run_dir, run_dir)
    options = ["--account", tmp_path / "paper.sqlite", "--data-dir", paper_site.whole]
    options += ["--settings", paper_site.settings]
    code, *_ = command("paper", "init", *options, "--log-dir", run_dir, "--fractional")
    assert code == 0
    before = agents_hash([TrainedRun.read(run_dir)])
    content = (tmp_path / "paper.sqlite").read_bytes()
    agent = run_dir / "pretrain_micro" / "best_pretrain_micro.pt"
    agent.write_bytes(agent.read_bytes() + b"\0")
    assert agents_hash([TrainedRun.read(run_dir)]) != before
    assert_refused(command("paper", "step", *options), "other agents", "new account")
    assert_refused(command("decide", *options), "other agents", "new account")
    assert (tmp_path / "paper.sqlite").read_bytes() == content


def test_the_page_of_an_account_is_about_the_decision_that_it_has_taken(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "paper.sqlite"
    options = ["--account", path, "--data-dir", paper_site.whole]
    options += ["--settings", paper_site.settings]
    assert command("paper", "init", *options, "--log-dir", paper_site.site.run_dir)[0] == 0
    with PaperAccount.open(path) as account:
        last = account.last
    given = [*options, "--as-of", last.day, "--output", tmp_path / "decisions", "--accept-drift"]
    code, _, err = command("decide", *given)
    assert code == 0, err
    found = json.loads((tmp_path / "decisions" / str(last.day) / "decision.json").read_text())
    assert found["targets"] == last.decision["targets"]
    kept = [(order["symbol"], order["shares"]) for order in last.decision["orders"]]
    assert [(order["symbol"], order["shares"]) for order in found["orders"]] == kept


def test_a_missing_account_names_the_command_that_opens_one(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    options = ["--account", tmp_path / "none.sqlite", "--data-dir", paper_site.whole]
    for name in ("step", "report"):
        assert_refused(command("paper", name, *options), "none.sqlite", "paper init")
    assert list(tmp_path.iterdir()) == []


def test_a_session_that_is_not_whole_is_never_booked(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    """A download that broke off, a day that has not closed: neither could be taken back."""
    path, row = tmp_path / "paper.sqlite", DAYS.index(START) + 2
    broken = tmp_path / "broken" / "raw"
    day, few = DAYS[row], pl.col("symbol").is_in(["A0", "B1"])
    bars = paper_site.raw.bars.filter((pl.col("date") < day) | ((pl.col("date") == day) & few))
    write_raw(replace(as_of(paper_site.raw, day), bars=bars), broken)
    paper_site.begin(path, 1, row - 2)
    options = ["--account", path, "--settings", paper_site.settings, "--data-dir"]
    result = command("paper", "step", *options, broken)
    assert_refused(result, "have no bar on", str(day), "max_missing_share", "update-data")
    with PaperAccount.open(path) as account:
        assert account.last.day == DAYS[row - 1]  # the whole session before it is booked
        markets, early = paper_site.markets(row), datetime(day.year, day.month, day.day, tzinfo=UTC)
        with pytest.raises(DataError, match=f"{day} has not closed"):
            step_account(account, markets, RULES, early)
        assert account.last.day == DAYS[row - 1]
        assert [each.day for each in step_account(account, markets, RULES, NOW)] == [day]
    runs, there = [paper_site.site.run_dir], tmp_path / "early.sqlite"
    with pytest.raises(DataError, match="has not closed"):
        open_account(there, runs, paper_site.cut(row), RULES, 1e5, 1, early, day)
    assert not (tmp_path / "early.sqlite").exists()


def test_the_terms_say_what_the_account_began_with(paper_site: PaperSite, tmp_path: Path) -> None:
    path = tmp_path / "paper.sqlite"
    paper_site.begin(path, 5)
    with PaperAccount.open(path) as account:
        terms = account.terms
    assert (terms.capital, terms.lot_size, terms.halted_sessions) == (1e5, 5, HALTED)
    assert (terms.start, terms.market) == (START, "us")
    assert isinstance(terms.start, date)


def test_ctrl_c_says_that_what_was_booked_stays(
    paper_site: PaperSite, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--account", tmp_path / "paper.sqlite", "--data-dir", paper_site.whole]
    given += ["--settings", paper_site.settings]
    opened = command("paper", "init", *given, "--log-dir", paper_site.site.run_dir)
    assert opened[0] == 0, opened[2]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hrl_sarp.daily.paper.step.step_account", interrupted)
    mentioned = "goes on after the last session that was booked"
    assert_refused(command("paper", "step", *given), mentioned, code=130)
