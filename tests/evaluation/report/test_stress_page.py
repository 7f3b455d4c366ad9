"""Files, page and sentences of a stress test."""

import json
import re
from datetime import date
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hrl_sarp.config.market_schema import StressWindow
from hrl_sarp.evaluation.report.stress_page import (
    headline,
    scenario_table,
    summary,
    write_stress_test,
)
from hrl_sarp.evaluation.stress import StressResult
from tests import factories
from tests.evaluation.small_stress import falling_market, holder, run, still_market, window


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
    assert "the agents were fitted or chosen on them: replayed." in sentences


def test_a_narrow_terminal_counts_the_columns_that_it_leaves_out(result: StressResult) -> None:
    screen = StringIO()
    Console(width=60, file=screen).print(scenario_table(result))
    text = " ".join(screen.getvalue().split())
    assert re.search(r"for want of room: \d+ of the columns", text)
    assert "1/N drawdown" not in text


def test_a_result_without_scenarios_still_makes_a_page(tmp_path: Path) -> None:
    found = run(still_market(), holder("own", 0.5, 0.3), shocks=[])
    assert "<svg" not in write_stress_test(found, tmp_path).read_text()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal_shows_whole_cells_and_the_sentences(result: StressResult, width: int) -> None:
    screen = StringIO()
    Console(width=width, file=screen).print(summary(result))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    (row,) = (line.split() for line in lines if line.startswith("  fall "))
    assert "12.0" in row
    assert "Not run: later" in screen.getvalue()
