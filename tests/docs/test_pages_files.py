"""The small files that the pages about own data and own features show are read as they say."""

import re
from datetime import date
from pathlib import Path

import pytest

from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.store import RawData

SHOWN = re.compile(r'```csv title="([\w.]+)"\n(.*?)```', re.DOTALL)


def shown_files(repository: Path) -> dict[str, str]:
    pages = (repository / "docs" / name for name in ("your_data.md", "own_code.md"))
    return dict(pair for page in pages for pair in SHOWN.findall(page.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> RawData:
    where = tmp_path_factory.mktemp("shown")
    for name, text in shown_files(repository).items():
        (where / name).write_text(text)
    return folder.load(where, calendar="XNYS")


def test_every_file_of_the_pages_is_read(raw: RawData, repository: Path) -> None:
    assert {reading.file for reading in raw.readings} == set(shown_files(repository))
    assert not any("not read" in note or "without a partner" in note for note in raw.notes)


def test_no_file_of_the_pages_is_taken_for_the_download_of_a_symbol(
    raw: RawData, repository: Path, tmp_path: Path
) -> None:
    others = shown_files(repository)
    head, *rows = others.pop("prices.csv").splitlines()
    for symbol in ("AAA", "BBB"):
        lines = [line.replace(f",{symbol},", ",") for line in rows if f",{symbol}," in line]
        text = "\n".join([head.replace("symbol,", ""), *lines])
        (tmp_path / f"{symbol}.csv").write_text(text)
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    found = folder.load(tmp_path, calendar="XNYS")
    assert found.bars.equals(raw.bars)
    assert found.own_features is not None
    assert found.own_features.equals(raw.own_features)


def test_the_features_of_the_page_are_known(raw: RawData) -> None:
    assert raw.own_features is not None
    of_stocks = raw.own_features.filter(name="earnings_yield").sort("symbol")
    assert of_stocks["value"].to_list() == [0.061, 0.044]
    assert of_stocks["known_at"].to_list() == [date(2020, 1, 2), date(2020, 1, 3)]
    assert raw.own_features.filter(name="survey")["symbol"].to_list() == [None, None]


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
