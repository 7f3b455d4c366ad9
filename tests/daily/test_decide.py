"""What `decide` writes and prints, and whether its reasons add up."""

import csv
import dataclasses
import json
import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from hrl_sarp.contracts import REGIME_NAMES
from hrl_sarp.daily.decision.checks import Accepted
from hrl_sarp.daily.decision.decide import account_clocks, decide, deployed
from hrl_sarp.daily.decision.files import write_decision
from hrl_sarp.daily.decision.page import NO_VIEW, decision_page, goal_sentence
from hrl_sarp.daily.decision.reasons import distance, explain, last_rows, occlusions, sector_sums
from hrl_sarp.daily.decision.run import (
    Account,
    DayDecision,
    last_memory,
    make_decision,
    read_runs,
)
from hrl_sarp.daily.market import TrainedRun, agents_hash
from hrl_sarp.daily.portfolio import Memory, Standing
from hrl_sarp.errors import DataError
from hrl_sarp.evaluation.attribution import CLASSICAL_PRIOR
from tests.command_line import Command, assert_refused
from tests.daily.conftest import SETTINGS, Site

CASH = Account(None, 1e5, 1)
HOLDINGS = "symbol,shares\n{held},40\nCASH,50000\n"


@pytest.fixture
def options(site: Site, tmp_path: Path) -> list[object]:
    """Options of a decision on a day of the past, for an account with a holding."""
    day = site.later_days[-2]
    held = site.today(day).market.symbols[0]
    (tmp_path / "holdings.csv").write_text(HOLDINGS.format(held=held))
    return [
        *("decide", "--log-dir", site.run_dir, "--data-dir", site.whole, "--as-of", day),
        *("--holdings", tmp_path / "holdings.csv", "--output", tmp_path / "decisions"),
        "--accept-drift",  # the training span is short
    ]


def test_files_agree_with_each_other_and_a_repeat_is_the_same(
    command: Command, options: list[object], site: Site, tmp_path: Path
) -> None:
    code, out, err = command(*options)
    assert code == 0, err
    folder = tmp_path / "decisions" / site.later_days[-2].isoformat()
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"decision.html", "decision.json", "orders.csv", "weights.csv"}
    assert str(folder / "decision.html") in out
    found = json.loads(first["decision.json"])
    orders = list(csv.DictReader(first["orders.csv"].decode().splitlines()))
    weights = {
        row["symbol"]: row for row in csv.DictReader(first["weights.csv"].decode().splitlines())
    }
    assert [order["symbol"] for order in found["orders"]] == [order["symbol"] for order in orders]
    shares = {symbol: float(row["shares_now"]) for symbol, row in weights.items()}
    for order in orders:
        sign = 1 if order["side"] == "buy" else -1
        shares[order["symbol"]] += sign * float(order["shares"])
        assert float(order["shares"]) == int(float(order["shares"]))
    assert shares == {symbol: float(row["shares_after"]) for symbol, row in weights.items()}
    spent = sum(float(o["value"]) * (1 if o["side"] == "buy" else -1) for o in orders)
    paid = sum(float(order["estimated_cost"]) for order in orders)
    assert found["after"]["cash"] == pytest.approx(50000 - spent - paid)
    assert found["after"]["cash"] >= 0
    assert sum(found["targets"].values()) <= found["exposure"] + 1e-9
    # what the agents forecast has another name under each objective
    assert tuple(found["goal"]["regime"]) == REGIME_NAMES[site.config.objective.kind]
    assert "stressed" in first["decision.html"].decode()
    command(*options)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    (tmp_path / "holdings.csv").write_text("symbol,shares\nCASH,50000\n")
    assert_refused(command(*options), "another account", "--overwrite", code=2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_the_page_begins_with_what_it_is_not_and_loads_nothing(
    command: Command, options: list[object], site: Site, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"warn_age_days": 1}))  # the others stay as they are
    assert command(*options, "--settings", settings)[0] == 0
    folder = tmp_path / "decisions" / site.later_days[-2].isoformat()
    page = (folder / "decision.html").read_text()
    body = page[page.index("<body>") :]
    assert body.index("no advice, no broker and no promise") < body.index("<section>")
    assert not re.search(r'(?:src|href)="(?!#)', page)
    age = json.loads((folder / "decision.json").read_text())["agents"]["age_days"]
    # the warning and the card count the same days
    assert f"{age} days before" in page[page.index("Warning: the training span of") :][:200]
    assert f"{age:,} days before" in page[page.index("Who decided") :]
    assert "outside its range" in page
    for symbol in json.loads((folder / "decision.json").read_text())["targets"]:
        assert f">{symbol}<" in page


