"""The file of a paper account: append-only, whole after any damage, never overwritten."""

import shutil
import sqlite3
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms
from hrl_sarp.daily.paper.step import line_of
from hrl_sarp.daily.portfolio import Memory, Standing
from hrl_sarp.errors import DataError, MissingArtifactError, OverwriteError, StorageError

START = date(2024, 1, 2)
TERMS = Terms(("/runs/a", "/runs/b"), "c0ffee", "us", 1000.0, None, 10, START)


def paper_day(number: int) -> PaperDay:
    """Make up a day, another one for each number."""
    rng, day = np.random.default_rng(number), START + timedelta(days=number)
    wealth, weight = 1000.0 + float(rng.normal()), float(rng.uniform(0.1, 0.9))
    memory = Memory(goal=(0.25, 0.75, 0.1), goal_day=day, peak=1.5, traded={"A": weight})
    return PaperDay(
        day=day,
        net_return=float(rng.normal()),
        gross_return=0.0,
        cost=-0.0,
        turnover=1.0,
        wealth=wealth,
        cash=wealth * (1 - weight),
        benchmark_return=0.01,
        standing=Standing(day, wealth, {"A": weight}, memory),
        holdings={"A": {"shares": 3.0, "close": wealth * weight / 3, "value": wealth * weight}},
        fills=({"symbol": "A", "side": "buy", "shares": 3.0, "price": 1.0, "value": 3.0},),
        events=({"kind": "split", "symbol": "A", "text": "2 for 1 \N{EN DASH} twice"},),
        decision={"policy": "mine", "targets": {"A": weight}, "orders": []},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An account of four days."""
    there = tmp_path / "paper.sqlite"
    PaperAccount.create(there, TERMS, paper_day(0))
    with PaperAccount.open(there) as account:
        for number in range(1, 4):
            account.append(paper_day(number))
    return there


def test_what_was_written_is_read_bit_for_bit(path: Path) -> None:
    with PaperAccount.open(path) as account:
        assert account.terms == TERMS
        assert account.days == tuple(paper_day(number) for number in range(4))
        assert account.last.day == START + timedelta(days=3)


@pytest.mark.parametrize(
    ("n_fills", "n_events", "told"),
    [(0, 0, "0 fills"), (1, 0, "1 fill"), (2, 1, "2 fills, 1 event"), (1, 3, "1 fill, 3 events")],
)
def test_a_line_counts_in_words_that_fit(n_fills: int, n_events: int, told: str) -> None:
    day = paper_day(0)
    day = replace(day, fills=day.fills * n_fills, events=day.events * n_events)
    assert line_of(day).endswith(f"{day.wealth:,.2f}, {told}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE days SET wealth = 1e9 WHERE number = 2",
        "UPDATE account SET content = '{}'",
        "DELETE FROM days WHERE number = 3",
        "DELETE FROM account",
        "INSERT OR REPLACE INTO days SELECT * FROM days WHERE number = 2",
        "INSERT OR REPLACE INTO account VALUES (1, '{}', '')",
        "INSERT INTO days SELECT 9, '2024-01-03', 0, 0, 0, 0, 0, 0, 0, '{}', '', ''",
    ],
)
def test_no_statement_changes_a_row(statement: str, path: Path) -> None:
    with (
        sqlite3.connect(path) as connection,
        pytest.raises(sqlite3.Error, match=r"append-only|UNIQUE"),
    ):
        connection.execute(statement)
    connection.close()
    with PaperAccount.open(path) as account:
        assert account.days == tuple(paper_day(number) for number in range(4))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE days SET wealth = wealth + 1e-9 WHERE number = 1",
        "UPDATE days SET content = replace(content, 'mine', 'ours') WHERE number = 0",
        "UPDATE days SET day = '2023-12-31' WHERE number = 0",
        "DELETE FROM days WHERE number = 1",
        "DELETE FROM days",
        "UPDATE account SET content = replace(content, '1000.0', '2000.0')",
        "UPDATE days SET number = number + 1 WHERE number = 3",
        "UPDATE days SET content = 'no JSON' WHERE number = 2",
        "UPDATE days SET checksum = upper(checksum) WHERE number = 3",
    ],
)
def test_an_account_that_another_program_changed_is_refused(statement: str, path: Path) -> None:
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        connection.execute(f"DROP TRIGGER {name}")
    assert connection.execute(statement).rowcount > 0
    connection.commit()
    connection.close()
    with (
        pytest.raises(DataError, match=r"paper\.sqlite: .*(restore it from a copy)"),
        PaperAccount.open(path),
    ):
        pass


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OverwriteError, match=r"notes\.txt exists"):
        PaperAccount.create(path, TERMS, paper_day(0))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0 but no more"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    path.write_bytes(content)
    with (
        pytest.raises(DataError, match=r"other\.sqlite: expected a paper account"),
        PaperAccount.open(path),
    ):
        pass
    assert path.read_bytes() == content


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE days (number INTEGER)")
    connection.close()
    with pytest.raises(DataError, match="another file"), PaperAccount.open(path):
        pass


def test_a_missing_file_names_the_command_that_opens_one(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingArtifactError, match="paper init"),
        PaperAccount.open(tmp_path / "none.sqlite"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_two_commands_at_once_only_one_books_a_session(path: Path) -> None:
    with PaperAccount.open(path) as first, PaperAccount.open(path) as second:
        first.append(paper_day(4))
        with pytest.raises(StorageError, match="another command has booked"):
            second.append(paper_day(4))
    with PaperAccount.open(path) as account:
        assert [day.day for day in account.days[-2:]] == [paper_day(3).day, paper_day(4).day]


def test_a_session_that_fails_leaves_the_account_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    with PaperAccount.open(path) as account, pytest.raises(DataError, match="append-only"):
        account.append(paper_day(2))  # an earlier day
    assert path.read_bytes() == before


def test_the_file_is_one_file_that_can_be_copied(path: Path, tmp_path: Path) -> None:
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    copy = tmp_path / "copy.sqlite"
    shutil.copyfile(path, copy)
    with PaperAccount.open(copy) as account:
        assert len(account.days) == 4
