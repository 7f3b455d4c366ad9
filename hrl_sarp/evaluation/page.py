"""The look of a report: one HTML page without anything loaded from elsewhere."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib import rc_context
from matplotlib.figure import Figure

from hrl_sarp.evaluation.figures import FADED, GRID, INK, STYLE

RASTER_DPI = 110
PLACEHOLDERS = {INK: "currentColor", GRID: "var(--rule, #d5d9dd)", FADED: "var(--faded, #b4bac1)"}
STYLE_SHEET = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1c1f23; --soft: #5c636b;
  --rule: #dcdfe3; --faded: #b4bac1; --own: #eaf2f9; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e6e8ea; --soft: #a2aab2;
  --rule: #343a40; --faded: #5b636b; --own: #1c2b38; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 80rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.8rem 0 .7rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
p, li { max-width: 44rem; }
.sub, .note, figcaption { color: var(--soft); font-size: .875rem; }
.sub { margin: 0 0 1.4rem; }
.lead { font-size: 1.08rem; border-left: 3px solid var(--accent); padding-left: .9rem;
  margin: 1rem 0; }
.lead p { margin: .3rem 0; }
figure { margin: 1rem 0 1.6rem; max-width: 58rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: .3rem; max-width: 44rem; }
.scroll { overflow-x: auto; margin: .6rem 0; border: 1px solid var(--rule); border-radius: 6px; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { padding: .34rem .45rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; font-weight: 600; min-width: 2.9rem;
  max-width: 8rem; line-height: 1.25; }
tr > th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  font-weight: 500; white-space: nowrap; border-right: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom: 0; }
tr.own > *, tr.own > th:first-child { background: var(--own); font-weight: 650; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .875rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.35rem; }
  tr > th:first-child { max-width: 8.5rem; white-space: normal; }
  figure { overflow-x: auto; } figure svg { min-width: 34rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { .scroll { overflow: visible; border: 0; } details > * { display: block; } }
"""


@dataclass(frozen=True)
class Section:
    """A heading with ready HTML under it."""

    title: str
    body: str


def page(title: str, subtitle: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Put a page together; `lead` are the sentences to read if nothing else."""
    opening = "".join(f"<p>{escape(sentence)}</p>" for sentence in lead)
    body = "".join(f"<section><h2>{escape(s.title)}</h2>{s.body}</section>" for s in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE_SHEET}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p>'
        f'<div class="lead">{opening}</div>{body}</main></body></html>\n'
    )


def figure_html(figure: Figure, name: str, caption: str) -> str:
    """Inline a figure as SVG that takes its ink from the page.

    Args:
        figure: drawn with the placeholders of `figures`.
        name: unique on the page; it keeps the ids of two figures apart.
        caption: also read out in place of the picture.
    """
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
    for placeholder, colour in PLACEHOLDERS.items():
        drawing = drawing.replace(placeholder, colour)
    label = f'<svg role="img" aria-label="{escape(caption, quote=True)}"'
    drawing = drawing.replace("<svg", label, 1)
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def details_html(summary: str, body: str) -> str:
    """Fold something away."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def definitions_html(pairs: Sequence[tuple[str, str]]) -> str:
    """List facts."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{items}</dl>"
