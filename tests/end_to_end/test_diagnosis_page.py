"""One table says what the curves of training mean: those that runs log, and no others."""

import re
from pathlib import Path

from hrl_sarp.fitting.history import curves
from hrl_sarp.reporting.curves import expanded, meanings
from hrl_sarp.run.phases import PHASES
from tests.end_to_end.phase_runs import outcome

PAGE = Path("docs") / "diagnosis.md"
ROW = re.compile(r"^\| `([^`]+)` \| (.*?) \|", re.MULTILINE)
GROWTH_ALONE = "### Curves of the objective growth"


def documented(repository: Path) -> dict[str, str]:
    rows = ROW.findall((repository / PAGE).read_text(encoding="utf-8"))
    return {name: text for pattern, text in rows for name in expanded(pattern)}


def test_a_whole_run_logs_the_curves_of_the_page(undisturbed: Path, repository: Path) -> None:
    rows = [
        row for files in PHASES for row in outcome(files.number, undisturbed)["metrics"]["history"]
    ]
    logged = set().union(*(curves(row) for row in rows))
    assert logged - set(meanings()) == set(), "logged, but the table does not explain them"
    page = (repository / PAGE).read_text(encoding="utf-8")
    growth = ROW.findall(page[page.index(GROWTH_ALONE) :])
    other = {name for pattern, _ in growth for name in expanded(pattern)}
    assert set(meanings()) - logged == other, "explained, but no phase logs them"


def test_the_page_shows_the_table_that_tensorboard_shows(repository: Path) -> None:
    assert documented(repository) == meanings()


def test_phases_follow_one_another_on_the_axis_of_decisions(undisturbed: Path) -> None:
    last = 0
    for files in PHASES:
        history = outcome(files.number, undisturbed)["metrics"]["history"]
        axis = [row["decisions"] for row in history]
        assert axis == sorted(axis)
        assert axis[0] >= last
        last = axis[-1]


def test_curves_of_the_symptoms_stand_in_the_table(repository: Path) -> None:
    text = (repository / PAGE).read_text(encoding="utf-8")
    symptoms = text[text.index("## Symptoms") : text.index("## Every curve")]
    curve = re.compile(r"`((?:macro|micro|eval|train|pretrain|pretrain_micro)/\w+)`")
    named = set(curve.findall(symptoms))
    assert len(named) > 30
    assert named - set(meanings()) == set()
