"""The small files that the page about own data shows are read as it says."""

import re
from datetime import date
from pathlib import Path

import pytest

from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.store import RawData

SHOWN = re.compile(r'```csv title="([\w.]+)"\n(.*?)```', re.DOTALL)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> RawData:
    where = tmp_path_factory.mktemp("shown")
    page = (repository / "docs" / "your_data.md").read_text(encoding="utf-8")
    for name, text in SHOWN.findall(page):
        (where / name).write_text(text)
    return folder.load(where, calendar="XNYS")


def test_every_file_of_the_page_is_read(raw: RawData, repository: Path) -> None:
    page = (repository / "docs" / "your_data.md").read_text(encoding="utf-8")
    shown = {name for name, _ in SHOWN.findall(page)}
    assert {reading.file for reading in raw.readings} == shown
    assert not any("not read" in note or "without a partner" in note for note in raw.notes)


def test_the_split_and_the_dividend_of_the_page_are_known(raw: RawData) -> None:
    assert raw.bars.height == 6
    last = raw.bars.filter(date=date(2020, 1, 6)).sort("symbol")
    assert last["split"].to_list() == [2.0, 1.0]
    assert last["dividend"].to_list() == [0.0, 0.25]


def test_index_membership_and_series_of_the_page_are_known(raw: RawData) -> None:
    assert raw.index["close"].to_list() == [3257.85, 3234.85, 3246.28]
    assert raw.macro["series"].unique().sort().to_list() == ["DGS10", "VIX"]
    assert raw.membership is not None
    assert raw.membership["end"].to_list() == [None, date(2020, 1, 3)]
