"""One word, one meaning: the words that the glossary retires are gone from code and pages."""

import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import REPOSITORY

GLOSSARY = REPOSITORY / "docs" / "glossary.md"


def retired_words() -> list[str]:
    """Read the first column of the table of retired words."""
    table = GLOSSARY.read_text(encoding="utf-8").split("## Retired words")[1]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return [word.strip() for cell in cells[1:] for word in cell.split(",")]


def sources() -> list[Path]:
    code = [path for folder in ("hrl_sarp", "scripts") for path in (REPOSITORY / folder).rglob("*")]
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    found = [path for path in code if path.suffix in {".py", ".html", ".css"}] + pages
    return [path for path in found if path != GLOSSARY and path.name != "CHANGELOG.md"]


@pytest.mark.parametrize("word", retired_words())
def test_a_retired_word_is_gone(word: str) -> None:
    # "held out" stands for held_out and held-out, too
    pattern = re.compile(rf"(?<![a-z]){word.replace(' ', '[ _-]')}(?![a-z])", re.IGNORECASE)
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_words_stand_in_order_and_once() -> None:
    table = GLOSSARY.read_text(encoding="utf-8").split("## Retired words")[0]
    words = [line.split("|")[1].strip(" `") for line in table.splitlines() if line.startswith("| ")]
    words = words[1:]  # the head of the table
    assert words == sorted(words, key=str.lower)
    assert len(words) == len(set(words))
