"""Pages show what a study wrote, and all the same."""

import re
from pathlib import Path

import pytest

CARD = re.compile(r"<!-- study (\w+) -->\n(.*?)<!-- /study \1 -->", re.DOTALL)


@pytest.mark.parametrize(("study", "pages"), [("us", {"README.md"}), ("three_markets", set[str]())])
def test_every_page_has_the_same_card_with_the_numbers_of_its_tables(
    study: str, pages: set[str], repository: Path
) -> None:
    paths = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    cards = {
        path.name: text
        for path in paths
        for name, text in CARD.findall(path.read_text(encoding="utf-8"))
        if name == study
    }
    assert pages | {f"study_{study}.md"} == set(cards)
    (card,) = set(cards.values())
    page = (repository / "docs" / f"study_{study}.md").read_text(encoding="utf-8")
    agent = re.search(r"after (phase \d)", card)
    assert agent
    head = next(line for line in page.splitlines() if line.startswith("| policy | exposure"))
    policy = f"| {agent[1]}, ensemble |"  # one row for each market, in the order of the card
    rows = [line for line in page.splitlines() if line.startswith(policy)]
    found = 0
    for line in card.splitlines():
        title, *cells = line.strip("| ").split(" | ")
        if title in head.strip("| ").split(" | "):
            place = head.strip("| ").split(" | ").index(title)
            shown = [row.strip("| ").split(" | ")[place] for row in rows]
            assert cells[:: len(cells) // len(rows)] == shown, title
            found += 1
    assert found >= 6
