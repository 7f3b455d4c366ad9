"""Opens a file of any known ending as text or as a table: packed or not, in any encoding."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from polars.exceptions import PolarsError

from hrl_sarp.errors import DataError, HrlSarpError, MissingArtifactError
from hrl_sarp.run.damage import UNREADABLE_TABLE

TABLE_ENDING = ".parquet"
TEXT_ENDINGS = (".csv", ".txt", ".tsv")
OTHER_FORMS = frozenset(
    (
        *(".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".json", ".jsonl", ".ndjson"),
        *(".feather", ".arrow", ".h5", ".hdf5", ".pkl", ".pickle", ".orc", ".avro", ".dta"),
        *(".sas7bdat", ".sav", ".rds", ".rdata", ".mat", ".npy", ".npz", ".db", ".sqlite"),
    )
)
"""Endings of tables that are not read."""
PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zip")
SEPARATORS = (",", ";", "\t", "|")

SIGNATURES: Mapping[bytes, str] = {
    b"PK\x03\x04": "a workbook or zip",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x89HDF": "HDF5",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
}
"""What a file begins with -> what it is, whatever its ending says."""

_PACKERS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    ".gz": ("gzip", gzip.decompress),
    ".bz2": ("bzip2", bz2.decompress),
    ".xz": ("xz", lzma.decompress),
}
_LINE_END = re.compile(r"\r\n|\n|\r")
_FILLERS = "\0\x1a"
"""What old systems and torn downloads leave behind the last line."""
_GUARD = '="'
"""What keeps workbooks from reading the text ="000001" as a number."""
_NUL_SHARE = 0.2
"""Text of two bytes a sign without a mark at its beginning has about half of its bytes 0."""


class TornError(HrlSarpError):
    """A packed file that cannot be unpacked; the text is the reason."""


def is_readable(path: Path) -> bool:
    """Say whether the ending of a file is one that this package reads."""
    return _inner_name(path) != path.name or path.suffix.lower() == ".zip"


def is_text(path: Path) -> bool:
    """Say whether a file holds text, packed or not, and no typed table."""
    return is_readable(path) and path.suffix.lower() != TABLE_ENDING


def stem_of(path: Path) -> str:
    """Return the name of a file without its endings: BRK.B.csv.gz is BRK.B."""
    return _inner_name(path)


def partition_of(path: Path) -> dict[str, str]:
    """Return what the folders above a file say of its rows: symbol=AAA/year=2019/part-0.parquet.

    Examples:
        >>> partition_of(Path("symbol=BRK%2EB/year=2019/part-0.parquet"))
        {'symbol': 'BRK.B', 'year': '2019'}
    """
    parts = [part.partition("=") for part in reversed(path.parts[:-1])]
    pairs = takewhile(lambda part: part[1], parts)
    return {key: unquote(value) for key, _, value in reversed(list(pairs))}


def find_table(folder: Path, stem: str) -> Path | None:
    """Return the table of that name in a folder, in any case and with any known ending, or None.

    Of several, the name in the same case comes first, then Parquet, then .csv.

    Raises:
        DataError: if it is there as a workbook, or in another form that is not read.
    """
    if not folder.is_dir():
        return None
    endings = (TABLE_ENDING, *TEXT_ENDINGS)
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and is_readable(path) and stem_of(path).lower() == stem.lower()
    ]

    def order(path: Path) -> tuple[bool, int]:
        ending = next((i for i, text in enumerate(endings) if path.name.endswith(text)), 9)
        return stem_of(path) != stem, ending

    if not found:
        _refuse_other_form(folder, stem)
    return min(found, key=order, default=None)


def _refuse_other_form(folder: Path, stem: str) -> None:
    """Refuse a table that would be passed over in silence for the form in which it is saved."""
    for path in sorted(folder.iterdir()):
        ending = path.suffix.lower()
        if ending in OTHER_FORMS and path.stem.lower() == stem.lower() and path.is_file():
            raise DataError(
                f"{path}: expected {stem} as {TABLE_ENDING}, {' or '.join(TEXT_ENDINGS)}, found "
                f"{ending}; save it as .csv, or rename it if it is another table"
            )


def read_text(path: Path) -> str:
    """Return the text of a file.

    Args:
        path: A file with one of `TEXT_ENDINGS`, packed or not.

    Returns:
        The text. UTF-8, UTF-16 and UTF-32 are told apart; other bytes are read as cp1252.

    Raises:
        MissingArtifactError: if the file does not exist.
        TornError: if a packed file is broken, a zip holds no file or several, or the content is
            no text.
    """
    if not path.is_file():
        raise MissingArtifactError(
            f"{path} does not exist; give a file or folder that does (--input, --macro, --symbols)"
        )
    content, name = path.read_bytes(), path.name
    while (ending := Path(name).suffix.lower()) in PACKED_ENDINGS:
        if ending == ".zip":
            name, content = _unzipped(content)
        else:
            name, content = name[: -len(ending)], _unpacked(content, ending)
    for sign, kind in SIGNATURES.items():
        if content.startswith(sign):
            raise TornError(f"{kind} inside; save it as plain .csv, or give it its own ending")
    return _decoded(content).rstrip(_FILLERS)


def lines_of(text: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1."""
    numbered = enumerate(_LINE_END.split(text), start=1)
    lines = [(number, line.strip(" \0")) for number, line in numbered if line.strip()]
    # Excel's note to itself about the separator
    return lines[1:] if lines and lines[0][1].lower().startswith("sep=") else lines


