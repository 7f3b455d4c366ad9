"""The SQLite file of a paper account. Each session adds a row, in one transaction.

Each row holds the SHA-256 of the row before and of its own content, so that a changed file is
refused. Triggers refuse changes of rows through SQL. A row that was never finished is rolled back.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from hrl_sarp.daily.portfolio import Standing
from hrl_sarp.errors import DataError, MissingArtifactError, OverwriteError, StorageError
from hrl_sarp.run.files import atomic_path, sha256_plain, to_plain, unwritable

VERSION = 1
"""Of the tables, as `user_version` of the file."""
APPLICATION = 0x48524C53
"""`application_id` of the file, which tells it from other SQLite files: HRLS."""
INIT_COMMAND = "hrl-sarp paper init"
BUSY_SECONDS = 60.0
"""How long a command waits for another one that writes into the same file."""
PRIMARY = 0xFF
"""Bits of an error code of SQLite that name its kind."""
OF_THE_SYSTEM = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN),
)
"""Errors of SQLite that say nothing about the content of the file."""
NUMBERS = (
    *("net_return", "gross_return", "cost", "turnover", "wealth", "cash"),
    "benchmark_return",
)
"""Fields of `PaperDay` with columns of their own, so that any SQLite program can read them."""
SCHEMA = """
CREATE TABLE account (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    content TEXT NOT NULL,
    checksum TEXT NOT NULL
) STRICT;
CREATE TABLE days (
    number INTEGER PRIMARY KEY,
    day TEXT NOT NULL UNIQUE,
    net_return REAL NOT NULL,
    gross_return REAL NOT NULL,
    cost REAL NOT NULL,
    turnover REAL NOT NULL,
    wealth REAL NOT NULL,
    cash REAL NOT NULL,
    benchmark_return REAL NOT NULL,
    content TEXT NOT NULL,
    previous TEXT NOT NULL,
    checksum TEXT NOT NULL
) STRICT;
CREATE TRIGGER days_follow BEFORE INSERT ON days
WHEN EXISTS (SELECT 1 FROM days WHERE day >= NEW.day OR number >= NEW.number)
BEGIN SELECT RAISE(ABORT, 'a paper account is append-only'); END;
CREATE TRIGGER account_once BEFORE INSERT ON account
WHEN EXISTS (SELECT 1 FROM account)
BEGIN SELECT RAISE(ABORT, 'a paper account is append-only'); END;
"""
TRIGGER = """
CREATE TRIGGER {table}_{name} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'a paper account is append-only'); END;
"""


@dataclass(frozen=True)
class Terms:
    """What an account was opened with. None of it ever changes.

    Examples:
        >>> terms = Terms(("logs",), "ab12", "us", 1000.0, 1, 10, date(2024, 1, 2))
        >>> Terms.from_json(terms.to_json()) == terms
        True
    """

    log_dirs: tuple[str, ...]
    """Of the runs that decide, as absolute paths."""
    agents: str
    """Hash of their trained agents."""
    market: str
    """Name of the profile."""
    capital: float
    """Cash at the start, in currency."""
    lot_size: int | None
    """Orders are multiples of it; None holds fractions of a share."""
    halted_sessions: int
    """Sessions without a bar for which a stock counts as halted, and not as gone."""
    start: date
    """Session at whose close the account began."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes equal terms."""
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Terms":
        """Read `to_json`."""
        start = date.fromisoformat(found["start"])
        return cls(**{**found, "log_dirs": tuple(found["log_dirs"]), "start": start})


