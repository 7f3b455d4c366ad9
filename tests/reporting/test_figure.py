"""Figures have one look, one set of bytes, and take the theme of the page."""

from pathlib import Path
from xml.etree import ElementTree

from matplotlib.figure import Figure

from hrl_sarp.reporting.figure import (
    BLUE,
    INK,
    VERMILION,
    Panel,
    convergence_figure,
    save_png,
    svg,
)


def losses() -> Figure:
    curves = {"training": ([1, 2, 3], [3.0, 2.0, 1.5]), "validation": ([1, 2, 3], [3.0, 2.5, 2.6])}
    loss = Panel("loss", curves, levels={"mean of the column": 2.9}, best=2)
    return convergence_figure([loss, Panel("F1", {"validation": ([1], [0.5])})])


def test_each_span_has_its_colour_and_baselines_are_lines_across() -> None:
    axes = losses().axes[0]
    found = {line.get_label(): line for line in axes.lines}
    assert found["training"].get_color() == BLUE
    assert found["validation"].get_color() == VERMILION
    assert set(found["mean of the column"].get_ydata()) == {2.9}
    assert set(found["best epoch"].get_xdata()) == {2}


def test_curves_without_a_known_name_differ_in_colour() -> None:
    curves = {name: ([0, 1], [0, 1]) for name in ("training", "first", "second")}
    (axes,) = convergence_figure([Panel("", curves)]).axes
    assert len({line.get_color() for line in axes.lines}) == 3


def test_a_single_epoch_can_be_seen() -> None:
    (line,) = losses().axes[1].lines
    assert line.get_marker() == "o"


def test_same_figure_gives_the_same_png(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        save_png(tmp_path / name, losses())
    content = (tmp_path / "first.png").read_bytes()
    assert content == (tmp_path / "second.png").read_bytes()
    assert content.startswith(b"\x89PNG")


def test_svg_takes_its_ink_from_the_page_and_keeps_its_ids_apart() -> None:
    drawn = svg(losses(), "loss", 'a "caption"')
    root = ElementTree.fromstring(drawn)  # noqa: S314 -- our own drawing
    assert root.get("aria-label") == 'a "caption"'
    assert INK not in drawn
    assert "currentColor" in drawn
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert all(found is not None and found.startswith("loss-") for found in ids)
    assert drawn == svg(losses(), "loss", 'a "caption"')
