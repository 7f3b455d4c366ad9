"""One table of headings: the same column under every spelling, and nothing by its place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.data.sources.files.forms.headings import (
    HEADINGS,
    MEASURES,
    adjusting,
    heading_key,
    match,
    split_pair,
)

STYLES = (
    str.upper,
    str.title,
    lambda text: text.replace("_", " "),
    lambda text: text.replace("_", "."),
    lambda text: text.replace("_", "-"),
    lambda text: "".join(part.title() for part in text.split("_")),
    lambda text: f"<{text.upper()}>",
    lambda text: f"4. {text}",
    lambda text: f'"{text} "',
    lambda text: f"\ufeff{text}*",
)
SPELLINGS = [(ours, text) for ours in MEASURES for text in HEADINGS[ours] if len(text) > 1]


@settings(max_examples=30)
@given(st.sampled_from(SPELLINGS), st.sampled_from(STYLES), st.permutations(["x", "y", "date"]))
def test_every_spelling_in_every_style_and_place_is_found(
    spelling: tuple[str, str], style: object, others: list[str]
) -> None:
    ours, text = spelling
    heading = style(text)  # type: ignore[operator] -- one of STYLES
    found = match([*others, heading], ("date", *MEASURES))
    assert found.taken == {"date": "date", ours: heading}
    assert set(found.unread) == {"x", "y"}


@pytest.mark.parametrize(
    ("headings", "taken"),
    [
        (["date", "close", "adjClose", "divCash", "splitFactor"], 5),
        (["timestamp", "1. open", "5. adjusted close", "8. split coefficient"], 4),
        (["Date", "Price", "Open", "High", "Low", "Vol.", "Change %"], 6),
        (["t", "o", "h", "l", "c", "v"], 6),
        (["o", "c", "t"], 0),  # letters count where all prices have them
        (["When", "A", "B"], 0),
    ],
)
def test_headings_of_sources(headings: list[str], taken: int) -> None:
    assert len(match(headings, ("date", *MEASURES)).taken) == taken


def test_two_spellings_of_one_price_are_rivals_unless_one_is_ours() -> None:
    assert match(["Last", "Price"], MEASURES).rivals == {"close": ("Last", "Price")}
    assert match(["Close", "Last", "Price"], MEASURES).taken == {"close": "Close"}
    assert match(["Close", "Last", "Price"], MEASURES).rivals == {}
    assert match(["close", "CLOSE"], MEASURES).rivals == {"close": ("close", "CLOSE")}


def test_map_of_a_profile_wins() -> None:
    found = match(["symbol", "file_symbol"], ("symbol",), {"symbol": "file_symbol"})
    assert found.taken == {"symbol": "file_symbol"}
    assert match(["symbol"], ("symbol",), {"symbol": "file_symbol"}).taken == {}


@pytest.mark.parametrize("heading", ["adjVolume", "CFACSHR", "Capital Gains", "Split Adj", "Div."])
def test_unread_adjustments_are_seen(heading: str) -> None:
    assert adjusting(["Turnover", heading]) == (heading,)


@pytest.mark.parametrize("symbol", ["AAA", "BRK.B", "BRK-B", "600519.SS", "^GSPC", "LOW"])
@pytest.mark.parametrize("form", ["{}_{}", "{} {}", "('{}', '{}')", "{}|{}"])
@pytest.mark.parametrize("measure", ["Close", "Adj Close", "Open", "Volume"])
def test_pairs_of_measure_and_symbol_are_split(symbol: str, form: str, measure: str) -> None:
    ours = heading_key(measure).replace("adjclose", "adj_close")
    assert split_pair(form.format(measure, symbol)) == (ours, symbol)
    assert split_pair(form.format(symbol, measure)) == (ours, symbol)


@pytest.mark.parametrize("heading", ["AAA", "BRK.B", "Open", "Turnover", "LOW"])
def test_other_headings_are_no_pairs(heading: str) -> None:
    assert split_pair(heading) is None