@dataclass(frozen=True)
class PaperDay:
    """One session of an account: what it earned, what is held at its close, what was decided then.

    Amounts are in currency, returns and costs are fractions.

    Examples:
        >>> [field for field in PaperDay.__dataclass_fields__][:3]
        ['day', 'net_return', 'gross_return']
    """

    day: date
    net_return: float
    gross_return: float
    cost: float
    """Share of the wealth just before the trade."""
    turnover: float
    """Half of the traded value over the wealth just before the trade."""
    wealth: float
    cash: float
    benchmark_return: float
    """Of the market's index."""
    standing: Standing
    """At the close, with the goal that was decided there."""
    holdings: Mapping[str, Mapping[str, float]]
    """Symbol -> `shares`, `close` (the last one) and `value`. Shares of an account that holds
    fractions are value / close."""
    fills: tuple[Mapping[str, Any], ...]
    """Trades at the open: `symbol`, `side`, `shares`, `price`, `value`."""
    events: tuple[Mapping[str, Any], ...]
    """What happened to holdings and orders: `kind`, `symbol`, `text`."""
    decision: Mapping[str, Any]
    """For the next open: `policy`, `targets`, `orders` and more; see `book.decide_after`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the checks of the session told; none in accounts of a version before."""
        return tuple(self.decision.get("warnings", ()))

    @property
    def stocks(self) -> frozenset[str]:
        """What is held at the close, or ordered for the next open."""
        orders = self.decision.get("orders", ())
        return frozenset({*self.holdings, *(order["symbol"] for order in orders)})

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal day."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        plain: dict[str, Any] = to_plain({**kept, "standing": self.standing.to_json()})
        # a column of numbers keeps neither whole numbers nor the sign of 0
        return {**plain, **{name: float(plain[name]) + 0.0 for name in NUMBERS}}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "PaperDay":
        """Read `to_json`."""
        return cls(
            **{
                **found,
                "day": date.fromisoformat(found["day"]),
                "standing": Standing.from_json(found["standing"]),
                "fills": tuple(found["fills"]),
                "events": tuple(found["events"]),
            }
        )


