"""The page of all runs: what is found, what it says, and that one broken folder hides no other."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.backtest import run_backtest
from hrl_sarp.evaluation.report import write_backtest
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.reporting.table import NONE, number, percent
from hrl_sarp.run.files import write_json
from hrl_sarp.run.phases import PHASES
from hrl_sarp.studies.overview import RUN_HEADER, STUDY_HEADER, look_through, write_overview
from tests import factories
from tests.evaluation.small_runs import even_goal_policy, small_config


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if tag == "a" and name == "href"]


def write_known_markets(folder: Path, *, is_summed_up: bool = True) -> None:
    write_json(folder / "known_markets.json", {"markets": ["kelly", "band"], "seeds": 1})
    write_json(folder / "kelly-0" / "cell.json", {})
    write_json(folder / "band-0" / "failed.json", {})
    finish_phases(folder / "kelly-0" / "pretrained", 1)
    if is_summed_up:
        line = {"figure": "macro", "side": ">=", "bound": 0.95}
        rows = [
            {"market": "kelly", "figure": "macro", "threshold": line, "met": True},
            {"market": "kelly", "figure": "micro", "threshold": line, "met": False},
            {"market": "kelly", "figure": "random", "threshold": None, "met": None},
        ]
        write_json(folder / "table.json", {"rows": rows})
        (folder / "table.md").touch()


def finish_phases(run: Path, *numbers: int) -> None:
    for files in PHASES:
        (run / files.folder / "tensorboard").mkdir(parents=True)
        if files.number in numbers:
            (run / files.folder / files.best[0]).touch()


def write_study(folder: Path, *, is_summed_up: bool = True) -> None:
    write_json(folder / "study.json", {"markets": ["us"], "variants": {"risk": None}})
    write_json(folder / "us-2005-2005-risk-0" / "cell.json", {})
    write_json(folder / "us-2005-2005-risk-1" / "failed.json", {})
    finish_phases(folder / "us-2005-2005-risk-0", 1)  # a cell is no run of its own
    if is_summed_up:
        growth = {"value": -1.0, "low": -5.0, "high": 3.0}
        evidence = {"us": {"1/N": {"growth": growth, "verdict": "no difference shown"}}}
        lines = [{"is_met": True}, {"is_met": False}, {"is_met": True}]
        write_json(folder / "table.json", {"risk": {"lines": lines, "evidence": evidence}})
        (folder / "report.html").touch()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def analysis(root: Path) -> Analysis:
    market = factories.random_market(np.random.default_rng(5), n_days=200)
    own = even_goal_policy("own", market.n_sectors)
    config = small_config(baselines=["momentum"], random_portfolios=0)
    finish_phases(root / "deep" / "reported", 1, 2)
    return write_backtest(
        run_backtest(market, [own], "test", config), root / "deep" / "reported" / "backtest"
    )


@pytest.fixture(scope="module")
def rows(root: Path, analysis: Analysis) -> dict[str, dict[str, str]]:
    assert analysis.headline_name == "own"
    finish_phases(root / "stopped", 1)
    write_study(root / "studies" / "us")
    write_study(root / "studies" / "begun", is_summed_up=False)
    write_known_markets(root / "studies" / "known")
    write_known_markets(root / "studies" / "known begun", is_summed_up=False)
    write_json(root / "broken" / "backtest" / "metrics.json", {"provenance": {}})
    finish_phases(root / "broken", 1, 2, 3, 4, 5)
    (root / "damaged").mkdir()
    (root / "damaged" / "metrics.json").write_text("{")
    (root / "empty").mkdir()
    write_study(root / "studies" / "damaged")
    write_json(root / "studies" / "damaged" / "table.json", ["no object"])
    finish_phases(root / "50 % #1", 1)
    finish_phases(root / "known_markets" / "kelly-0" / "pretrained", 1)
    (root / "known_markets" / "kelly-0" / "screen.log").touch()
    found = look_through(root)
    page = write_overview(found, root).read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert all((root / unquote(link)).exists() for link in links.found)
    assert "50%20%25%20%231" in links.found
    assert "studies/us/report.html" in links.found
    assert "deep/reported/backtest/report.html" in links.found
    runs = {row[0]: dict(zip(RUN_HEADER, row, strict=True)) for row in found.runs.rows}
    studies = {row[0]: dict(zip(STUDY_HEADER, row, strict=True)) for row in found.studies.rows}
    return runs | studies


def test_every_run_report_and_study_is_found_once(rows: dict[str, dict[str, str]]) -> None:
    assert set(rows) == {
        "deep/reported/backtest", "stopped", "broken/backtest", "damaged",
        "studies/us", "studies/begun", "studies/damaged", "50 % #1",
        "studies/known", "studies/known begun",
    }  # fmt: skip


def test_report_says_what_its_metrics_say(
    rows: dict[str, dict[str, str]], analysis: Analysis
) -> None:
    row, own = rows["deep/reported/backtest"], analysis.performances["own"]
    assert row["policy"] == "own"
    assert row["phases"] == "1, 2"
    assert row["volatility"] == percent(own["volatility"])
    assert row["1/N's"] == percent(analysis.performances["1/N"]["volatility"])
    excess = own["growth_excess"]
    assert excess.high < 0
    assert row["verdict"] == "worse"
    assert row["growth over 1/N, % a year"].startswith(number(100 * excess.value, 1))


def test_run_without_a_report_says_how_far_it_is(rows: dict[str, dict[str, str]]) -> None:
    assert (rows["stopped"]["phases"], rows["stopped"]["verdict"]) == ("1", NONE)


def test_study_says_its_lines_verdicts_and_what_failed(rows: dict[str, dict[str, str]]) -> None:
    row = rows["studies/us"]
    assert (row["cells"], row["failed"], row["lines met"]) == ("1", "1", "2 of 3")
    assert row["verdict"] == "us: no difference shown"
    begun = rows["studies/begun"]
    assert (begun["lines met"], begun["verdict"]) == (NONE, "not finished")


def test_what_cannot_be_read_says_why_and_hides_nothing(rows: dict[str, dict[str, str]]) -> None:
    assert "KeyError" in rows["broken/backtest"]["phases"]
    assert "DataError" in rows["damaged"]["phases"]
    assert "AttributeError" in rows["studies/damaged"]["markets"]


def test_folder_without_runs_is_empty_and_no_folder_is_refused(tmp_path: Path) -> None:
    assert look_through(tmp_path).is_empty
    with pytest.raises(HrlSarpError, match="expected a folder of logs"):
        look_through(tmp_path / "nowhere")


def test_known_markets_say_which_lines_are_met_and_missed(rows: dict[str, dict[str, str]]) -> None:
    row, begun = rows["studies/known"], rows["studies/known begun"]
    for each in (row, begun):
        assert (each["markets"], each["cells"], each["failed"]) == ("kelly, band", "1", "1")
        assert (each["variant"], each["growth over 1/N, % a year"]) == ("known markets", NONE)
    assert (row["lines met"], row["verdict"]) == ("1 of 2", "missed: kelly micro")
    assert (begun["lines met"], begun["verdict"]) == (NONE, "not finished")