@pytest.mark.parametrize("lot", [1, 50, 10**6])
def test_the_first_sentence_says_what_whole_lots_reach(
    command: Command, options: list[object], tmp_path: Path, lot: int
) -> None:
    (tmp_path / "holdings.csv").write_text("symbol,shares\nCASH,50000\n")
    code, out, err = command(*options, "--lot-size", lot, "--json")
    assert code == 0, err
    after = json.loads(out)["after"]
    code, text, err = command(*options, "--lot-size", lot)
    assert code == 0, err
    found = re.search(r"(\d+) orders lead to ([\d.]+) % in (\d+) and cost", text)
    assert found, text
    orders = json.loads(out)["orders"]
    stocks = sum(o["value"] for o in orders)  # all are buys: the account is all cash
    share = 100 * stocks / (after["cash"] + stocks)
    assert (int(found[1]), int(found[3])) == (len(orders), len(orders))
    assert float(found[2]) == pytest.approx(share, abs=0.051)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--capital", "5"],
        ["--lot-size", "5", "--fractional"],
        ["--account", "paper.sqlite"],
    ],
)
def test_options_that_do_not_go_together_have_the_code_of_wrong_options(
    command: Command, options: list[object], wrong: list[str]
) -> None:
    assert_refused(command(*options, *wrong), "UsageError", wrong[0], "leave", code=2)


def test_json_is_one_object_and_nothing_else(command: Command, options: list[object]) -> None:
    code, out, _ = command(*options, "--json")
    assert code == 0
    assert json.loads(out)["day"] == str(options[6])


def test_reasons_are_those_of_the_decision(site: Site) -> None:
    today = site.today(site.later_days[-2])
    standing = Standing(today.day, 1e5, {today.market.symbols[1]: 0.1})
    clocks = account_clocks(today.market, site.config, standing)
    decided = decide(deployed([today]), clocks, standing)
    small = last_rows(today.market)
    again = decide(
        deployed([today], last_rows), account_clocks(small, site.config, standing), standing
    )
    assert again.targets == decided.targets
    reasons = explain([today], decided)
    assert {effect.group for effect in reasons.effects} == set(occlusions(today.market))
    assert any(effect.size > 1e-4 for effect in reasons.effects)
    sizes = [effect.size for effect in reasons.effects]
    assert sizes == sorted(sizes, reverse=True)
    assert reasons.distance == pytest.approx(distance(decided.targets, reasons.prior))
    for effect in reasons.effects:
        moved = sum(abs(value) for value in effect.sectors.values())
        assert moved <= 2 * effect.size + 1e-9
    sectors = sector_sums(today.market, decided.targets)
    assert sum(sectors.values()) == pytest.approx(sum(decided.targets.values()))


def test_an_input_that_agents_do_not_read_has_no_effect(site: Site) -> None:
    """The occlusion of a group changes its own values of the last row, and nothing else."""
    market = site.today(site.later_days[-2]).agents.seeds[0].context.market
    small = last_rows(market)
    assert market.risk is not None
    assert small.risk is not None
    of_risk = {
        "risk of the market": {"inputs"},
        "risk of the sectors": {"sector_inputs"},
        "classical prior": {"sector_prior", "stock_prior", "prior_exposure"},
    }
    for group, change in occlusions(market).items():
        changed = change(market)
        assert changed.risk is not None
        moved = {
            name
            for name in ("inputs", "sector_inputs", "sector_prior", "stock_prior", "prior_exposure")
            if (getattr(changed.risk, name) != getattr(small.risk, name)).any()
        }
        assert moved <= of_risk.get(group, set()), group
        assert moved or group not in of_risk, group
        fields = ("stock_features", "macro_features", "filtered_regime", "sector_embeddings")
        unlike = [
            name
            for name in (*fields, "overnight_return", "slots")
            if (getattr(changed, name) != getattr(small, name)).any()
        ]
        assert len(unlike) <= 1, group
        for name in unlike:
            assert (getattr(changed, name)[0] == getattr(small, name)[0]).all()


