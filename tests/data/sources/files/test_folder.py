"""The user's files: both formats, both layouts, and one line for everything that does not fit."""

import gzip
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.data.sources.files.folder import load
from hrl_sarp.data.store import BARS_SCHEMA
from hrl_sarp.errors import DataError, MissingArtifactError

HEADER = "date,symbol,open,high,low,close,volume"
PRICES = f"""{HEADER}
2020-01-02,AAA,10,11,9,10.5,100
2020-01-03,AAA,10.5,11,10,10.8,200
2020-01-02,BBB,20,21,19,20.5,300
"""
SECTORS = "symbol,sector\nAAA,Energy\nBBB,Utilities\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with prices.csv and sectors.csv."""
    inputs = tmp_path / "mine"
    inputs.mkdir()
    (inputs / "prices.csv").write_text(PRICES)
    (inputs / "sectors.csv").write_text(SECTORS)
    return inputs


def test_csv_becomes_typed_bars_without_invented_adjustment(folder: Path) -> None:
    raw = load(folder)
    assert raw.bars.schema == BARS_SCHEMA
    assert raw.bars.row(1, named=True) == {
        "date": date(2020, 1, 3),
        "symbol": "AAA",
        "open": 10.5,
        "high": 11.0,
        "low": 10.0,
        "close": 10.8,
        "volume": 200.0,
        "adj_close": None,
        "dividend": 0.0,
        "split": 1.0,
    }
    assert "nothing is adjusted" in raw.adjustment
    assert raw.sectors.rows() == [("AAA", "Energy"), ("BBB", "Utilities")]
    assert raw.macro.is_empty()
    assert raw.index.is_empty()


def test_one_file_per_symbol_equals_one_file(folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split"
    split.mkdir()
    lines = PRICES.splitlines()
    (split / "AAA.csv").write_text("\n".join(lines[:3]))
    (split / "BBB.csv").write_text("\n".join([lines[0], lines[3]]))
    (split / "sectors.csv").write_text(SECTORS)
    assert load(split).bars.equals(load(folder).bars)


def test_parquet_file_equals_csv_folder(folder: Path) -> None:
    expected = load(folder).bars
    path = folder / "bars.parquet"
    expected.select(HEADER.split(",")).write_parquet(path)
    assert load(path).bars.equals(expected)


def test_rows_sorted_by_date_first_are_accepted(folder: Path) -> None:
    expected = load(folder).bars
    lines = PRICES.splitlines()
    (folder / "prices.csv").write_text("\n".join([lines[0], lines[1], lines[3], lines[2]]))
    assert load(folder).bars.equals(expected)


def test_null_cells_are_kept_for_validation(folder: Path) -> None:
    (folder / "prices.csv").write_text(f"{HEADER}\n2020-01-02,AAA,null,,NaN,10.5,100\n")
    assert load(folder).bars.row(0)[2:6] == (None, None, None, 10.5)


def test_optional_tables_beside_the_prices_are_read(folder: Path) -> None:
    (folder / "index.csv").write_text("date,close\n2020-01-02,100\n2020-01-03,101\n")
    (folder / "membership.csv").write_text("symbol,start,end\nAAA,2020-01-01,\n")
    (folder / "macro.csv").write_text("date,series,value\n2020-01-02,OIL,61\n2020-01-03,OIL,\n")
    raw = load(folder)
    assert raw.index["close"].to_list() == [100.0, 101.0]
    assert raw.membership is not None
    assert raw.membership.rows() == [("AAA", date(2020, 1, 1), None)]
    assert raw.macro.rows() == [(date(2020, 1, 2), "OIL", 61.0)]


def test_adjusted_close_of_the_file_is_taken(folder: Path) -> None:
    text = f"{HEADER},adj_close,split\n2020-01-02,AAA,10,11,9,10.5,100,5.25,2\n"
    (folder / "prices.csv").write_text(text)
    raw = load(folder)
    assert raw.bars.select("adj_close", "dividend", "split").row(0) == (5.25, 0.0, 2.0)
    assert "adj_close from the files" in raw.adjustment


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("date,symbol,open\n2020-01-02,AAA,1\n", "found no close .* among date, symbol, open"),
        (
            PRICES.replace("10.8", "oops"),
            "column close: expected numbers, found 'oops' in data row 2",
        ),
        (
            PRICES.replace("2020-01-03", "03/01/2020"),
            "column date: expected days whose order .* can be told, found '03/01/2020'",
        ),
        (
            PRICES.replace("2020-01-03", "2019-12-31") + "2020-01-03,AAA,10,11,9,10,1\n",
            "found an earlier date: 2019-12-31 after 2020-01-02",
        ),
        (PRICES.replace(",BBB,", ",,"), "column symbol: expected a value in every row, found none"),
        (HEADER, "expected rows of prices, found none"),
        ("", "expected a readable .csv table"),
        (PRICES + "<html><body>, 404,</body>,x,y,z,w,u,v\n", "expected a readable .csv table"),
        (PRICES.replace("volume", "volume,close", 1), "expected each column once"),
    ],
)
def test_broken_prices_are_one_line_that_names_the_file(
    folder: Path, text: str, message: str
) -> None:
    (folder / "prices.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert "prices.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_in_a_parquet_date_column_type_is_named(folder: Path) -> None:
    path = folder / "prices.parquet"
    pl.read_csv(folder / "prices.csv").with_columns(date=pl.lit(True)).write_parquet(path)  # noqa: FBT003 -- a value
    with pytest.raises(DataError, match=r"column date: expected days such as .*, found Boolean"):
        load(folder)


def test_random_bytes_instead_of_parquet_are_refused(folder: Path) -> None:
    (folder / "prices.parquet").write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(DataError, match=r"prices\.parquet: expected a readable"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "sectors.csv",
            "symbol,industry\nAAA,x\n",
            "found no sector .or gics_sector. among",
        ),
        ("sectors.csv", SECTORS + "AAA,Energy\n", "found AAA twice"),
        ("membership.csv", "symbol,start,end\nAAA,2020-02-01,2020-01-01\n", "not before start"),
        (
            "macro.csv",
            "date,value\n2020-01-02,1\n",
            "found no series .or series_id. among",
        ),
        ("index.csv", "date,close\n2020-01-02,1\n2020-01-02,1\n", "found a duplicate"),
    ],
)
def test_broken_side_table_is_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert name in str(caught.value)