def cells_of(line: str, separator: str) -> list[str]:
    """Split a line into its cells, without quotes and blanks around them."""
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    read = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return [cell.strip(' "').removeprefix(_GUARD) for cell in read]


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file.

    Raises:
        MissingArtifactError: if it does not exist.
        TornError: if it is no readable Parquet file.
    """
    if not path.is_file():
        raise MissingArtifactError(
            f"{path} does not exist; give a file or folder that does (--input, --macro, --symbols)"
        )
    try:
        return pl.read_parquet(path)
    except UNREADABLE_TABLE as error:
        raise TornError(str(error).splitlines()[0]) from error


def read_rows(text: str, separator: str, headings: list[str], n_above: int) -> pl.DataFrame:
    """Read the rows below a header as columns of text; an empty cell is null.

    Args:
        text: The whole text of the file.
        separator: What stands between cells.
        headings: Names of the columns, each once.
        n_above: Lines above the first row, blank ones included.

    Returns:
        The columns, in the order of the file.

    Raises:
        TornError: if a row has more cells than the header.
    """
    rows = _LINE_END.split(text, maxsplit=n_above) if n_above else [text]
    body = rows[n_above] if len(rows) > n_above else ""
    schema = dict.fromkeys(headings, pl.String())
    if not body.strip():
        return pl.DataFrame(schema=schema)
    if "\n" not in body:  # the line ends of old Macs
        body = body.replace("\r", "\n")
    try:
        frame = pl.read_csv(
            io.BytesIO(f"{separator.join(headings)}\n{body}".encode()),
            separator=separator,
            infer_schema=False,
        )
    except (PolarsError, OSError) as error:
        raise TornError(_widest_line(text, separator, len(headings), n_above, error)) from error
    trimmed = frame.with_columns(pl.all().str.strip_chars(' "\r'))
    trimmed = trimmed.with_columns(pl.all().str.strip_prefix(_GUARD).replace("", None))
    return trimmed.filter(~pl.all_horizontal(pl.all().is_null()))


def _widest_line(text: str, separator: str, n_columns: int, n_above: int, error: Exception) -> str:
    """Name the first row that has more cells than the header, which is why a table is torn."""
    for number, line in lines_of(text):
        n_cells = len(cells_of(line, separator))
        if number > n_above and n_cells > n_columns:
            return f"{n_cells} cells in line {number}, expected {n_columns}"
    return str(error).splitlines()[0]


def _inner_name(path: Path) -> str:
    name = path.name
    while Path(name).suffix.lower() in PACKED_ENDINGS:
        name = name[: -len(Path(name).suffix)]
    for ending in (TABLE_ENDING, *TEXT_ENDINGS) if name == path.name else TEXT_ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name if path.suffix.lower() == ".zip" else path.name


def _unpacked(content: bytes, ending: str) -> bytes:
    kind, unpack = _PACKERS[ending]
    try:
        return unpack(content)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise TornError(f"no whole {kind} file: {error}") from error


def _unzipped(content: bytes) -> tuple[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [
                name
                for name in archive.namelist()
                if not name.endswith("/") and not name.startswith("__MACOSX")
            ]
            if len(names) != 1:
                raise TornError(f"a zip of {len(names)} files, expected one; unpack it")
            return names[0], archive.read(names[0])
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise TornError(f"no whole zip file: {error}") from error


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return content.decode("utf-32", errors="replace")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    head = content.rstrip(b"\0")[:4096]
    if head and head.count(0) > _NUL_SHARE * len(head):
        coding = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
        return content.decode(coding, errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.removeprefix(b"\xef\xbb\xbf").decode("cp1252", errors="replace")
