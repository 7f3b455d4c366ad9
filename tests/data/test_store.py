"""Raw data survive the disk, and damage to them is named."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hrl_sarp.data.store import MEMBERSHIP_SCHEMA, read_raw, write_raw
from hrl_sarp.errors import DataError, MissingArtifactError
from tests.data.raw_factories import clean_raw, day

COMMAND = r"hrl-sarp collect-data"


def test_written_data_are_read_back_unchanged(tmp_path: Path) -> None:
    membership = pl.DataFrame(
        {"symbol": ["AAA"], "start": [day(0)], "end": [None]}, schema=MEMBERSHIP_SCHEMA
    )
    raw = replace(clean_raw(), membership=membership, notes=("one note",))
    write_raw(raw, tmp_path)
    again = read_raw(tmp_path)
    for name in ("bars", "sectors", "macro", "index", "membership"):
        assert_frame_equal(getattr(again, name), getattr(raw, name))
    assert again.features is None
    assert (again.source, again.adjustment, again.notes) == (raw.source, raw.adjustment, raw.notes)


def test_manifest_names_symbols_spans_rows_and_statements(tmp_path: Path) -> None:
    manifest = json.loads(write_raw(clean_raw(), tmp_path).read_text())
    assert manifest["symbols"] == ["AAA", "BBB"]
    # 20 XNYS sessions from 2 January 2019; Martin Luther King day on the 21st is none
    assert manifest["spans"]["bars"] == ["2019-01-02", "2019-01-30"]
    assert manifest["files"]["market/bars.parquet"]["rows"] == 40
    assert manifest["survivorship"] == "two stocks that stay"
    assert manifest["created_by"] == "hrl-sarp collect-data --source files"


def test_same_data_give_the_same_manifest(tmp_path: Path) -> None:
    first = write_raw(clean_raw(), tmp_path / "a").read_bytes()
    assert write_raw(clean_raw(), tmp_path / "b").read_bytes() == first


def test_tables_of_an_earlier_source_are_removed(tmp_path: Path) -> None:
    membership = pl.DataFrame(schema=MEMBERSHIP_SCHEMA)
    write_raw(replace(clean_raw(), membership=membership), tmp_path)
    write_raw(clean_raw(), tmp_path)
    assert not (tmp_path / "membership.parquet").exists()
    assert read_raw(tmp_path).membership is None


@pytest.mark.parametrize("make_folder", [False, True])
def test_missing_or_empty_folder_names_the_command(tmp_path: Path, *, make_folder: bool) -> None:
    folder = tmp_path / "raw"
    if make_folder:
        folder.mkdir()
    with pytest.raises(MissingArtifactError, match=rf"manifest\.json.*{COMMAND}"):
        read_raw(folder)


def test_missing_table_is_named(tmp_path: Path) -> None:
    write_raw(clean_raw(), tmp_path)
    (tmp_path / "sectors.parquet").unlink()
    with pytest.raises(MissingArtifactError, match=rf"sectors\.parquet.*{COMMAND}"):
        read_raw(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet"])
def test_changed_table_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    write_raw(clean_raw(), tmp_path)
    (tmp_path / "market/bars.parquet").write_bytes(content)
    with pytest.raises(
        DataError, match=rf"bars\.parquet: .*: the file changed since.*{COMMAND}"
    ) as caught:
        read_raw(tmp_path)
    assert "\n" not in str(caught.value)


def test_corrupted_table_with_a_fitting_hash_is_refused(tmp_path: Path) -> None:
    manifest_path = write_raw(clean_raw(), tmp_path)
    (tmp_path / "market/bars.parquet").write_bytes(b"abc")
    manifest = json.loads(manifest_path.read_text())
    del manifest["checksum"]
    manifest["files"]["market/bars.parquet"]["sha256"] = (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-4
    )
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=rf"bars\.parquet: expected a Parquet file.*{COMMAND}"):
        read_raw(tmp_path)


def test_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    raw = clean_raw()
    write_raw(replace(raw, sectors=raw.sectors.rename({"sector": "industry"})), tmp_path)
    with pytest.raises(DataError, match="expected columns symbol String, sector String, found"):
        read_raw(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": {}}'])
def test_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    write_raw(clean_raw(), tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises((DataError, MissingArtifactError), match=COMMAND):
        read_raw(tmp_path)


def test_manifest_without_a_statement_is_refused(tmp_path: Path) -> None:
    path = write_raw(clean_raw(), tmp_path)
    manifest = json.loads(path.read_text())
    del manifest["checksum"], manifest["survivorship"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="expected the key survivorship"):
        read_raw(tmp_path)
