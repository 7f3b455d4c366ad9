"""Charts are plotly's own figures, and a real browser draws them without a network."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from hrl_sarp.reporting.charts import (
    FADED,
    FEW_DAYS,
    INK,
    MAX_POINTS,
    Chart,
    Line,
    Panel,
    grouped,
    intervals,
    plane,
    thinned,
    timeline,
)
from hrl_sarp.reporting.figure import Panel as Curves
from hrl_sarp.reporting.figure import convergence_figure
from hrl_sarp.reporting.page import Drawing, Fold, Section, page
from hrl_sarp.reporting.table import NONE, Table, number

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
HOSTILE = '</script><b>"1/N" & more</b>'
LINES = {"pale": Line(FADED, 0.8), HOSTILE: Line(INK, 2.2), "own": Line("#0072b2", 2.6)}
DATES = np.arange("2020-01-01", "2020-01-11", dtype="datetime64[D]")


def over_time() -> Chart:
    values = np.linspace(1.0, 2.0, len(DATES))
    gap = np.where(np.arange(len(DATES)) == 3, np.nan, values)
    first = Panel("wealth", {"own": values, HOSTILE: gap}, is_log=True, height=2.0,
                  band=("band", values - 0.5, values + 0.5))  # fmt: skip
    second = Panel("drawdown", {"own": -values / 10, "pale": -values / 5, "unknown": values})
    return timeline("wealth", "Caption <b>.", DATES, [first, second], LINES, marks=[DATES[5]])


def risk_and_growth() -> Chart:
    points = {"own": (0.1, 0.08), HOSTILE: (0.2, 0.1), "unknown": (0.0, 0.0)}
    return plane("plane", "Plane.", points, ("volatility", "growth"), LINES)


def fold_by_fold() -> Chart:
    groups = {
        "us": {"2005": (1.0, -1.0, 2.0), "2006": (0.5, 0.25, 0.75)},
        "nse": {"2005": (0.0, -1.0, 1.0)},
    }
    return intervals("folds", "Folds.", groups, "growth", ("#0072b2", "#d55e00"))


def side_by_side() -> Chart:
    groups = {"own": np.array([1.0, np.nan]), HOSTILE: np.array([0.5, -1.0]), "unknown": np.ones(2)}
    return grouped("bars", "Bars.", ("first", "second"), groups, ("where", "what"), LINES, (0.7,))


CHARTS = [over_time(), risk_and_growth(), fold_by_fold(), side_by_side()]


@pytest.mark.parametrize("chart", CHARTS)
def test_plotly_accepts_every_chart(chart: Chart) -> None:
    plain = json.loads(
        json.dumps(chart.spec)
        .replace(INK, "#000")
        .replace(FADED, "#888")
        .replace("var(--band)", "#ccc")
    )
    go.Figure(data=plain["data"], layout=plain["layout"])  # raises for what plotly does not know


@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 250.0])
@pytest.mark.parametrize("is_log", [True, False])
def test_a_panel_of_one_value_has_a_narrow_axis(value: float, is_log: bool) -> None:  # noqa: FBT001 -- drawn
    """Plotly would reach 1 to both sides: 100 % for a loss of 0."""
    flat = np.full(len(DATES), value)
    flat[2] = np.nan
    curves = {"own": flat, "pale": flat}
    chart = timeline("flat", "Flat.", DATES, [Panel("flat", curves, is_log=is_log)], LINES)
    axis = chart.spec["layout"]["yaxis"]
    if is_log:
        assert "range" not in axis
    else:
        low, high = axis["range"]
        assert low < value < high
        assert high - low <= 0.02 * max(1.0, abs(value)) + 1e-12
    moved = {**curves, "pale": flat + 1e-3}
    chart = timeline("moved", "Moved.", DATES, [Panel("moved", moved)], LINES)
    assert "range" not in chart.spec["layout"]["yaxis"]


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 3.0])
def test_ticks_and_the_value_pointed_at_tell_wealth_apart(spread: float) -> None:
    """With fixed digits a young account had the ticks 1, 1 and 1."""
    curves = {"own": 1.0 + spread * np.linspace(0.0, 1.0, len(DATES))}
    chart = timeline("w", "W.", DATES, [Panel("wealth", curves)], LINES)
    assert chart.spec["layout"]["yaxis"]["tickformat"] == ""  # plotly chooses the digits
    (curve,) = chart.spec["data"]
    assert "%{y:.5~g}" in curve["hovertemplate"]
    assert len(set(curve["y"])) > 1


@pytest.mark.parametrize("n_days", [2, 3, 5, 10])
def test_a_short_axis_of_time_has_ticks_at_days_alone(n_days: int) -> None:
    """Plotly would write hours, which no session has."""
    curves = {"own": np.linspace(1.0, 2.0, n_days)}
    chart = timeline("w", "W.", DATES[:n_days], [Panel("wealth", curves)], LINES)
    axis = chart.spec["layout"]["xaxis"]
    is_short = n_days <= FEW_DAYS
    assert axis.get("tickvals") == ([str(day) for day in DATES[:n_days]] if is_short else None)


def test_each_curve_is_in_its_panel_and_names_without_a_line_are_left_out() -> None:
    chart = over_time()
    drawn = [(trace["yaxis"], trace["name"]) for trace in chart.spec["data"]]
    assert drawn == [
        ("y", "band"),
        ("y", "band"),
        ("y", HOSTILE),
        ("y", "own"),
        ("y2", "pale"),
        ("y2", "own"),
    ]
    assert chart.spec["data"][2]["y"][3] is None
    upper, lower = (chart.spec["layout"][axis]["domain"] for axis in ("yaxis", "yaxis2"))
    assert upper[1] == 1.0
    assert lower[0] == pytest.approx(0.0, abs=1e-3)
    assert (upper[1] - upper[0]) == pytest.approx(2 * (lower[1] - lower[0]), abs=1e-3)
    assert upper[0] > lower[1]
    assert chart.spec["layout"]["shapes"][0]["x0"] == "2020-01-06"
    assert chart.in_front == ["own", HOSTILE]


def test_ends_of_an_interval_are_drawn_where_they_are() -> None:
    us, nse = fold_by_fold().spec["data"]
    assert us["x"] == ["2005", "2006"]
    assert us["error_y"]["array"] == [1.0, 0.25]
    assert us["error_y"]["arrayminus"] == [2.0, 0.25]
    assert nse["customdata"] == [[-1.0, 1.0]]


def test_what_is_not_finite_is_a_gap_that_a_browser_can_read() -> None:
    points = {"own": (0.1, np.nan), "pale": (np.inf, 0.1)}
    flat = plane("plane", "Plane.", points, ("volatility", "growth"), LINES)
    by_fold = intervals("folds", "", {"us": {"2005": (1.0, np.nan, np.inf)}}, "growth", ("#000",))
    for chart in (flat, by_fold):
        json.dumps(chart.spec, allow_nan=False)
    assert [trace["y"] for trace in flat.spec["data"]] == [[0.1], [None]]
    assert by_fold.spec["data"][0]["customdata"] == [[None, None]]


def test_bars_of_known_names_stand_at_their_labels_below_the_marked_height() -> None:
    chart = side_by_side()
    found = {trace["name"]: trace for trace in chart.spec["data"]}
    assert found.keys() == {"own", HOSTILE}
    assert (found["own"]["x"], found["own"]["y"]) == (["first", "second"], [1.0, None])
    assert [shape["y0"] for shape in chart.spec["layout"]["shapes"]] == [0.7]


def test_an_area_with_gaps_is_drawn_as_polygons() -> None:
    low = np.where(np.arange(10) == 4, np.nan, 1.0)
    panel = Panel("fans", {}, band=("band", low, low + 1.0))
    (area,) = timeline("fans", "Fans.", DATES, [panel], {}).spec["data"]
    assert area["fill"] == "toself"
    # there and back over 4 rows, a gap, and over 5 rows
    assert [i for i, value in enumerate(area["y"]) if value is None] == [8, 19]
    assert area["x"][:8] == [str(day) for day in (*DATES[:4], *DATES[3::-1])]
    assert area["y"][:8] == [1.0] * 4 + [2.0] * 4
    assert area["x"][9:14] == [str(day) for day in DATES[5:]]


def test_groups_beyond_the_colours_are_drawn_too() -> None:
    groups = {name: {"2005": (1.0, 0.0, 2.0)} for name in ("us", "nse", "sample")}
    chart = intervals("folds", "", groups, "growth", ("#111", "#222"))
    assert [trace["name"] for trace in chart.spec["data"]] == list(groups)
    assert chart.lines["sample"].colour == "#111"


@pytest.mark.parametrize("count", [1, 2, MAX_POINTS, MAX_POINTS + 1, 7 * MAX_POINTS])
def test_long_series_keep_their_ends_and_a_bounded_number_of_points(count: int) -> None:
    days = thinned(count)
    assert days[0] == 0
    assert days[-1] == count - 1
    assert len(days) == min(count, MAX_POINTS)
    assert (np.diff(days) > 0).all()


def document() -> str:
    table = Table(
        "T",
        ("name", "value"),
        [("b", f"{number(-2.0)} [1, 2]"), ("a", "10.0 %"), ("c", NONE)],
        links={"a": "x/a.html"},
    )
    return page(
        "Title",
        "",
        [],
        [Section("All", [table, over_time(), Fold("More", [risk_and_growth()]), fold_by_fold()])],
    )


def test_page_carries_the_script_once_and_only_where_a_chart_is() -> None:
    drawing = Drawing(convergence_figure([Curves("p", {"x": ([0, 1], [0, 1])})]), "one", "A.")
    assert 'id="plotly"' not in page("T", "", [], [Section("S", [drawing])])
    assert page("T", "", [], [Section("S", [Fold("F", [over_time()])])]).count('id="plotly"') == 1
    text = document()
    assert text == document()
    assert "</script><b>" not in text
    assert '<a href="x/a.html">a</a>' in text
    assert re.findall('class="chart" id="(.*?)"', text) == ["wealth", "plane", "folds"]
    assert len(text) < 2_500_000


CHECK = Path(__file__).with_name("try_page.js").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")
@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (400, "dark")])
def test_browser_draws_switches_and_sorts_without_a_network(
    width: int, theme: str, tmp_path: Path
) -> None:
    (tmp_path / "inner.html").write_text(f"{document()}<script>{CHECK}</script>")
    outer = (
        tmp_path / "page.html"
    )  # a window of a browser is at least 500 pixels wide, a frame is not
    outer.write_text(
        f"<iframe id=frame src=inner.html style='border:0;width:{width}px;height:2000px'></iframe>"
        "<script>setInterval(() => { const b = frame.contentDocument.body; "
        "if (b && b.dataset.told) document.body.dataset.told = b.dataset.told; }, 50)</script>"
    )
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000",
        f"--window-size={max(width, 600)},2000", *(["--force-dark-mode"] * (theme == "dark")),
        "--dump-dom", outer.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)  # noqa: S603 -- a browser on our own file
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-told="(.*?)"', ran.stdout)
    assert found, ran.stderr[-2000:]
    told = json.loads(found[1].replace("&quot;", '"'))
    assert told["before"] == [6, 2, 2]
    assert told["after"] == [4, 1, 2]  # "own" is two curves of the first chart, one of the second
    assert told["up"] == "bac"  # what is no number stays last
    assert told["down"] == "abc"
    assert not told["wide"]
    assert told["ink"] == ("#e6e8ea" if theme == "dark" else "#1c1f23")
