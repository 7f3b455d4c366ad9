"""The tables of a backtest show the figures of its analysis."""

import pytest
from rich.console import Console

from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.performance import BY_NAME
from hrl_sarp.evaluation.report import print_summary
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.evaluation.report.tables import FIRST_SHOWN, detail_table, main_table, variants_table
from hrl_sarp.reporting.page import block_html
from hrl_sarp.reporting.table import NONE


def test_frictions_include_the_drawdown_gate(result: BacktestResult, analysis: Analysis) -> None:
    header = variants_table(result, analysis).header
    assert header[-2:] == ("drawdown gate", "drawdown gate: over 1/N")


def test_alpha_and_beta_stand_in_the_details(result: BacktestResult, analysis: Analysis) -> None:
    table = detail_table(result, analysis)
    own = analysis.performances["own"]
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert cells["own"]["alpha"] == BY_NAME["alpha"].text(own["alpha"])
    assert cells["own"]["beta"] == BY_NAME["beta"].text(own["beta"])
    assert cells["index"]["beta"] == NONE
    assert "beta" not in main_table(result, analysis).header


def test_markdown_and_html_show_the_same_cells(result: BacktestResult, analysis: Analysis) -> None:
    table = main_table(result, analysis)
    markdown, html = table.markdown(), block_html(table)
    assert len(markdown.splitlines()) == len(table.rows) + 2
    assert html.count("<tr") == len(table.rows) + 1


@pytest.mark.parametrize("width", [70, 80, 120])
def test_terminal_shows_whole_cells_of_as_many_columns_as_fit(
    width: int, result: BacktestResult, analysis: Analysis
) -> None:
    console = Console(width=width, record=True, force_terminal=False, quiet=False, file=None)
    with console.capture() as captured:
        print_summary(result, analysis, console)
    lines = captured.get().splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in "".join(lines)
    row = next(line for line in lines if line.startswith("  own"))
    for name in FIRST_SHOWN:
        told = BY_NAME[name].text(analysis.performances["own"][name])
        assert told.split(" [")[0] in row