class PaperAccount:
    """An open account file. Use `create` or `open`.

    Args:
        path: of the file.
        connection: to it.

    Examples:
        >>> import tempfile
        >>> terms = Terms(("logs",), "ab12", "us", 1000.0, 1, 10, date(2024, 1, 2))
        >>> cash = Standing(date(2024, 1, 2), 1000.0, {})
        >>> day = PaperDay(cash.day, 0.0, 0.0, 0.0, 0.0, 1e3, 1e3, 0.0, cash, {}, (), (), {})
        >>> path = Path(tempfile.mkdtemp()) / "account.sqlite"
        >>> PaperAccount.create(path, terms, day)
        >>> with PaperAccount.open(path) as account:
        ...     account.last.wealth
        1000.0
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self.terms, self._days, self._checksum = self._read()

    @staticmethod
    def create(path: Path, terms: Terms, first: PaperDay) -> None:
        """Write a new file with the day on which the account begins; all of it or nothing.

        Args:
            path: must not exist.
            terms: of the account.
            first: the day of the start, with its decision.

        Raises:
            OverwriteError: if there is something at the path.
            StorageError: if the file cannot be written.
        """
        if path.exists():
            raise OverwriteError(
                f"{path} exists: a paper account is never overwritten; choose another --account, "
                "or move this file away"
            )
        with atomic_path(path) as temporary, _named(path), closing(_connect(temporary)) as file:
            file.executescript(
                f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
            )
            changes = [
                TRIGGER.format(table=table, name=f"no_{verb.lower()}", verb=verb)
                for table in ("account", "days")
                for verb in ("UPDATE", "DELETE")
            ]
            file.executescript("".join([SCHEMA, *changes]))
            content = terms.to_json()
            checksum = sha256_plain(content)
            file.execute("BEGIN IMMEDIATE")
            file.execute("INSERT INTO account VALUES (1, ?, ?)", (json.dumps(content), checksum))
            _insert(file, 0, first, checksum)
            file.execute("COMMIT")

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["PaperAccount"]:
        """Open an account and check every row of it; the block's end closes it.

        Args:
            path: of the file.

        Raises:
            MissingArtifactError: if there is no file.
            DataError: if it is no paper account, is damaged, or was changed by another program.
            StorageError: if another command keeps writing into it.
        """
        if not path.is_file():
            raise MissingArtifactError(f"{path} does not exist; run `{INIT_COMMAND}` to open it")
        with _named(path):
            connection = _connect(path)
        with closing(connection):
            with _named(path):
                account = cls(path, connection)
            yield account

    @property
    def days(self) -> tuple[PaperDay, ...]:
        """All days, the start first."""
        return tuple(self._days)

    @property
    def last(self) -> PaperDay:
        """The day up to which the account is booked."""
        return self._days[-1]

    def append(self, day: PaperDay) -> None:
        """Add a session in one transaction.

        Args:
            day: the next one.

        Raises:
            StorageError: if another command has added a session since this one read the file, or
                nothing can be written.
        """
        with _named(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                (checksum,) = self._connection.execute(
                    "SELECT checksum FROM days ORDER BY number DESC LIMIT 1"
                ).fetchone()
                self._require_unchanged(checksum)
                self._checksum = _insert(self._connection, len(self._days), day, checksum)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._days.append(day)

    def _require_unchanged(self, checksum: str) -> None:
        if checksum != self._checksum:
            raise StorageError(
                f"{self.path}: another command has booked a session meanwhile; nothing is lost: "
                "run this one again"
            )

    def _read(self) -> tuple[Terms, list[PaperDay], str]:
        """Read every row and check the chain of checksums."""
        read = self._connection.execute
        found = tuple(read(f"PRAGMA {n}").fetchone()[0] for n in ("application_id", "user_version"))
        if found != (APPLICATION, VERSION):
            raise DataError(
                f"{self.path}: expected a paper account of version {VERSION}, found "
                f"{'version ' + str(found[1]) if found[0] == APPLICATION else 'another file'}; "
                f"give the file that `{INIT_COMMAND}` wrote"
            )
        try:
            return self._chained(
                read("SELECT content, checksum FROM account").fetchall(),
                read("SELECT * FROM days ORDER BY number").fetchall(),
            )
        except (ValueError, TypeError, LookupError) as error:
            raise self._changed(f"it cannot be read ({error})") from error

    def _chained(self, accounts: list[Any], rows: list[Any]) -> tuple[Terms, list[PaperDay], str]:
        """Follow the chain of checksums; damaged values raise what Python says of them."""
        if len(accounts) != 1 or not rows:
            raise self._changed("it has no first row")
        ((text, checksum),) = accounts
        terms = json.loads(text)
        if sha256_plain(terms) != checksum:
            raise self._changed("its terms are not those that were written")
        days = []
        for number, row in enumerate(rows):
            named = dict(zip(COLUMNS, row, strict=True))
            values = {name: named[name] for name in ("day", *NUMBERS)}
            content = {**json.loads(named["content"]), **values}
            expected = _checksum(number, content, checksum)
            linked = (named["number"], named["previous"], named["checksum"])
            if linked != (number, checksum, expected):
                raise self._changed(f"the row of {named['day']} is not what was written")
            checksum = expected
            days.append(PaperDay.from_json(content))
        return Terms.from_json(terms), days, checksum

    def _changed(self, what: str) -> DataError:
        return DataError(
            f"{self.path}: {what}: the file was damaged, or changed by another program; restore it "
            "from a copy"
        )


COLUMNS = ("number", "day", *NUMBERS, "content", "previous", "checksum")


def _insert(connection: sqlite3.Connection, number: int, day: PaperDay, previous: str) -> str:
    """Add a row and return its checksum."""
    whole = day.to_json()
    checksum = _checksum(number, whole, previous)
    content = {key: value for key, value in whole.items() if key not in ("day", *NUMBERS)}
    text = json.dumps(content, allow_nan=False)
    values = (number, *(whole[name] for name in ("day", *NUMBERS)), text, previous, checksum)
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO days VALUES ({marks})", values)  # noqa: S608 -- marks alone
    return checksum


def _checksum(number: int, content: Mapping[str, Any], previous: str) -> str:
    return sha256_plain({"number": number, "previous": previous, "content": dict(content)})


def _connect(path: Path) -> sqlite3.Connection:
    """Connect so that a commit is on the disk when it returns; the file must exist."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
    # a journal that is deleted leaves one file, which can be copied at any time between commands
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in what SQLite complains about."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # damage may lie in SQLite's own message
        if getattr(error, "sqlite_errorcode", 0) & PRIMARY in OF_THE_SYSTEM:
            raise unwritable(path, str(error)) from error
        raise DataError(
            f"{path}: expected a paper account, found a file that SQLite cannot read or may not "
            f"change ({error}); restore it from a copy"
        ) from error
