"""The trial log: which configurations were evaluated on which span, over all runs of a project.

A span that has been looked at often is no fresh evidence. The log is one file of JSON lines that
every run of a project appends to. A line is never changed, so that a number that was seen stays
counted. Deflated Sharpe ratios read their number of trials from it.
"""

import hashlib
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from filelock import lock_descriptor
from loguru import logger

from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import TrialLogError
from hrl_sarp.run.files import CHECKSUM, read_sealed, source_hash, unwritable, with_checksum

DEFAULT_TRIAL_LOG = Path("logs/trials.jsonl")
"""Where the log is, seen from the folder in which a command runs."""
TRIAL_LOG_VARIABLE = "HRL_SARP_TRIAL_LOG"
"""Environment variable that names another file, for example one that several checkouts share."""
Kind = Literal["backtest", "baseline", "selection", "study", "tuning"]
"""Who evaluated it. A baseline is a rule that was fixed before any span was seen."""
Key = tuple[str, str, str, str, str, str, int]
"""Configuration, market, span with first and last session, metric and seed of a trial."""


@dataclass(frozen=True)
class Span:
    """Sessions of a market with a name, from the first to the last that a trial saw.

    Examples:
        >>> year = Span("test", "2019-01-02", "2019-12-31")
        >>> year.overlaps(Span("a week", "2019-12-30", "2020-01-03"))
        True
    """

    name: str
    """"train", "validation", "test", or the name of a fold."""
    first: str
    """ISO date, as is the next one."""
    last: str

    @classmethod
    def of(cls, market: Market, name: str) -> "Span":
        """Name a span of a market's split.

        Args:
            market: with at least one session in the span.
            name: "train", "validation" or "test".

        Returns:
            The span with its dates.
        """
        rows: DayRange = getattr(market.split, name)
        return cls.of_rows(market, rows, name)

    @classmethod
    def of_rows(cls, market: Market, rows: DayRange, name: str) -> "Span":
        """Name any range of a market's rows.

        Args:
            market: with its dates.
            rows: at least one.
            name: of the span.

        Returns:
            The span with its dates.

        Raises:
            TrialLogError: for an empty range.
        """
        if not len(rows):
            raise TrialLogError(
                f"span '{name}' of market '{market.name}': expected at least one session, found "
                "none; choose a span that the data cover"
            )
        return cls(name, str(market.dates[rows.start]), str(market.dates[rows.stop - 1]))

    def overlaps(self, other: "Span") -> bool:
        """Say whether two spans share a day: what was seen of one was seen of the other.

        Args:
            other: a span of the same market.

        Returns:
            True if they do, whatever their names.
        """
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Trial:
    """One configuration that was evaluated on one span: what is written as a line.

    Examples:
        >>> span = Span("test", "2019-01-02", "2019-12-31")
        >>> Trial("tuning", "rate 0.1", "c0ffee", "da7a", span, "growth", 0.02, seed=3).key[0]
        'c0ffee'
    """

    kind: Kind
    name: str
    """For people: the policy, or the setting that was tried."""
    config: str
    """Hash of all that makes this configuration differ from others."""
    market: str
    """`prices_hash` of the market."""
    span: Span
    metric: str
    """What was computed, for example `appraisal_ratio`."""
    value: float | None
    """Of the metric; None if the trial failed or left no figure, as NaN is written."""
    seed: int
    time: str = ""
    """UTC, set when the trial is added; trials that are added together share it. ISO 8601."""
    code: str = ""
    """Version of the package and hash of its source, set when the trial is added."""
    command: str = ""
    """What the process was started with, set when the trial is added."""

    def bears_on(self, span: Span) -> bool:
        """Say whether what is evaluated on a span may have been chosen among trials like this one.

        Args:
            span: of the evaluation.

        Returns:
            True for every trial on one of its sessions, and for every trial of tuning: its values
            go into what is evaluated afterwards, on whatever sessions they were found.

        Examples:
            >>> tuned, test = Span("tuning", "2009", "2017"), Span("test", "2018", "2022")
            >>> Trial("tuning", "", "c0ffee", "da7a", tuned, "score", 0.1, seed=0).bears_on(test)
            True
            >>> Trial("study", "", "c0ffee", "da7a", tuned, "growth", 0.1, seed=0).bears_on(test)
            False
        """
        return self.kind == "tuning" or self.span.overlaps(span)

    @property
    def key(self) -> Key:
        """Trials that agree in it are one configuration, however often it was looked at."""
        span = self.span
        return (self.config, self.market, span.name, span.first, span.last, self.metric, self.seed)


