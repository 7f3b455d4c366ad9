"""Makes one HTML page of headings, tables, figures, charts and facts, without external files.

The style is in `templates/page.css`, the markup in `page.html` and `blocks.html` beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from hrl_sarp.reporting.charts import Chart, packed_plotly
from hrl_sarp.reporting.figure import READABLE, svg
from hrl_sarp.reporting.table import Table

TEMPLATES = Environment(
    loader=PackageLoader("hrl_sarp.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption."""

    figure: Figure
    name: str
    """Unique on the page."""
    caption: str
    """Screen readers read it out."""

    @property
    def is_readable_small(self) -> bool:
        """True if a telephone shows all of it at once; a wider figure is moved sideways there."""
        return float(self.figure.get_figwidth()) <= READABLE

    def svg(self) -> str:
        """Return the picture as an SVG element."""
        return svg(self.figure, self.name, self.caption)


@dataclass(frozen=True)
class Fold:
    """Blocks that are hidden until the reader opens them."""

    summary: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Row:
    """Narrow drawings side by side, below each other where there is no room."""

    drawings: Sequence[Drawing]


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    pairs: Sequence[tuple[str, str]]


Block = Table | Drawing | Chart | Row | Fold | Facts


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


def page(title: str, subtitle: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Put a page together. It carries plotly's script only where it has charts."""
    has_charts = any(_has_chart(section.blocks) for section in sections)
    return TEMPLATES.get_template("page.html").render(
        title=title, subtitle=subtitle, lead=lead, sections=sections,
        plotly=packed_plotly() if has_charts else "",
    )  # fmt: skip


def _has_chart(blocks: Sequence[Block]) -> bool:
    return any(
        isinstance(block, Chart) or (isinstance(block, Fold) and _has_chart(block.blocks))
        for block in blocks
    )


def block_html(block: Block) -> str:
    """Return one block as HTML, for a notebook. A chart needs a whole page to be drawn.

    A table stands under its title, which on a page is the heading of its section.
    """
    title = f"<h4>{escape(block.title)}</h4>" if isinstance(block, Table) else ""
    return f"{title}{TEMPLATES.get_template('blocks.html').module.show(block)}"  # type: ignore[attr-defined]  # a macro