def test_gics_sector_column_is_accepted(folder: Path) -> None:
    (folder / "sectors.csv").write_text("symbol,name,gics_sector\nAAA,Firm A,Energy\n")
    assert load(folder).sectors.rows() == [("AAA", "Energy")]


def test_missing_input_prices_or_sectors_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"nowhere does not exist.*--input"):
        load(tmp_path / "nowhere")
    (folder / "sectors.csv").unlink()
    with pytest.raises(MissingArtifactError, match=r"expected sectors\.csv"):
        load(folder)
    (folder / "prices.csv").unlink()
    with pytest.raises(MissingArtifactError, match=r"expected prices\.parquet"):
        load(folder)


def test_macro_folder_is_joined_renamed_and_rid_of_revised_indices(
    folder: Path, tmp_path: Path
) -> None:
    macro = tmp_path / "us_macro"
    macro.mkdir()
    (macro / "fred_series.csv").write_text(
        "date,series_id,value\n2020-01-02,DGS10,1.9\n2020-01-02,GDPC1,5\n2020-01-02,USREC,0\n"
        "2020-01-02,VIXCLS,13\n"
    )
    (macro / "vix_ohlc.csv").write_text("date,open,high,low,close\n2020-01-02,12,13,11,12.5\n")
    (macro / "sector_etf_close.csv").write_text("date,symbol,close\n2020-01-02,XLE,60\n")
    (macro / "gold_daily.csv").write_text("date,symbol,close\n2020-01-02,XAUUSD,1500\n")
    raw = load(folder)  # the folder beside the input is found by itself
    assert dict(raw.macro.select("series", "value").iter_rows()) == {
        "DGS10": 1.9,
        "ETF_XLE": 60.0,
        "GOLD": 1500.0,
        "VIX": 12.5,
        "VIXCLS": 13.0,
    }
    assert "macro series found beside the input: us_macro" in raw.notes
    assert "revised macro indices left out, no vintages: GDPC1, USREC" in raw.notes


