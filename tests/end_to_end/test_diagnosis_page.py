"""docs/diagnosis.md names the curves that runs log: all of them, and no others."""

import itertools
import re
from pathlib import Path

from hrl_sarp.run.phases import PHASES
from tests.end_to_end.phase_runs import outcome

PAGE = Path("docs") / "diagnosis.md"
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def expanded(name: str) -> set[str]:
    """Write `{a,b}/c` out as a/c and b/c."""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return {"".join(chosen) for chosen in itertools.product(*parts)}


def documented(text: str) -> set[str]:
    table = re.search(r"<!-- metrics -->(.*)<!-- /metrics -->", text, re.DOTALL)
    assert table, "docs/diagnosis.md has no table between <!-- metrics --> and <!-- /metrics -->"
    return set().union(*map(expanded, ROW.findall(table[1])))


def test_the_page_and_a_whole_run_name_the_same_curves(undisturbed: Path, repository: Path) -> None:
    found = documented((repository / PAGE).read_text(encoding="utf-8"))
    rows = [
        row for files in PHASES for row in outcome(files.number, undisturbed)["metrics"]["history"]
    ]
    logged = set().union(*rows) - {"step"}
    assert found - logged == set(), "documented, but no phase logs them"
    assert logged - found == set(), "logged, but the page does not explain them"


def test_curves_of_the_symptoms_stand_in_the_table(repository: Path) -> None:
    text = (repository / PAGE).read_text(encoding="utf-8")
    symptoms = text[text.index("## Symptoms") : text.index("## Every curve")]
    curve = re.compile(r"`((?:macro|micro|eval|train|pretrain|pretrain_micro)/\w+)`")
    named = set(curve.findall(symptoms))
    assert len(named) > 30
    assert named - set().union(*map(expanded, ROW.findall(text))) == set()


def test_braces_are_written_out() -> None:
    assert expanded("{macro,micro}/cost") == {"macro/cost", "micro/cost"}
    assert expanded("train/loss") == {"train/loss"}