class TrialLog:
    """An append-only file of trials that several processes may write to.

    Args:
        path: of the file; None takes the environment variable `HRL_SARP_TRIAL_LOG`, else
            `logs/trials.jsonl`. It is made, with its folder, by the first trial.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> span = Span("test", "2019-01-02", "2019-12-31")
        >>> trial = Trial("backtest", "mine", "c0ffee", "da7a", span, "growth", 0.02, seed=0)
        >>> with TemporaryDirectory() as folder:
        ...     log = TrialLog(Path(folder) / "trials.jsonl")
        ...     log.add(trial)
        ...     log.add(trial)  # seen again
        ...     log.count(span), log.openings(span)
        (1, 2)
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path or os.environ.get(TRIAL_LOG_VARIABLE) or DEFAULT_TRIAL_LOG)

    def add(self, *trials: Trial) -> None:
        """Append trials and flush them to the disk; they are one opening of their spans.

        Args:
            trials: evaluated just now. Time, code and command are set here.

        Raises:
            StorageError: if the file cannot be written.
        """
        if not trials:
            return
        stamp = {"time": datetime.now(UTC).isoformat(), "code": _code(), "command": _command()}
        content = "".join(_line(trial, stamp) for trial in trials).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
                _append(descriptor, content)
        except OSError as error:
            raise unwritable(self.path, error.strerror or str(error)) from error

    def trials(
        self, span: Span | None = None, market: str | None = None, metric: str | None = None
    ) -> list[Trial]:
        """Read the trials, oldest first.

        A line without its end, which a killed process leaves, is skipped with a warning.

        Args:
            span: only those that saw one of its days; None takes all.
            market: only those on the market of this `prices_hash`.
            metric: only those of this metric.

        Returns:
            Every line, repeated ones included; none where there is no file.

        Raises:
            TrialLogError: for a damaged line, or one of something else, naming it.
        """
        return [
            trial
            for trial in self._read()
            if (span is None or trial.span.overlaps(span))
            and (market is None or trial.market == market)
            and (metric is None or trial.metric == metric)
        ]

    def count(
        self, span: Span | None = None, market: str | None = None, metric: str | None = None
    ) -> int:
        """Count configurations. Those that agree in `Trial.key` count once.

        Args:
            span: as in `trials`, as are the others.
            market: hash of the market.
            metric: its name.

        Returns:
            The number of different configurations.
        """
        return len({trial.key for trial in self.trials(span, market, metric)})

    def openings(self, span: Span | None = None, market: str | None = None) -> int:
        """Count how often a span was looked at, repeated looks at one configuration included.

        Args:
            span: as in `trials`, as is the next one.
            market: hash of the market.

        Returns:
            The number of calls of `add` that hold a trial on the span.
        """
        return len({trial.time for trial in self.trials(span, market)})

    def _read(self) -> Iterator[Trial]:
        if not self.path.is_file():
            return
        with _locked(self.path, os.O_RDONLY) as descriptor:
            content = _read_all(descriptor)
        lines: dict[bytes, int] = {}  # a copy counts once: two looks have two times
        for number, line in enumerate(content.splitlines(), start=1):
            lines.setdefault(line, number)
        found = {line: self._line(line, number) for line, number in lines.items()}
        # earlier versions wrote no checksum, and one version writes it in all lines or in none
        sealing = {_code(), *(t.code for line, t in found.items() if t and _CHECKSUM_KEY in line)}
        was_sealed = False
        for line, trial in found.items():
            is_sealed = _CHECKSUM_KEY in line
            if trial is None:
                continue
            if not is_sealed and (was_sealed or trial.code in sealing):
                raise TrialLogError(
                    f"{self.path}, line {lines[line]}: expected a checksum as in other lines, "
                    "found none; restore the file, or move the line to another file"
                )
            was_sealed = is_sealed
            yield trial

    def _line(self, line: bytes, number: int) -> Trial | None:
        """Read a line; None for an empty one, and for one without its end."""
        where = f"{self.path}, line {number}"
        try:
            return _trial(read_sealed(line), where)
        except ValueError as error:
            if line.strip() and not _is_truncated(line, error):
                raise TrialLogError(
                    f"{where}: expected a trial as it was written, found a damaged line "
                    f"({error}); restore the file, or move the line to another file"
                ) from error
        if line.strip():
            logger.warning(f"{where}: truncated, so its trial is not counted")
        return None


_CHECKSUM_KEY = f'"{CHECKSUM}"'.encode()


def prices_hash(market: Market) -> str:
    """Hash the prices of a market: what trials on it have seen, whatever its split and features.

    Args:
        market: only its symbols, dates and returns are read.

    Returns:
        64 hex digits. One more session or stock makes another market.
    """
    digest = hashlib.sha256(repr(market.symbols).encode())
    for table in (market.dates, market.overnight_return, market.intraday_return):
        digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def distinct(trials: Iterable[Trial]) -> dict[Key, Trial]:
    """Keep one trial of each configuration: the last one.

    Args:
        trials: oldest first.

    Returns:
        Key of the configuration -> its trial.
    """
    return {trial.key: trial for trial in trials}


@contextmanager
def _locked(path: Path, flags: int) -> Iterator[int]:
    """Open a file and keep other processes out; the lock ends with the process, even killed."""
    descriptor = os.open(path, flags, 0o666)
    try:
        lock_descriptor(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, content: bytes) -> None:
    """Write behind all there is, on a line of its own even if the last line was truncated."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        content = content if os.read(descriptor, 1) == b"\n" else b"\n" + content
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _line(trial: Trial, stamp: dict[str, str]) -> str:
    value = trial.value if trial.value is not None and math.isfinite(trial.value) else None
    plain = with_checksum({**asdict(trial), **stamp, "value": value})
    return json.dumps(plain, allow_nan=False) + "\n"


def _is_truncated(line: bytes, error: ValueError) -> bool:
    """Say whether a line that is no JSON only lacks its end."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    is_open_text = error.msg.startswith("Unterminated string") and not line.endswith(b"}")
    return is_open_text or error.pos >= len(line)


def _trial(found: Any, where: str) -> Trial:
    """Make a trial of the values of a line; unknown values of a later version are passed over."""
    names = {field.name for field in fields(Trial)}
    try:
        known = {name: found[name] for name in names}
        span = Span(**found["span"])
    except (KeyError, TypeError) as error:
        raise TrialLogError(
            f"{where}: expected a trial with {', '.join(sorted(names))}, found a line without "
            f"({error}); move the line to another file, it was not written by this package"
        ) from error
    if known["kind"] not in get_args(Kind):
        raise TrialLogError(
            f"{where}: expected a kind of {', '.join(get_args(Kind))}, found '{known['kind']}'; "
            "correct the line"
        )
    return Trial(**{**known, "span": span})


def _code() -> str:
    try:
        number = version("hrl-sarp")
    except PackageNotFoundError:  # a checkout that is not installed
        number = "checkout"
    return f"{number} {source_hash('.')[:16]}"


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
