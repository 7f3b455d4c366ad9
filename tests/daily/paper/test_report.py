"""The page and the JSON of a paper account beside its backtest."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.daily.paper.report import (
    JSON_NAME,
    PAGE_NAME,
    compare,
    measures,
    measures_table,
    report_json,
    sentences,
)
from hrl_sarp.daily.paper.step import markets_of
from hrl_sarp.reporting.table import NONE
from hrl_sarp.run.files import read_json
from tests.command_line import Command, assert_refused
from tests.daily.paper.conftest import DAYS, RULES, START, PaperSite

SESSIONS = 6


@pytest.fixture(scope="module")
def path(paper_site: PaperSite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An account of fractions over some sessions, in which nothing ends."""
    there = tmp_path_factory.mktemp("report") / "paper.sqlite"
    paper_site.begin(there, None)
    paper_site.booked(there, DAYS.index(START) + SESSIONS)
    return there


def test_account_and_backtest_are_one_and_differ_from_equal_weights(
    path: Path, paper_site: PaperSite
) -> None:
    with PaperAccount.open(path) as account:
        report = compare(account, markets_of(account, paper_site.whole, RULES))
    assert max(abs(value) for value in report.tracking.values()) < 1e-9
    found = measures(report)
    assert list(found) == ["account", "backtest", "1/N", "index"]
    growth = report.days[-1].wealth / 1e5 - 1
    for name in ("account", "backtest"):
        assert found[name]["growth"] == pytest.approx(growth, rel=1e-9)
        assert found[name]["costs"] == pytest.approx(sum(day.cost for day in report.days))
        assert found[name]["turnover"] == pytest.approx(sum(day.turnover for day in report.days))
    assert abs(found["1/N"]["growth"] - growth) > 1e-6
    assert found["index"]["costs"] == 0
    wealth = [day["wealth_of"]["account"] for day in report_json(report)["days"]]
    assert np.allclose(wealth, [day.wealth / 1e5 for day in report.days], rtol=1e-12)


@pytest.mark.parametrize(
    ("gap", "told"), [(0.0, "nine digits"), (1e-8, "six digits"), (1e-4, "below that of")]
)
def test_the_page_says_to_how_many_digits_account_and_backtest_agree(
    gap: float, told: str, path: Path, paper_site: PaperSite
) -> None:
    """Networks round by the number of threads: that is no difference worth a chart."""
    with PaperAccount.open(path) as account:
        report = compare(account, markets_of(account, paper_site.whole, RULES))
    own = report.rows["account"]
    rows = {**report.rows, "account": replace(own, net=own.net - gap * (own.net == own.net[0]))}
    changed = replace(report, rows=rows)
    assert any(told in sentence for sentence in sentences(changed))


@pytest.mark.parametrize("n_sessions", [1, 2])
def test_one_session_has_no_volatility_and_no_ratio(
    n_sessions: int, path: Path, paper_site: PaperSite
) -> None:
    """A deviation of one return is no 0: it would call the account free of risk."""
    with PaperAccount.open(path) as account:
        report = compare(account, markets_of(account, paper_site.whole, RULES))
    rows = {
        name: replace(
            row,
            net=row.net[:n_sessions] * (1.001 if name == "account" else 1.0),
            cost=row.cost[:n_sessions],
            turnover=row.turnover[:n_sessions],
        )
        for name, row in report.rows.items()
    }
    early = replace(
        report,
        days=report.days[: n_sessions + 1],
        rows=rows,
        risk_free=report.risk_free[:n_sessions],
    )
    is_single = n_sessions == 1
    for values in measures(early).values():
        assert [values[name] is None for name in ("volatility", "Sharpe")] == [is_single] * 2
    cells = dict(zip(measures_table(early).header, measures_table(early).rows[0], strict=True))
    assert (cells["volatility"] == cells["Sharpe"] == NONE) is is_single
    told = " ".join(sentences(early))
    assert f"in {n_sessions} session{'' if is_single else 's'}," in told
    assert ("tracking error" in told) is not is_single
    assert (report_json(early)["tracking"]["tracking_error"] is None) is is_single


def test_the_command_writes_page_and_json(
    path: Path, paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    options = ["--account", path, "--data-dir", paper_site.whole, "--output", tmp_path / "out"]
    code, out, _ = command("paper", "report", *options)
    assert (code, "Account, backtest and 1/N" in out) == (0, True)
    page = (tmp_path / "out" / PAGE_NAME).read_text()
    assert "no advice, no broker and no promise" in page
    assert "Its wealth is that of the backtest to nine digits" in page
    assert "over that of the backtest" not in page  # nothing but rounding could be drawn
    assert "Warnings of the decisions" not in page
    assert "http" not in page.split("<body")[1].split("<script")[0]
    found = read_json(tmp_path / "out" / JSON_NAME, "paper report")
    assert [day["day"] for day in found["days"]] == [
        str(day) for day in DAYS[DAYS.index(START) :][: SESSIONS + 1]
    ]
    assert found["days"][1]["fills"]
    assert found["orders"]
    code, out, _ = command("paper", "report", *options, "--json")
    assert json.loads(out)["measures"]["account"] == found["measures"]["account"]


def test_an_account_without_a_session_has_no_report(
    paper_site: PaperSite, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "paper.sqlite"
    paper_site.begin(path, 1)
    options = ["--account", path, "--data-dir", paper_site.whole]
    assert_refused(command("paper", "report", *options), str(START), "paper step")
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == [path.name]
