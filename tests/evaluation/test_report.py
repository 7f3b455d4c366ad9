import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from hrl_sarp.evaluation import tables
from hrl_sarp.evaluation.analysis import Analysis, analyse
from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.ledger import daily_ledger, stock_ledger
from hrl_sarp.evaluation.report import headline, print_summary, render_page, write_backtest
from hrl_sarp.evaluation.statistics import Interval
from tests import factories
from tests.evaluation.small_runs import small_config

VOID = {"meta", "path", "rect", "br", "use", "image", "circle", "line", "stop"}


class _Page(HTMLParser):
    """Checks that tags close in order and collects ids, texts and what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.loads.append((value or "")[:40])


@pytest.fixture(scope="module")
def html(result: BacktestResult, analysis: Analysis) -> str:
    return render_page(result, analysis)


@pytest.fixture(scope="module")
def parsed(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


def test_page_is_well_formed_and_ids_are_unique(parsed: _Page) -> None:
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))


def test_page_loads_nothing_from_elsewhere(html: str, parsed: _Page) -> None:
    assert all(value.startswith("data:image/png;base64,") for value in parsed.loads)
    assert "<script" not in html
    assert "url(http" not in html
    assert "@import" not in html
    assert len(html) < 3_000_000


def test_page_leaves_no_placeholder_colour_and_no_nan(html: str, parsed: _Page) -> None:
    assert not re.search("#0[147]0[258]0[369]", html)
    words = set(re.split(r"\W+", " ".join(parsed.texts).lower()))
    assert not words & {"nan", "inf", "none"}


def test_page_names_every_policy_and_where_the_numbers_come_from(
    parsed: _Page, result: BacktestResult
) -> None:
    text = " ".join(parsed.texts)
    for name in result.main.names:
        assert name in text
    assert "config hash" in text
    assert "random portfolios" in text
    assert "No method is expected to beat 1/N" in text


def test_hostile_policy_name_is_only_text(result: BacktestResult) -> None:
    name = "<script>alert(1)</script>&"
    names = tuple(name if n == "own" else n for n in result.main.names)
    renamed = replace(
        result,
        main=replace(result.main, names=names),
        variants={k: replace(v, names=names) for k, v in result.variants.items()},
        policy_names=(name,),
    )
    html = render_page(renamed, analyse(renamed))
    assert "<script>" not in html
    _Page().feed(html)


def test_headline_says_when_the_interval_includes_zero(
    result: BacktestResult, analysis: Analysis
) -> None:
    own = replace(analysis.performances["own"], growth_excess=Interval(0.01, -0.02, 0.03))
    shown = replace(analysis, performances={**analysis.performances, "own": own})
    first = headline(result, shown)[0]
    assert "1.0 % a year more" in first
    assert "zero is in it" in first
    lower = replace(own, growth_excess=Interval(-0.02, -0.03, -0.01))
    shown = replace(analysis, performances={**analysis.performances, "own": lower})
    assert "2.0 % a year less" in headline(result, shown)[0]
    assert "below zero" in headline(result, shown)[0]


def test_page_says_how_many_policies_and_checkpoints_were_looked_at(
    result: BacktestResult, analysis: Analysis, parsed: _Page
) -> None:
    assert result.n_trials == 50
    assert "Allowing for 50 policies and checkpoints looked at" in headline(result, analysis)[0]
    label = parsed.texts.index("policies and checkpoints looked at")
    assert parsed.texts[label + 1] == "50"


def test_frictions_include_the_drawdown_gate(result: BacktestResult, analysis: Analysis) -> None:
    header = tables.variants_table(result, analysis).header
    assert header[-2:] == ("drawdown gate", "drawdown gate: over 1/N")


def test_alpha_and_beta_stand_in_the_details(result: BacktestResult, analysis: Analysis) -> None:
    table = tables.detail_table(result, analysis)
    own = analysis.performances["own"]
    cells = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert cells["own"]["alpha"] == tables.percent(own.alpha)
    assert cells["own"]["beta"] == tables.number(own.beta)
    assert cells["index"]["beta"] == tables.NONE
    assert "beta" not in tables.main_table(result, analysis).header


def test_headline_names_power_and_survivorship(result: BacktestResult, analysis: Analysis) -> None:
    text = " ".join(headline(result, analysis))
    assert f"{analysis.smallest_information_ratio:.1f} a year" in text
    assert "Survivorship" in text


def test_files_are_written_and_strict(result: BacktestResult, tmp_path: Path) -> None:
    write_backtest(result, tmp_path / "backtest")
    assert sorted(path.name for path in (tmp_path / "backtest").iterdir()) == [
        "daily.parquet",
        "ledger.parquet",
        "metrics.json",
        "report.html",
    ]
    text = (tmp_path / "backtest" / "metrics.json").read_text()

    def refuse(token: str) -> None:
        raise AssertionError(token)

    document = json.loads(text, parse_constant=refuse)
    assert document["headline_policy"] == "own"
    assert document["provenance"]["trials"] == 50
    assert set(document["performances"]) == set(result.main.names)


def test_stock_ledger_adds_up_to_the_sessions(result: BacktestResult) -> None:
    costs = result.config.market_profile.costs
    ledger = stock_ledger(result.main, result.market, costs)
    own = result.main.names.index("own")
    sums = (
        ledger.filter(pl.col("policy") == "own")
        .group_by("date", maintain_order=True)
        .agg(pl.col("cost").sum(), pl.col("traded").abs().sum(), pl.col("weight").sum())
    )
    np.testing.assert_allclose(sums["cost"], result.main.cost[:, own], atol=1e-15)
    np.testing.assert_allclose(sums["traded"] / 2, result.main.turnover[:, own], atol=1e-12)
    np.testing.assert_allclose(sums["weight"], result.main.weights_after[:, own].sum(axis=1))
    # rates by hand: 13 bps of purchases, 9 bps of sales
    by_rate = np.where(ledger["traded"] > 0, 13e-4, -9e-4) * ledger["traded"].to_numpy()
    np.testing.assert_allclose(ledger["cost"].to_numpy(), by_rate, atol=1e-12)


def test_net_return_follows_from_the_stock_ledger(result: BacktestResult) -> None:
    ledger = stock_ledger(result.main, result.market, result.config.market_profile.costs)
    own = result.main.names.index("own")
    day = ledger.filter((pl.col("policy") == "own") & (pl.col("date") == result.main.dates[1]))
    # the second session: nights earn on the drifted first portfolio, days on the traded weights
    first = ledger.filter((pl.col("policy") == "own") & (pl.col("date") == result.main.dates[0]))
    first = first.filter(pl.col("weight") > 0)
    closing = first["weight"] * (1 + first["intraday_return"])
    held = closing / (1 + (first["weight"] * first["intraday_return"]).sum())
    night_of = dict(zip(day["symbol"], day["overnight_return"], strict=True))
    row = int(np.searchsorted(result.market.dates, result.main.dates[1]))
    cash = result.market.risk_free[row] * (1 - held.sum())
    night = sum(w * night_of[s] for s, w in zip(first["symbol"], held, strict=True)) + cash
    session = (day["weight"] * day["intraday_return"]).sum()
    net = (1 + night) * (1 - day["cost"].sum()) * (1 + session) - 1
    assert net == pytest.approx(result.main.net_return[1, own], abs=1e-12)


def test_daily_ledger_keeps_goals_and_marks_their_absence(result: BacktestResult) -> None:
    daily = daily_ledger(result.main, result.market)
    own = daily.filter(pl.col("policy") == "own")
    assert own["goal/bull"].unique().to_list() == pytest.approx([0.5])
    assert daily.filter(pl.col("policy") == "1/N")["goal/bull"].null_count() == own.height
    np.testing.assert_array_equal(own["net_return"], result.main.net_return[:, -1])


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
    row = next(line for line in lines if line.startswith("│ own"))
    assert tables.percent(analysis.performances["own"].annual_return) in row


def test_markdown_and_html_show_the_same_cells(result: BacktestResult, analysis: Analysis) -> None:
    table = tables.main_table(result, analysis)
    markdown, html = tables.to_markdown(table), tables.to_html(table)
    assert len(markdown.splitlines()) == len(table.rows) + 2
    assert html.count("<tr") == len(table.rows) + 1


def test_numbers_have_a_real_minus_and_no_negative_zero() -> None:
    assert tables.number(-1.234) == "\N{MINUS SIGN}1.23"
    assert tables.number(-0.001) == "0.00"
    assert tables.percent(0.0512) == "5.1 %"
    assert tables.percent(None) == tables.NONE


def test_backtest_without_policies_reports_the_baselines() -> None:
    market = factories.random_market(np.random.default_rng(7), n_days=200)
    config = small_config(baselines=["momentum"], random_portfolios=0)
    result = run_backtest(market, [], "test", config)
    html = render_page(result, analyse(result))
    assert "No policy was handed in" in html
    assert "Backtest of 1/N" in html


def test_page_of_the_same_result_is_the_same(
    result: BacktestResult, analysis: Analysis, html: str
) -> None:
    assert render_page(result, analysis) == html
