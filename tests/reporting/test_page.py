"""The page holds what it is given, escaped, and loads nothing."""

from html.parser import HTMLParser

from hrl_sarp.reporting.figure import Panel, convergence_figure
from hrl_sarp.reporting.page import Drawing, Facts, Fold, Section, block_html, page
from hrl_sarp.reporting.table import Table

VOID = {"meta", "br", "path", "use", "image", "rect", "circle"}
TABLE = Table("T", ("a", "b"), [("<1/N>", "1"), ("own", "2")], "a & b", frozenset({"own"}))


class Balance(HTMLParser):
    """Remembers open tags; a closing tag that does not fit is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def document() -> str:
    drawing = Drawing(convergence_figure([Panel("p", {"x": ([0, 1], [0, 1])})]), "one", "A <line>.")
    blocks = [TABLE, drawing, Fold("More", [TABLE, Facts([("seed", "3")])])]
    return page("Title & more", "sub", ["First.", "<second>"], [Section("All", blocks)])


def test_every_tag_is_closed() -> None:
    parser = Balance()
    parser.feed(document())
    assert parser.open == []


def test_text_is_escaped_and_markup_is_not() -> None:
    text = document()
    assert text.startswith("<!doctype html>")
    assert "<h1>Title &amp; more</h1>" in text
    assert "&lt;second&gt;" in text
    assert "&lt;1/N&gt;" in text
    assert text.count("<svg") == 1
    assert "A &lt;line&gt;." in text


def test_emphasised_rows_are_marked_in_every_copy_of_the_table() -> None:
    assert document().count('<tr class="own">') == 2


def test_words_are_aligned_left_under_their_heading() -> None:
    told = Table("T", ("rule", "n", "why"), [("a", "1", "because")], text_columns=frozenset({0, 2}))
    found = block_html(told)
    assert '<th scope="col" class="text">why</th>' in found
    assert '<td class="text">because</td>' in found
    assert "<td>1</td>" in found


def test_page_loads_nothing_and_carries_its_style() -> None:
    text = document().replace("http://www.w3.org", "")
    assert "http" not in text
    assert "--paper" in text


def test_one_block_is_html_of_its_own() -> None:
    found = block_html(Facts([("seed", "3"), ("sessions", "250")]))
    assert found.count("<dt>") == 2
    assert "<dd>250</dd>" in found
    assert "<html" not in found


def test_a_table_in_a_notebook_stands_under_its_title() -> None:
    found = block_html(Table("phase 1 <a>", ("rule",), [("a",)]))
    assert found.startswith("<h4>phase 1 &lt;a&gt;</h4>")
    assert "<h4>" not in document()  # a page has the headings of its sections
