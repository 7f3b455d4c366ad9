"""The page of a backtest: what it says, names and leaves out."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrl_sarp.evaluation.attribution import Likeness
from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from hrl_sarp.evaluation.report.figures import (
    risk_return_chart,
    sectors_and_regimes,
    wealth_and_drawdown,
    wealth_chart,
)
from hrl_sarp.evaluation.report.files import daily_ledger, stock_ledger
from hrl_sarp.evaluation.report.page import headline, render_page
from hrl_sarp.evaluation.report.tables import (
    contributions_table,
    grants_table,
    last_weights_table,
)
from hrl_sarp.evaluation.statistics import Interval
from hrl_sarp.reporting.figure import FADED, GRID, INK, Panel
from hrl_sarp.reporting.table import NONE
from hrl_sarp.training.acceptance import Acceptance, Evidence
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
        if self.open[-1:] != ["script"]:
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
    assert "url(http" not in html
    assert "@import" not in html
    assert len(html) < 4_000_000


def test_page_leaves_no_placeholder_colour_and_no_nan(html: str, parsed: _Page) -> None:
    assert not {INK, GRID, FADED} & set(re.findall("#[0-9a-f]{6}", html.split("</style>")[1]))
    words = set(re.split(r"\W+", " ".join(parsed.texts).lower()))
    assert not words & {"nan", "inf", "none"}


def test_a_telephone_shows_every_picture_as_a_whole(html: str) -> None:
    assert html.count('<figure class="whole">') >= 5
    assert "<figure>" not in html  # such a one is moved sideways, and its scale is out of sight


def test_page_names_every_policy_and_where_the_numbers_come_from(
    parsed: _Page, result: BacktestResult
) -> None:
    text = " ".join(parsed.texts)
    for name in result.main.names:
        assert name in text
    assert "config hash" in text
    assert "random portfolios" in text
    assert "No method is expected to grow faster than 1/N" in text


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
    assert "<script>alert" not in html
    _Page().feed(html)


def _told(result: BacktestResult, analysis: Analysis, **figures: Any) -> str:
    own = {**analysis.performances["own"], **figures}
    shown = replace(analysis, performances={**analysis.performances, "own": own})
    return " ".join(headline(result, shown))


def test_headline_says_when_the_interval_includes_zero(
    result: BacktestResult, analysis: Analysis
) -> None:
    told = _told(result, analysis, growth_excess=Interval(0.01, -0.02, 0.03))
    assert "1.0 % a year more" in told
    assert "zero is in it" in told
    assert "own keeps the growth of 1/N, as far as this span can tell" in told
    told = _told(result, analysis, growth_excess=Interval(-0.05, -0.12, 0.03))
    assert "own grows 5.0 % a year less than 1/N, which this span cannot tell" in told
    told = _told(result, analysis, growth_excess=Interval(-0.02, -0.03, -0.01))
    assert "2.0 % a year less" in told
    assert "below zero" in told
    assert "own gives up 2.0 % of growth a year" in told


def test_headline_says_what_risk_is_taken_away_and_only_that(
    result: BacktestResult, analysis: Analysis
) -> None:
    base = analysis.performances["1/N"]
    volatility, fall = base["volatility"], base["max_drawdown"]
    told = _told(result, analysis, volatility=0.6 * volatility, max_drawdown=0.5 * fall)
    assert "takes 40 % of its volatility and 50 % of its largest drawdown away" in told
    told = _told(result, analysis, volatility=0.6 * volatility, max_drawdown=1.1 * fall)
    assert "takes 40 % of its volatility away" in told
    told = _told(result, analysis, volatility=1.1 * volatility, max_drawdown=1.1 * fall)
    assert "takes none of its risk away" in told


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (Interval(0.8, 0.7, 0.9), "not cash alone"),
        (Interval(0.95, 0.9, 1.1), "cash alone may explain"),
        (Interval(1.2, 1.1, 1.3), "riskier than 1/N"),
    ],
)
def test_headline_says_whether_cash_alone_explains_the_risk(
    ratio: Interval, verdict: str, result: BacktestResult, analysis: Analysis
) -> None:
    told = _told(result, analysis, relative_volatility=ratio)
    assert verdict in told
    assert f"{ratio.value:.2f} times that" in told


def test_policy_near_a_rule_is_called_by_the_rules_name(
    result: BacktestResult, analysis: Analysis
) -> None:
    limit = result.config.evaluation.same_rule_distance
    for distance, is_rule in ((limit, True), (limit + 0.01, False)):
        shown = replace(analysis, likeness={"own": Likeness("momentum", distance)})
        told = " ".join(headline(result, shown))
        assert ("own is the rule 'momentum'" in told) == is_rule
        assert ("nearest to 'momentum'" in told) != is_rule
        title = render_page(result, shown).split("</title>")[0]
        assert ("momentum" in title) == is_rule


def test_headline_says_which_phases_were_granted_what_they_learned(
    result: BacktestResult, analysis: Analysis
) -> None:
    assert "granted" not in " ".join(headline(result, analysis))
    nothing, learned = _evidence(mean=0.0, lower=-1.0), _evidence(mean=1.0, lower=-0.5)
    passed = _evidence(mean=1.0, lower=0.5)
    told = _granted(result, analysis, {"phase 1": nothing, "phase 3": nothing})
    assert "No phase asked to deploy what it learned" in told
    assert "Deployed are" not in told
    told = _granted(result, analysis, {"phase 1": learned, "phase 2": nothing, "phase 3": learned})
    assert "learned: phase 1; phase 3. The evidence granted it to none" in told
    told = _granted(result, analysis, {"phase 1": passed, "phase 3": learned})
    assert "The evidence granted it to phase 1." in told
    shares = {"share of the macro agent": passed, "share of the micro agent": learned}
    told = _granted(result, analysis, shares)
    assert "Deployed are 100 % of the macro agent and 0 % of the micro agent; the rest" in told
    told = _granted(result, analysis, dict.fromkeys(shares, learned))
    assert "Deployed are 0 % of the macro agent and 0 % of the micro agent; the rest" in told


def _granted(result: BacktestResult, analysis: Analysis, grants: dict[str, Acceptance]) -> str:
    return " ".join(headline(result, replace(analysis, grants=grants)))


def _evidence(mean: float, lower: float) -> Acceptance:
    rows = (Evidence(0.0, 0.0, 0.0), Evidence(1.0, mean, lower))
    return Acceptance(rows, confidence=0.9, n_folds=1, n_series=1, n_sessions=100)


def test_page_lays_out_what_was_asked_for_and_granted(
    result: BacktestResult, analysis: Analysis
) -> None:
    gains = {"phase 3": (1.5, -0.5), "phase 4": (2e-7, 1e-7), "phase 5": (-0.2, -0.3)}
    shown = replace(analysis, grants={name: _evidence(*each) for name, each in gains.items()})
    assert list(grants_table(shown).rows) == [
        ("phase 3", "1", "+1.50", "nothing", NONE),
        ("phase 4", "1", "+2e-07", "1", "+1e-07"),
        ("phase 5", "nothing", NONE, "nothing", NONE),
    ]
    assert "What the evidence granted" in render_page(result, shown)


def test_page_says_how_many_configurations_were_evaluated_on_the_span(
    result: BacktestResult, analysis: Analysis, parsed: _Page
) -> None:
    assert result.trials.count == 50
    assert "corrected for 50 configurations evaluated" in " ".join(headline(result, analysis))
    label = parsed.texts.index("configurations evaluated on the span or by tuning")
    assert parsed.texts[label + 1] == "50"


def test_headline_names_power_and_survivorship(result: BacktestResult, analysis: Analysis) -> None:
    text = " ".join(headline(result, analysis))
    assert f"{analysis.smallest_information_ratio:.1f} a year" in text
    assert "Survivorship" in text


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


def test_every_row_has_a_line_that_can_be_named_and_the_main_ones_are_last_and_thick(
    result: BacktestResult, analysis: Analysis
) -> None:
    chart, plane = wealth_chart(result, analysis), risk_return_chart(result, analysis)
    assert set(chart.lines) == set(plane.lines) == set(result.main.names)
    assert chart.in_front[:2] == ["own", "1/N"]
    widths = {name: line.width for name, line in chart.lines.items()}
    assert {*sorted(widths, key=widths.__getitem__)[-2:]} == {"1/N", "own"}
    lines = wealth_and_drawdown(result, analysis).axes[0].lines
    assert len(lines) == len(result.main.names)


def test_chart_draws_the_ledger(result: BacktestResult, analysis: Analysis) -> None:
    chart = wealth_chart(result, analysis)
    dates = chart.spec["x"]
    assert dates == [str(day) for day in result.main.dates]
    own = result.main.names.index("own")
    drawn = {(trace["yaxis"], trace["name"]): trace["y"] for trace in chart.spec["data"]}
    assert drawn["y", "own"] == pytest.approx(result.main.wealth[:, own], rel=1e-4)
    held = result.main.weights_after[:, own].sum(axis=1)
    assert drawn["y3", "own"] == pytest.approx(held, rel=1e-4)
    month = result.main.dates.astype("datetime64[M]") == np.datetime64(dates[0][:7])
    assert drawn["y4", "own"][0] == pytest.approx(result.main.turnover[month, own].sum(), rel=1e-4)
    assert ("y3", "index") not in drawn  # the index holds nothing here
    excess = result.main.net_return[:, own] - result.market.risk_free[-len(dates) :]
    window = result.config.evaluation.rolling_days
    assert window < len(dates) // 2
    first = excess[:window]
    sharpe = first.mean() / first.std(ddof=1) * np.sqrt(result.market.sessions.year)
    assert drawn["y5", "own"][: window - 1] == [None] * (window - 1)
    assert drawn["y5", "own"][window - 1] == pytest.approx(sharpe, rel=1e-4)


@pytest.mark.parametrize("empty", [(), (0,), (1, 2)])
def test_sectors_without_stocks_are_left_out_of_the_picture(
    empty: tuple[int, ...], result: BacktestResult
) -> None:
    market = result.market
    emptied = ~np.isin(market.sector_of, empty)
    shown = replace(result, market=replace(market, eligible=market.eligible & emptied))
    axes = sectors_and_regimes(shown, "own").axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    kept = [name for s, name in enumerate(market.sector_names) if s not in empty]
    assert names == [*kept, "cash"]


def test_page_says_what_each_row_is_where_its_policy_says_it(
    result: BacktestResult, analysis: Analysis
) -> None:
    told = {**result.descriptions, "own": "Buys what <this> says"}
    html = render_page(replace(result, descriptions=told), analysis)
    assert "Buys what &lt;this&gt; says." in html
    assert "Hold 1/N of the usable stocks." in html  # of the rule's docstring
    rules = {*result.main.names} - {"index", "own"}
    assert rules == {*result.descriptions}


def test_page_shows_holdings_risk_beside_growth_and_the_curves_of_the_phases(
    result: BacktestResult, analysis: Analysis
) -> None:
    panel = Panel("Phase 1: supervised macro", {"validation": ([-1, 0], [1.0, 2.0])}, best=-1)
    page = _Page()
    page.feed(render_page(result, analysis, [panel]))
    text = " ".join(page.texts)
    for heading in ("What own holds", "What each stock earned", "How training went", "Risk and"):
        assert heading in text
    assert "The start was kept." in text
    assert "epoch -1" not in text
    largest = analysis.holdings["own"].largest
    assert all(symbol in page.texts for symbol in largest)
    assert "How training went" not in render_page(result, analysis)


def test_last_weights_and_contributions_are_those_of_the_ledger(
    result: BacktestResult, analysis: Analysis
) -> None:
    last = result.main.weights_after[-1, result.main.names.index("own")]
    table = last_weights_table(result, analysis, "own")
    shares = [float(row[2].removesuffix(" %")) for row in table.rows]
    assert sum(shares) == pytest.approx(100, abs=0.06 * len(shares))
    assert shares[0] == pytest.approx(100 * last.max(), abs=0.05)
    assert table.rows[-1][0] == "cash"
    earned = contributions_table(result, analysis, "own").rows
    found = analysis.holdings["own"].contributions
    assert earned[0][0] == max(found, key=found.__getitem__)
    assert earned[-1][0] == min(found, key=found.__getitem__)
    assert len({row[0] for row in earned}) == len(earned)


def test_the_page_about_reading_the_report_lists_its_sections_in_their_order(
    result: BacktestResult, analysis: Analysis, repository: Path
) -> None:
    text = (repository / "docs" / "reading_the_report.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (.*?) \|", text.split("## The files")[0], re.MULTILINE)[1:]
    shown = replace(analysis, grants={"phase 3": _evidence(mean=1.5, lower=-0.5)})
    panel = Panel("Phase 1: supervised macro", {"validation": ([0], [1.0])}, best=0)
    html = render_page(result, shown, [panel])
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [name.replace("certified", "own") for name in documented]


def test_the_page_about_reading_the_report_lists_the_columns_of_the_ledgers(
    result: BacktestResult, repository: Path
) -> None:
    text = (repository / "docs" / "reading_the_report.md").read_text(encoding="utf-8")
    costs = result.config.market_profile.costs
    ledgers = (stock_ledger(result.main, result.market, costs), daily_ledger(result))
    for ledger, part in zip(ledgers, text.split("| column | meaning |")[1:], strict=True):
        cells = re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
        documented = [name for cell in cells for name in re.findall("`(.*?)`", cell)]
        columns = [re.sub("goal/.*", "goal/...", name) for name in ledger.columns]
        assert documented == list(dict.fromkeys(columns))