def test_the_classical_portfolio_does_not_follow_the_goal_of_the_agents(site: Site) -> None:
    today = site.today(site.later_days[-2])
    market = today.market
    assert not market.is_week_end[-1]
    sectors = np.zeros(market.n_sectors)
    sectors[0] = 1.0
    goal = (*sectors, 0.5, 0.0, 0.5, 0.5)
    end = market.dates[:-1][market.is_week_end[:-1]][-1].item()
    found = []
    for memory in (Memory(), Memory(goal=goal, goal_day=end)):
        standing = Standing(today.day, 1e5, {}, memory)
        clocks = account_clocks(market, site.config, standing)
        found.append(explain([today], decide(deployed([today]), clocks, standing)))
    assert found[0].prior == found[1].prior
    assert found[1].distance > found[0].distance


def test_a_policy_that_forecasts_no_regime_shows_none(site: Site) -> None:
    today = site.today(site.later_days[-2])
    standing = Standing(today.day, 1e5, {})
    for name, has_view in ((None, True), (CLASSICAL_PRIOR, False)):
        clocks = account_clocks(today.market, site.config, standing)
        decided = decide(deployed([today], name=name), clocks, standing)
        assert decided.has_view is has_view


@pytest.fixture
def decided(site: Site, tmp_path: Path) -> DayDecision:
    """A decision for an account in cash, written into the folder `decisions`."""
    decision = make_decision(
        read_runs([site.run_dir]), site.whole, SETTINGS, CASH, tmp_path / "decisions", tmp_path,
        datetime.now(UTC), site.later_days[-2], accepted=Accepted(drift=True),
    )  # fmt: skip
    write_decision(decision, tmp_path / "decisions", overwrite=False)
    return decision


def test_a_goal_goes_on_for_the_same_agents_alone(
    site: Site, tmp_path: Path, decided: DayDecision
) -> None:
    """Wherever they lie, but not after another training, and not from a paper account."""
    day, later = site.later_days[-2:]
    moved, folder = tmp_path / "moved", tmp_path / "decisions"
    shutil.copytree(site.run_dir, moved)
    same = agents_hash([TrainedRun.read(moved)])
    memory = last_memory(folder, later, same, CASH)
    assert memory.goal == decided.decided.memory.goal
    assert memory.goal_day == day
    assert last_memory(folder, day, same, CASH) == Memory()
    agent = moved / "pretrain_micro" / "best_pretrain_micro.pt"
    agent.write_bytes(agent.read_bytes() + b"\0")
    assert last_memory(folder, later, agents_hash([TrainedRun.read(moved)]), CASH) == Memory()
    kept = dataclasses.replace(CASH, booked=(decided.held, decided.decided.standing))
    write_decision(dataclasses.replace(decided, account=kept), folder, overwrite=True)
    assert last_memory(folder, later, same, CASH) == Memory()


def test_a_goal_of_the_holdings_of_another_file_is_refused(
    site: Site, tmp_path: Path, decided: DayDecision
) -> None:
    """Two accounts in one folder would share a goal; cash alone may become holdings."""
    later, same = site.later_days[-1], agents_hash([TrainedRun.read(site.run_dir)])
    first, other = (Account(tmp_path / name, 1e5, 1) for name in ("a.csv", "b.csv"))
    folder = tmp_path / "decisions"
    assert last_memory(folder, later, same, first).goal is not None
    write_decision(dataclasses.replace(decided, account=first), folder, overwrite=True)
    assert last_memory(folder, later, same, first).goal is not None
    assert last_memory(folder, later, same, CASH).goal is not None
    with pytest.raises(DataError, match=r"set for .*a\.csv, not for .*b\.csv.*own --output"):
        last_memory(folder, later, same, other)


def test_a_rule_that_sets_the_goal_forecasts_no_regime_and_the_page_says_why(
    decided: DayDecision,
) -> None:
    assert NO_VIEW not in decision_page(decided)
    ruled = dataclasses.replace(decided.decided, has_view=False)
    page = decision_page(dataclasses.replace(decided, decided=ruled))
    assert NO_VIEW in page


@pytest.mark.parametrize(
    ("is_new", "is_week_end", "told"),
    [
        (True, True, "Today sets the goal of the week."),
        (True, False, "Today sets the goal of the week, because no decision "),
        (False, True, "The goal of the week was set at the close of 2019-01-04."),
        (False, False, "The goal of the week was set at the close of 2019-01-04."),
    ],
)
def test_a_goal_that_is_set_within_the_week_says_why(
    told: str, *, is_new: bool, is_week_end: bool
) -> None:
    said = goal_sentence(date(2019, 1, 4), is_new=is_new, is_week_end=is_week_end)
    assert said.startswith(told)
