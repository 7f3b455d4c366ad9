"""Features on disk: the same values, none of other bars, none of a damaged file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from hrl_sarp.data.bars import Bars
from hrl_sarp.errors import StorageError
from hrl_sarp.features import relativity
from hrl_sarp.features.relativity import load_relativity, relativity_features
from tests.features.candle_factories import relativity_config, walk

CONFIG = relativity_config()


@pytest.fixture(scope="module")
def bars() -> Bars:
    return walk("10 trades", 200, seed=1)


@pytest.fixture
def folder(tmp_path: Path, bars: Bars) -> Path:
    """A folder that holds the features of `bars`."""
    folder = tmp_path / "data" / "features"
    load_relativity(bars, CONFIG, 105, folder)
    return folder


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def no_computing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes computing an error, once `folder` is filled."""
    assert the_file(folder)

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("computed again")

    monkeypatch.setattr(relativity, "relativity_features", refuse)


@pytest.mark.usefixtures("no_computing")
def test_second_call_reads_what_the_first_computed(folder: Path, bars: Bars) -> None:
    table = load_relativity(bars, CONFIG, 105, folder)
    np.testing.assert_array_equal(table, relativity_features(bars, CONFIG, 105))
    assert table.dtype == np.float32


def test_first_call_returns_the_same(tmp_path: Path, bars: Bars) -> None:
    table = load_relativity(bars, CONFIG, 105, tmp_path)
    np.testing.assert_array_equal(table, relativity_features(bars, CONFIG, 105))


def test_mapped_table_serves_torch_and_keeps_the_file(folder: Path, bars: Bars) -> None:
    before = the_file(folder).read_bytes()
    table = load_relativity(bars, CONFIG, 105, folder)
    assert isinstance(table, np.memmap)
    torch.from_numpy(table)[:] = 7.0  # warnings, as for arrays that may not be written, are errors
    assert the_file(folder).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"bars": {"content_hash": "other"}},
        {"bars": {"instruments": ("ETH",)}},
        {"config": {"zigzag_k": 1.3}},
        {"config": {"atr_period": 11}},
        {"config": {"displacement_bars": [4]}},
        {"config": {"displacement_bars": [4], "displacement_atr_bars": 10}},
        {"window_length": 64},
    ],
)
def test_anything_else_is_computed_anew(folder: Path, bars: Bars, change: dict[str, Any]) -> None:
    other = replace(bars, **change.get("bars", {}))
    config = CONFIG.model_copy(update=change.get("config", {}))
    length = change.get("window_length", 105)
    table = load_relativity(other, config, length, folder)
    np.testing.assert_array_equal(table, relativity_features(other, config, length))
    assert len(list(folder.iterdir())) == 2


def test_other_code_is_computed_anew(
    folder: Path, bars: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relativity, "source_hash", lambda *_: "other")
    load_relativity(bars, CONFIG, 105, folder)
    assert len(list(folder.iterdir())) == 2


def _flipped(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in the header": lambda content: content[:40],
    "cut in the data": lambda content: content[:-1],
    "one bit": _flipped,
    "something else": lambda content: b"x" * len(content),
    "a pickle": lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_computed_anew_and_replaced(folder: Path, bars: Bars, damage: str) -> None:
    path = the_file(folder)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    table = load_relativity(bars, CONFIG, 105, folder)
    np.testing.assert_array_equal(table, relativity_features(bars, CONFIG, 105))
    assert the_file(folder) == path
    assert path.read_bytes() == whole


def test_folder_that_is_a_file_is_refused(tmp_path: Path, bars: Bars) -> None:
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        load_relativity(bars, CONFIG, 105, tmp_path / "features")
