"""Collecting writes what the source gives and says what it did."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hrl_sarp.cli.app import app
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import check_files, collect
from hrl_sarp.data.store import read_raw
from hrl_sarp.errors import DataError

CONFIG = load_config(
    overrides={
        "data": {
            "synthetic": {
                "n_days": 30,
                "n_sectors": 3,
                "stocks_per_sector": 2,
                "n_noise_features": 1,
            }
        }
    }
)


def test_synthetic_market_is_collected_on_the_calendar_of_the_profile(tmp_path: Path) -> None:
    manifest = collect("synthetic", tmp_path, CONFIG)
    assert manifest["created_by"] == "hrl-sarp collect-data --source synthetic"
    # 30 XNYS sessions from 3 January 2000, without 17 January: the last is 14 February
    assert manifest["spans"]["bars"] == ["2000-01-03", "2000-02-14"]
    raw = read_raw(tmp_path)
    assert raw.bars.height == 30 * 6
    assert raw.features is not None
    assert raw.features.height == 30 * 6 * 2


def test_collecting_again_replaces_what_was_there(tmp_path: Path) -> None:
    collect("synthetic", tmp_path, CONFIG)
    manifest = collect("sample", tmp_path, CONFIG, overwrite=True)
    assert len(manifest["symbols"]) == 20
    assert read_raw(tmp_path).features is None


def test_unknown_source_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'bloomberg' is unknown; expected one of sample, synth"):
        collect("bloomberg", tmp_path, CONFIG)


def test_files_without_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected --input PATH"):
        collect("files", tmp_path, CONFIG)


def test_input_for_another_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="belong to the source files, found source sample"):
        collect("sample", tmp_path, CONFIG, input_path=tmp_path)


def test_failed_collection_leaves_the_old_data(tmp_path: Path) -> None:
    before = collect("synthetic", tmp_path, CONFIG)
    with pytest.raises(DataError):
        collect("files", tmp_path, CONFIG, overwrite=True)
    assert read_raw(tmp_path).source == before["source"]


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A folder of two downloads with Yahoo's header of three lines."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("AAA", "BBB"):
        header = f"Price,Close,Open\nTicker,{name},{name}\nDate,,"
        (folder / f"{name}.csv").write_text(f"{header}\n2011-01-03,40.5,40\n")
    (folder / "sectors.csv").write_text("symbol,sector\nAAA,Energy\nBBB,Energy\n")
    (folder / "notes.md").write_text("x")
    return folder


def test_check_says_what_is_read_as_what_and_writes_nothing(
    downloads: Path, tmp_path: Path
) -> None:
    command = ["collect-data", "--source", "files", "--input", str(downloads), "--check"]
    data_dir = tmp_path / "raw"
    shown = CliRunner().invoke(app, [*command, "--data-dir", str(data_dir)], env={"COLUMNS": "200"})
    assert shown.exit_code == 1  # one day makes no market
    assert "AAA.csv, BBB.csv" in shown.output
    assert "Open -> open, Close -> close" in shown.output
    assert "2 bars of 2 symbols, nothing written" in shown.output
    assert "note: not read: notes.md" in shown.output
    assert not data_dir.exists()


def test_check_reads_what_collecting_writes(downloads: Path, tmp_path: Path) -> None:
    config = load_config(market="us")
    checked = check_files(config, downloads, None)
    collect("files", tmp_path / "raw", config, downloads)
    assert read_raw(tmp_path / "raw").bars.equals(checked.bars)


def test_check_of_another_source_is_refused() -> None:
    refused = CliRunner().invoke(app, ["collect-data", "--check"])
    assert "--check belongs to the source files, found source sample" in str(refused.exception)