def test_vix_is_taken_from_fred_where_nothing_better_exists(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "fred.csv"
    path.write_text("date,series,value\n2020-01-02,VIXCLS,13\n")
    macro = load(folder, path).macro
    assert dict(macro.select("series", "value").iter_rows()) == {"VIX": 13.0, "VIXCLS": 13.0}


@pytest.mark.parametrize("form", ["long", "wide"])
@pytest.mark.parametrize("known", ["VIX", "FEDFUNDS", "DGS10", "IRX", "GOLD", "T10Y2Y"])
@pytest.mark.parametrize("written", ["^{}", "{} ", "lower", "Title", "$ {}"])
def test_known_series_are_read_under_other_spellings(
    folder: Path, tmp_path: Path, form: str, known: str, written: str
) -> None:
    changed = {"lower": known.lower(), "Title": known.title()}
    name = changed.get(written) or written.format(known)
    path = tmp_path / "rates.csv"
    long = f"date,series,value\n2020-01-02,{name},3\n"
    path.write_text(long if form == "long" else f"date,{name}\n2020-01-02,3\n")
    raw = load(folder, path)
    assert raw.macro.rows() == [(date(2020, 1, 2), known, 3.0)]
    if name.strip() != known:
        assert any(f"is read as {known}" in note for note in raw.notes)


def test_the_known_spelling_of_a_series_wins_over_others(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    names = ("VIX", "^VIX", "dgs10", "^DGS10")
    rows = "".join(f"2020-01-02,{name},{value}\n" for value, name in enumerate(names, start=1))
    path.write_text("date,series,value\n" + rows)
    values = dict(load(folder, path).macro.select("series", "value").iter_rows())
    assert values["VIX"] == 1.0
    assert values["^VIX"] == 2.0
    assert len(values) == 4


@pytest.mark.parametrize("names", [("DGS10",), ("DGS10", "FEDFUNDS", "my series")])
@pytest.mark.parametrize("date", ["observation_date", "DATE", ""])
def test_series_side_by_side_are_read_by_their_headings(
    folder: Path, names: tuple[str, ...], date: str
) -> None:
    cells = [".", *(str(number) for number in range(1, len(names)))]
    rows = [f"2020-01-02,{','.join(cells)}", f"2020-01-03,{','.join('5' * len(names))}"]
    (folder / "macro.csv").write_text("\n".join([f"{date},{','.join(names)}", *rows]))
    macro = load(folder).macro
    expected = [(name, 5.0) for name in names] + [
        (name, float(number)) for number, name in enumerate(names) if number
    ]
    assert sorted(macro.select("series", "value").iter_rows()) == sorted(expected)


def test_folder_of_series_alone_is_read_whole(folder: Path, tmp_path: Path) -> None:
    macro = tmp_path / "fred"
    macro.mkdir()
    for name in ("DGS10", "FEDFUNDS"):
        (macro / f"{name}.csv").write_text(f"observation_date,{name}\n2020-01-02,1.5\n")
    (macro / "README.md").write_text("from FRED")
    raw = load(folder, macro)
    assert raw.macro["series"].to_list() == ["DGS10", "FEDFUNDS"]
    assert "fred: not read: README.md" in raw.notes


@pytest.mark.parametrize("header", ["date,open,close", "date,symbol,x", "date,value", "when,DGS10"])
def test_columns_that_mean_something_else_are_no_series(folder: Path, header: str) -> None:
    n_others = header.count(",")
    (folder / "macro.csv").write_text(f"{header}\n2020-01-02{',1' * n_others}\n")
    with pytest.raises(DataError, match="expected the columns date, series, value"):
        load(folder)


@pytest.mark.parametrize("heading", ["realtime_start", "vintage_date"])
def test_several_releases_of_a_value_are_refused_as_what_they_are(
    folder: Path, heading: str
) -> None:
    rows = "2020-01-01,UNRATE,4.0,2020-02-07\n2020-01-01,UNRATE,4.1,2020-03-06\n"
    (folder / "macro.csv").write_text(f"date,series,value,{heading}\n{rows}")
    message = rf"column {heading}: .* several of UNRATE for 2020-01-01 .* keep the first release"
    with pytest.raises(DataError, match=message):
        load(folder)
    (folder / "macro.csv").write_text(f"date,series,value,{heading}\n2020-01-01,VIX,4,2020-02-07")
    assert load(folder).macro.height == 1


@pytest.mark.parametrize(("n_strange", "is_refused"), [(2, False), (3, True), (10, True)])
def test_returns_in_place_of_levels_are_no_index(
    folder: Path,
    n_strange: int,
    is_refused: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    rows = [f"2020-01-{i + 1:02d},{-0.5 if i < n_strange else 0.5}" for i in range(10)]
    (folder / "index.csv").write_text("\n".join(["date,close", *rows]))
    if is_refused:
        with pytest.raises(DataError, match=rf"levels above 0, found {n_strange} of 10 rows"):
            load(folder)
    else:
        assert load(folder).index.height == len(rows)


@pytest.mark.parametrize("sign", ["\u200b", "\u200e", "\ufeff", "\u00a0"])
def test_signs_without_a_width_are_no_part_of_a_symbol(folder: Path, sign: str) -> None:
    lines = [f"{sign}{symbol}{sign},Energy" for symbol in ("AAA", "BBB")]
    (folder / "sectors.csv").write_text("\n".join(["symbol,sector", *lines]))
    assert load(folder).sectors["symbol"].to_list() == ["AAA", "BBB"]


def test_empty_macro_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingArtifactError, match="expected a macro file or a folder with"):
        load(folder, tmp_path / "empty")


@pytest.mark.parametrize("name", ["CCL", "XOM"])
def test_junk_in_a_table_named_prices_is_refused(
    data_folder: Path, tmp_path: Path, name: str
) -> None:
    packed = next((data_folder / "us_messy" / "raw").glob(f"{name}.csv*"))
    (tmp_path / "prices.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    (tmp_path / "sectors.csv").write_text(SECTORS)
    with pytest.raises(DataError, match=r"prices\.csv"):
        load(tmp_path)


def test_duplicate_row_of_a_table_is_named_and_leaves(folder: Path) -> None:
    clean = load(folder)
    assert clean.import_findings is None
    (folder / "prices.csv").write_text(PRICES + "2020-01-03,AAA,10.5,11,10,10.8,999\n")
    raw = load(folder)
    assert raw.bars.equals(clean.bars)
    assert raw.import_findings is not None
    assert raw.import_findings.rows() == [
        (
            "AAA",
            date(2020, 1, 3),
            999.0,
            "duplicate_row",
            1,
            "prices.csv data row 4: volume 999; kept 2: volume 200",
        )
    ]
    assert raw.notes[-1] == "left out: 1 duplicate_row; validate-data names each"


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A folder of downloads: a sound one, one with junk in the wrong order, one of an error."""
    inputs = tmp_path / "downloads"
    inputs.mkdir()
    header = "Date,Open,High,Low,Close,Adj Close,Volume"
    sound = ["2020-01-02,10,11,9,10.5,10.5,100", "2020-01-03,10.5,11,10,10.8,10.8,200"]
    (inputs / "AAA.csv").write_text("\n".join([header, *sound]))
    (inputs / "BBB.csv").write_text("\n".join([*reversed(sound), "<html>", sound[0]]))
    (inputs / "CCC.csv").write_text("404 Not Found")
    (inputs / "sectors.csv").write_text(SECTORS)
    return inputs


def test_downloads_keep_their_rows_and_name_the_rest(downloads: Path) -> None:
    raw = load(downloads)
    rows = raw.bars.select("symbol", "date", "close", "volume").rows()
    first, second = date(2020, 1, 2), date(2020, 1, 3)
    assert rows == [
        ("AAA", first, 10.5, 100.0),
        ("AAA", second, 10.8, 200.0),
        ("BBB", first, 10.5, 100.0),
        ("BBB", second, 10.8, 200.0),
    ]
    assert raw.import_findings is not None
    found = raw.import_findings.select("symbol", "rule", "value").rows()
    assert sorted(found) == [
        ("BBB", "duplicate_row", 100.0),
        ("BBB", "junk_lines", 3.0),
        ("BBB", "no_header", 1.0),
        ("BBB", "unordered_rows", 2.0),
        ("CCC", "no_usable_row", 1.0),
    ]
    assert raw.notes[-1] == (
        "left out: 1 duplicate_row, 1 junk_lines, 1 no_usable_row; without any usable row: "
        "CCC (CCC.csv line 1: 404 Not Found); validate-data names each"
    )


def test_one_download_may_be_the_input(downloads: Path) -> None:
    assert load(downloads / "AAA.csv").bars["symbol"].unique().to_list() == ["AAA"]


def test_downloads_without_any_row_are_refused_in_one_line(downloads: Path) -> None:
    for name in ("AAA", "BBB"):
        (downloads / f"{name}.csv").write_text("<html>\n</html>")
    with pytest.raises(DataError, match=r"found none in 3 file.*AAA\.csv line 1: <html>") as caught:
        load(downloads)
    assert "\n" not in str(caught.value)


def test_levels_of_two_indices_are_refused_and_none_is_noted(folder: Path) -> None:
    index = folder / "index.csv"
    index.write_text("date,symbol,close\n2020-01-02,SPX,1\n2020-01-02,DAX,2\n")
    with pytest.raises(DataError, match="expected levels of one index, found DAX, SPX; keep"):
        load(folder)
    index.write_text("date,close\n2020-01-02,\n")
    assert "index.csv: no level in it, so no index" in load(folder).notes


@pytest.mark.parametrize("last", ["", "9999-12-31", "NA"])
@pytest.mark.parametrize("header", ["symbol,start,end", "Ticker,From,To", "symbol,Start Date,thru"])
def test_membership_without_an_end_is_open(folder: Path, last: str, header: str) -> None:
    (folder / "membership.csv").write_text(f"{header}\nAAA,2019-01-01,{last}\n")
    membership = load(folder).membership
    assert membership is not None
    assert membership.rows() == [("AAA", date(2019, 1, 1), None)]


def test_symbol_in_two_files_is_refused(downloads: Path) -> None:
    (downloads / "AAA.csv.gz").write_bytes(gzip.compress((downloads / "AAA.csv").read_bytes()))
    with pytest.raises(
        DataError, match=r"found AAA 2020-01-02 in AAA\.csv and AAA\.csv\.gz \(2 such days\)"
    ):
        load(downloads)


def test_ranges_of_the_vix_that_contradict_it_are_named(folder: Path, tmp_path: Path) -> None:
    macro = tmp_path / "us_macro"
    macro.mkdir()
    rows = ["2020-01-02,12,13,11,12.5", "2020-01-03,14,13,11,12.5"]
    (macro / "vix_ohlc.csv").write_text("\n".join(["date,open,high,low,close", *rows]))
    found = load(folder).import_findings
    assert found is not None
    assert found.select("symbol", "date", "value", "rule").rows() == [
        ("VIX", date(2020, 1, 3), 14.0, "macro_range")
    ]


def test_actions_beside_the_prices_adjust_them(folder: Path) -> None:
    (folder / "actions.csv").write_text("date,symbol,split\n2020-01-03,AAA,2\n")
    raw = load(folder)
    assert raw.bars["split"].to_list() == [1.0, 2.0, 1.0]
    assert "adjusted when the market is assembled" in raw.adjustment
    assert "1 splits and dividends from actions.csv" in raw.notes


@pytest.mark.parametrize("ending", [".xlsx", ".XLSX", ".json", ".feather", ".pkl", ".ods", ".db"])
@pytest.mark.parametrize("stem", ["sectors", "index", "macro", "membership", "actions", "Features"])
def test_a_table_in_a_form_that_is_not_read_is_refused_and_not_passed_over(
    folder: Path, stem: str, ending: str
) -> None:
    (folder / "sectors.csv").rename(folder / "kept.txt")
    path = folder / f"{stem}{ending}"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=rf"{path.name}: expected .*found {ending.lower()}; save"):
        load(folder, needs_sectors=False)
    path.rename(folder / f"notes{ending}")  # which is no table of ours
    assert any(f"notes{ending}" in note for note in load(folder, needs_sectors=False).notes)
