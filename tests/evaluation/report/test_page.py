"""The page of a backtest: what it says, names and leaves out."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from hrl_sarp.evaluation.report.page import headline, render_page
from hrl_sarp.evaluation.statistics import Interval
from hrl_sarp.reporting.figure import FADED, GRID, INK
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
    assert not {INK, GRID, FADED} & set(re.findall("#[0-9a-f]{6}", html.split("</style>")[1]))
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
    own = {**analysis.performances["own"], "growth_excess": Interval(0.01, -0.02, 0.03)}
    shown = replace(analysis, performances={**analysis.performances, "own": own})
    first = headline(result, shown)[0]
    assert "1.0 % a year more" in first
    assert "zero is in it" in first
    lower = {**own, "growth_excess": Interval(-0.02, -0.03, -0.01)}
    shown = replace(analysis, performances={**analysis.performances, "own": lower})
    assert "2.0 % a year less" in headline(result, shown)[0]
    assert "below zero" in headline(result, shown)[0]


def test_page_says_how_many_configurations_were_evaluated_on_the_span(
    result: BacktestResult, analysis: Analysis, parsed: _Page
) -> None:
    assert result.trials.count == 50
    assert "corrected for 50 configurations evaluated" in headline(result, analysis)[0]
    label = parsed.texts.index("configurations evaluated on the span")
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
