"""Pages show what a study wrote, and all the same."""

import re
from pathlib import Path

import pytest

CARD = re.compile(r"<!-- study (\w+) -->\n(.*?)<!-- /study \1 -->", re.DOTALL)


@pytest.mark.parametrize("study", ["us"])
def test_every_page_has_the_same_card_with_the_numbers_of_its_tables(
    study: str, repository: Path
) -> None:
    paths = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    cards = {
        path.name: text
        for path in paths
        for name, text in CARD.findall(path.read_text(encoding="utf-8"))
        if name == study
    }
    assert {"README.md", f"study_{study}.md"} <= set(cards)
    assert len(set(cards.values())) == 1
    page = (repository / "docs" / f"study_{study}.md").read_text(encoding="utf-8")
    lines = page.splitlines()
    agent = re.search(r"after (phase \d)", cards["README.md"])
    assert agent
    head = next(line for line in lines if line.startswith("| policy | exposure"))
    row = next(line for line in lines if line.startswith(f"| {agent[1]}, ensemble |"))
    measures = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    for line in cards["README.md"].splitlines():
        title, _, rest = line.removeprefix("| ").partition(" | ")
        if title in measures:
            assert rest.split(" | ")[0] == measures[title].removesuffix(" |"), title
