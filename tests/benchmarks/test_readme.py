import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = {"cases", "timing", "kronos_forecasts"}
"""Modules that the others share; they have no command."""
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_benchmark_of_the_folder_has_one_row_of_the_table() -> None:
    named = re.findall(r"^\| `python -m benchmarks\.(\w+)` \|", TEXT, flags=re.MULTILINE)
    there = {path.stem for path in FOLDER.glob("*.py")} - PARTS
    assert sorted(named) == sorted(there)


def test_every_benchmark_can_be_run_and_the_parts_cannot() -> None:
    for path in FOLDER.glob("*.py"):
        can_run = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        assert can_run == (path.stem not in PARTS), path.name


def test_rows_have_a_figure_a_goal_and_a_machine() -> None:
    table = TEXT.split("| --- | --- | --- | --- | --- |\n")[1].split("\n\n")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 5
        assert all(cells[1:]), line


def test_files_that_the_page_names_are_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (FOLDER / target).exists(), target
