"""Files in sub-folders, in partitioned data sets and in packed files are those of one folder."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.folder import load
from hrl_sarp.errors import DataError
from tests.data.sources.files.test_known_sources import EXPECTED, MEASURES, PLAIN

SYMBOLS = ("AAA", "BBB")
BARS = pl.DataFrame(EXPECTED, schema=MEASURES, orient="row")


def sectors(folder: Path) -> Path:
    (folder / "sectors.csv").write_text("symbol,sector\nAAA,Energy\nBBB,Energy\n")
    return folder


def assert_read(folder: Path) -> None:
    raw = load(sectors(folder), calendar="XNYS")
    for symbol in SYMBOLS:
        assert raw.bars.filter(symbol=symbol).select(MEASURES).rows() == EXPECTED
    assert not any("not read: symbol" in note or "/ (" in note for note in raw.notes)


@pytest.mark.parametrize("ending", ["parquet", "csv", "csv.gz"])
@pytest.mark.parametrize("keys", [("symbol",), ("Ticker",), ("symbol", "year"), ("date",)])
def test_partitioned_data_set_is_read(tmp_path: Path, keys: tuple[str, ...], ending: str) -> None:
    own = {
        "symbol": pl.col("symbol"),
        "Ticker": pl.col("symbol"),
        "year": pl.col("date").dt.year(),
        "date": pl.col("date"),
    }
    bars = pl.concat(BARS.with_columns(symbol=pl.lit(symbol)) for symbol in SYMBOLS)
    given = [f"key {key}" for key in keys]
    keyed = bars.with_columns(**{f"key {key}": own[key].cast(pl.String) for key in keys})
    for values, part in keyed.group_by(given):
        names = (f"{key}={value}" for key, value in zip(keys, values, strict=True))
        folder = tmp_path.joinpath(*names)
        folder.mkdir(parents=True)
        rows = part.drop(*given, "date" if keys == ("date",) else "symbol")
        if ending == "parquet":
            rows.write_parquet(folder / "part-0.parquet")
        else:
            text = rows.write_csv().encode()
            packed = gzip.compress(text) if ending.endswith("gz") else text
            (folder / f"data.{ending}").write_bytes(packed)
    assert_read(tmp_path)


def test_data_set_may_be_called_as_the_table(tmp_path: Path) -> None:
    for symbol in SYMBOLS:
        folder = tmp_path / "prices.parquet" / f"symbol={symbol}"
        folder.mkdir(parents=True)
        BARS.write_parquet(folder / "0.parquet")
        (folder / "_SUCCESS").write_text("")
    assert_read(tmp_path)


@pytest.mark.parametrize("folders", [("stocks", "stocks"), ("a", "b"), ("x/y", "x")])
def test_downloads_in_sub_folders_are_read(tmp_path: Path, folders: tuple[str, str]) -> None:
    for symbol, name in zip(SYMBOLS, folders, strict=True):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / f"{symbol}.csv").write_text(PLAIN)
    assert_read(tmp_path)


def test_day_in_two_sub_folders_is_refused_by_both(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "AAA.csv").write_text(PLAIN)
    with pytest.raises(DataError, match=r"AAA 2011-01-03 in new.AAA.csv and old.AAA.csv"):
        load(sectors(tmp_path), calendar="XNYS")


def zipped(content: bytes, name: str = "AAA.csv") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    return packed.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".csv.gz": gzip.compress,
    ".csv.bz2": bz2.compress,
    ".CSV.XZ": lzma.compress,
    ".zip": zipped,
    ".txt.gz.bz2": lambda content: bz2.compress(gzip.compress(content)),
    ".csv.zip": lambda content: zipped(gzip.compress(content), "AAA.csv.gz"),
}


@pytest.mark.parametrize("ending", PACKED)
def test_packed_text_is_read(tmp_path: Path, ending: str) -> None:
    for symbol in SYMBOLS:
        (tmp_path / f"{symbol}{ending}").write_bytes(PACKED[ending](PLAIN.encode()))
    assert_read(tmp_path)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.bz2", ".CSV.XZ", ".zip"])
@pytest.mark.parametrize("cut", [1, 20])
def test_packed_text_that_is_cut_is_refused(tmp_path: Path, ending: str, cut: int) -> None:
    path = tmp_path / f"AAA{ending}"
    path.write_bytes(PACKED[ending](PLAIN.encode())[:-cut])
    with pytest.raises(DataError, match=f"{path.name}: no whole"):
        load(sectors(tmp_path), calendar="XNYS")


@pytest.mark.parametrize("name", ["sectors", "index", "macro", "membership", "features", "actions"])
@pytest.mark.parametrize("depth", ["data", "data/prices"])
def test_a_table_beside_prices_in_a_sub_folder_is_named(
    tmp_path: Path, name: str, depth: str
) -> None:
    folder = tmp_path / depth
    folder.mkdir(parents=True)
    for symbol in SYMBOLS:
        BARS.write_csv(folder / f"{symbol}.csv")
    (folder / f"{name}.csv").write_text("a,b\n1,2\n")
    raw = load(sectors(tmp_path), calendar="XNYS")
    assert [f"not read: {depth}/{name}.csv" in note for note in raw.notes].count(True) == 1
