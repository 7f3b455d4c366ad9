"""A table shows the same cells everywhere, and what a terminal has room for."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from hrl_sarp.reporting.table import NONE, Table, number, percent

TABLE = Table(
    "Two [policies]",
    ("policy", "log growth over 1/N, % a year", "costs"),
    [("1/N", NONE, "0.1 %"), ("own", "2.0 [1.0, 3.0]", "0.3 %")],
    note="Net of costs.",
    emphasised=frozenset({"own"}),
    telling=(0, 2, 1),
)


def shown(table: Table, width: int) -> str:
    screen = StringIO()
    Console(width=width, file=screen).print(table)
    return screen.getvalue()


def test_wide_terminal_shows_every_column_and_the_note() -> None:
    text = shown(TABLE, 120)
    assert "Two [policies]" in text
    assert "2.0 [1.0, 3.0]" in text
    assert "Net of costs." in text
    assert "for want of room" not in text


def test_narrow_terminal_leaves_out_intervals_then_columns_and_their_notes() -> None:
    noted = replace(TABLE, column_notes={1: "Growth is in logs.", 2: "Costs are paid."})
    # borders 3 x 2, policy 6, costs 5: 17 characters; the growth needs 17 more
    assert TABLE.columns_within(20) == (0, 2)
    assert TABLE.columns_within(34) == (0, 2)
    assert TABLE.columns_within(35) == (0, 1, 2)
    whole, bare, narrow = (" ".join(shown(noted, width).split()) for width in (120, 34, 30))
    assert "2.0 [1.0, 3.0]" in whole
    assert "Net of costs. Growth is in logs. Costs are paid." in whole
    # without the interval the heading's 10 characters decide: 17 + 13
    assert "2.0" in bare
    assert "[1.0" not in bare
    assert "for want of room" not in bare
    assert "0.3 %" in narrow
    assert "2.0" not in narrow
    assert (
        "Net of costs. Costs are paid. Left out here for want of room: 1 of the columns." in narrow
    )
    assert noted.whole_note == "Net of costs. Growth is in logs. Costs are paid."


@pytest.mark.parametrize("width", range(18, 100, 7))
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    text = shown(TABLE, width)
    assert max(map(len, text.splitlines())) <= width
    assert "0.1 %" in text


def test_words_continue_on_the_next_line_where_no_column_may_be_left_out() -> None:
    told = Table(
        "", ("rule", "why"), [("a", "one two three four five")], text_columns=frozenset({1})
    )
    text = shown(told, 20)
    assert {"one", "two", "three", "four", "five"} <= set(text.split())


@pytest.mark.parametrize("width", [50, 60, 80])
@pytest.mark.parametrize("name", ["undeclared_split", "large_return", "gap", "twenty_letters_long"])
def test_a_short_name_of_a_row_is_not_broken(name: str, width: int) -> None:
    rows = [(name, "AAPL", "1", "2000-09-29", "overnight return 0", "what a detail says " * 3)]
    table = Table(
        "Findings",
        ("rule", "symbol", "findings", "first", "effect", "detail"),
        rows,
        text_columns=frozenset({0, 1, 3, 4, 5}),
    )
    screen = StringIO()
    Console(file=screen, width=width).print(table)
    assert sum(line.strip().startswith(name) for line in screen.getvalue().splitlines()) == 1
    assert max(map(len, screen.getvalue().splitlines())) <= width


def test_a_name_that_is_too_long_continues_on_the_next_line() -> None:
    rows = [("pretrain/val_regime_balanced_accuracy", "0.333", "0.411", "0.411")]
    text = shown(Table("", ("quantity", "first", "highest", "last"), rows), 50)
    assert "…" not in text
    # three columns of numbers leave 20 characters
    assert "pretrain/val_regime_ " in text
    assert "balanced_accuracy " in text


def test_markdown_aligns_numbers_and_escapes_bars() -> None:
    lines = Table("", ("a|b", "c"), [("x", "1")]).markdown().splitlines()
    assert lines == ["| a\\|b | c |", "| --- | ---: |", "| x | 1 |"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.004, "0.00"), (-1.5, "\N{MINUS SIGN}1.50"), (2, "2.00"), (None, NONE)],
)
def test_numbers_have_a_real_minus_and_zero_has_none(value: float | None, text: str) -> None:
    assert number(value) == text


def test_percent_scales_fractions() -> None:
    assert percent(0.0815) == "8.2 %"
    assert percent(-0.5, 0) == "\N{MINUS SIGN}50 %"
    assert percent(None) == NONE
