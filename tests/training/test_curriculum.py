"""The table of curves: first, lowest, highest and last of what a metrics file holds."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.fitting.history import curve_table
from hrl_sarp.training.curriculum import phase_tables

HISTORY = [
    {"step": 0, "eval/growth_pct": 1.0},
    {"step": 1, "macro/growth": -0.5, "macro/p_bear": None},
    {"step": 2, "macro/growth": 0.25, "eval/growth_pct": -3.0},
    {"step": 3, "macro/growth": 0.125},
]


def test_rows_without_a_quantity_do_not_count() -> None:
    table = curve_table("phase 3", HISTORY)
    assert table.rows == [
        ("eval/growth_pct", "1", "-3", "1", "-3"),
        ("macro/growth", "-0.5", "-0.5", "0.25", "0.125"),
    ]


def test_each_finished_phase_has_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "phase3_macro"
    folder.mkdir()
    (folder / "phase3_macro_metrics.json").write_text(json.dumps({"history": HISTORY}))
    (table,) = phase_tables(tmp_path)
    shown = StringIO()
    Console(width=80, file=shown).print(table)
    text = shown.getvalue()
    assert "phase 3 (PPO macro)" in text
    (line,) = [line for line in text.splitlines() if "macro/growth" in line]
    assert line.split() == ["macro/growth", "-0.5", "-0.5", "0.25", "0.125"]


def test_a_folder_without_a_finished_phase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="no finished phase in"):
        phase_tables(tmp_path)
