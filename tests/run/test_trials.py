"""The trial log: counting, several writers, kills, and lines that are no trials."""

import json
import math
import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.contracts import DayRange, Split
from hrl_sarp.errors import StorageError, TrialLogError
from hrl_sarp.run.files import with_checksum, without_checksum
from hrl_sarp.run.trials import Span, Trial, TrialLog, distinct, prices_hash
from tests import factories

TEST = Span("test", "2019-01-02", "2019-12-31")
TRIAL = Trial("tuning", "rate 0.1", "c0ffee", "da7a", TEST, "growth", 0.02, seed=3)


def in_child(act: Callable[[], None]) -> int:
    """Run in a process of its own; return its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside idle threads
        child = os.fork()
    if child:
        return child
    try:
        act()
    finally:
        os._exit(0)


def numbered(i: int) -> Trial:
    return replace(TRIAL, config=str(i))


def test_what_is_added_is_read_again_with_time_code_and_command(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "deep" / "trials.jsonl")
    assert log.trials() == []
    log.add(TRIAL, replace(TRIAL, value=None))
    first, second = log.trials()
    stamp = {"time": first.time, "code": first.code, "command": first.command}
    assert all(stamp.values())
    assert (first, second) == (replace(TRIAL, **stamp), replace(TRIAL, value=None, **stamp))


@pytest.mark.parametrize(
    "changed",
    [
        {"config": "other"},
        {"market": "other"},
        {"span": replace(TEST, name="other")},
        {"span": replace(TEST, last="2019-12-30")},
        {"metric": "other"},
        {"seed": 4},
    ],
)
def test_another_configuration_counts_and_the_same_one_counts_once(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(TRIAL)
    log.add(replace(TRIAL, value=0.5, name="the same by another name"))
    assert (log.count(), log.openings()) == (1, 2)
    log.add(replace(TRIAL, **changed))  # type: ignore[arg-type]  # one field of each type
    assert (log.count(), log.openings()) == (2, 3)
    assert distinct(log.trials())[TRIAL.key].value == 0.5


def test_trials_of_other_spans_markets_and_metrics_are_left_out(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    before, touching = (
        Span("early", "2018-01-02", "2018-12-31"),
        Span("b", "2018-07-02", "2019-01-02"),
    )
    log.add(TRIAL, replace(TRIAL, span=before), replace(TRIAL, span=touching))
    log.add(replace(TRIAL, market="other"), replace(TRIAL, metric="other"))
    assert log.count(TEST) == 4  # a span that shares its first day has seen a part of it
    assert log.count(TEST, "da7a") == 3
    assert log.count(TEST, "da7a", "growth") == 2
    assert log.count(market="other") == 1
    assert log.openings(before) == 1


days = st.dates().map(str)


@given(days, days, days, days)
def test_spans_overlap_if_they_share_a_day(a: str, b: str, c: str, d: str) -> None:
    one, other = Span("one", *sorted((a, b))), Span("other", *sorted((c, d)))
    assert one.overlaps(other) == other.overlaps(one)
    assert one.overlaps(other) == (max(one.first, other.first) <= min(one.last, other.last))


def test_several_processes_append_without_losing_or_mixing_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(numbered(-1))  # the hash of the code is made once, before the race
    write = os.write  # a full pipe or disk takes a part of what it is given
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:99]))

    def add_fifty(start: int) -> None:
        for i in range(start, start + 50):
            log.add(numbered(i), numbered(1000 + i))

    children = [in_child(lambda start=start: add_fifty(start)) for start in (0, 50, 100)]
    for child in children:
        os.waitpid(child, 0)
    lines = log.path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 301
    assert log.count() == 301
    # trials that were added together stand together
    configs = [int(json.loads(line)["config"]) for line in lines[1:]]
    assert all(b - a == 1000 for a, b in zip(configs[::2], configs[1::2], strict=True))


def test_a_kill_within_a_line_loses_that_trial_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(numbered(0))
    whole = log.path.read_bytes()
    write = os.write

    def die_half_way(descriptor: int, content: bytes) -> int:
        write(descriptor, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def killed() -> None:
        monkeypatch.setattr(os, "write", die_half_way)
        log.add(numbered(1))

    _, status = os.waitpid(in_child(killed), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    damaged = log.path.read_bytes()
    assert damaged.startswith(whole)
    assert not damaged.endswith(b"\n")
    assert log.count() == 1
    log.add(numbered(2))
    assert log.path.read_bytes().startswith(damaged)  # nothing is written anew
    assert [trial.config for trial in log.trials()] == ["0", "2"]


@settings(max_examples=30)
@given(st.one_of(st.none(), st.floats()), st.text(), st.integers(-(2**31), 2**31))
def test_every_value_and_name_survives(value: float | None, name: str, seed: int) -> None:
    log = TrialLog(Path(os.environ["HRL_SARP_TRIAL_LOG"]))
    log.add(replace(TRIAL, value=value, name=name, seed=seed))
    last = log.trials()[-1]
    known = value if value is not None and math.isfinite(value) else None
    assert (last.value, last.name, last.seed) == (known, name, seed)


@pytest.mark.parametrize(
    "line",
    ['{"kind": "tuning"}', "3", '["a"]', '{"span": 3}', "null"],
)
def test_a_line_that_is_no_trial_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(TRIAL)
    with log.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(TrialLogError, match=r"trials\.jsonl, line 2: expected a trial with"):
        log.count()


def test_a_line_that_lost_its_checksum_is_refused_and_a_copied_line_counts_once(
    tmp_path: Path,
) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(numbered(0))
    log.add(TRIAL)
    first, second = log.path.read_text().splitlines()
    log.path.write_text("\n".join([first, second, first, ""]))
    assert [trial.name for trial in log.trials()] == [numbered(0).name, TRIAL.name]
    cut = second[: second.index(', "checksum"')] + "}"
    log.path.write_text("\n".join([first, cut, ""]))
    with pytest.raises(TrialLogError, match=r"trials\.jsonl, line 2: expected a checksum"):
        log.count()
    log.path.write_text("\n".join([cut, first, ""]))
    with pytest.raises(TrialLogError, match=r"trials\.jsonl, line 1: expected a checksum"):
        log.count()
    earlier = {**json.loads(cut), "code": "0.0.9 of another day"}  # it wrote none
    log.path.write_text("\n".join([json.dumps(earlier), first, ""]))
    assert log.count() == 2


@pytest.mark.parametrize("at", ['"name": ', '"config": ', '"span": {', '"time": ', '"checksum": '])
def test_a_line_of_two_joined_ones_is_refused(tmp_path: Path, at: str) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(numbered(0))
    log.add(TRIAL)
    first, second = log.path.read_text().splitlines()
    joined = second[: second.index(at)] + first[first.index('"kind": ') :]
    log.path.write_text("\n".join([first, joined, ""]))
    with pytest.raises(TrialLogError, match=r"trials\.jsonl, line 2: .*(stands twice|damaged)"):
        log.count()


@pytest.mark.parametrize(
    ("found", "changed"),
    [("0.02", "0.03"), ('"seed"', '"sxed"'), ("c0ffee", "c0\\uffee"), ('"span": {', '"span": ')],
)
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, found: str, changed: str) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(numbered(0))
    log.add(TRIAL)
    first, second = log.path.read_text().splitlines()
    assert found in second
    log.path.write_text(f"{first}\n{second.replace(found, changed)}\n")
    with pytest.raises(TrialLogError, match=r"trials\.jsonl, line 2: .*found a damaged line"):
        log.count()


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(TRIAL)
    line = with_checksum({**without_checksum(json.loads(log.path.read_text())), "kind": "guess"})
    log.path.write_text(json.dumps(line) + "\n")
    with pytest.raises(TrialLogError, match=r"line 1: expected a kind of .*study.*, found 'guess'"):
        log.trials()


def test_values_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.add(TRIAL)
    line = with_checksum({**without_checksum(json.loads(log.path.read_text())), "margin": 0.5})
    log.path.write_text(json.dumps(line) + "\n")
    assert log.count() == 1


def test_a_log_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match=r"logs/trials\.jsonl"):
        TrialLog(tmp_path / "logs" / "trials.jsonl").add(TRIAL)


def test_the_file_is_the_given_one_then_that_of_the_environment_then_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HRL_SARP_TRIAL_LOG", "shared.jsonl")
    assert TrialLog("mine.jsonl").path == Path("mine.jsonl")
    assert TrialLog().path == Path("shared.jsonl")
    monkeypatch.delenv("HRL_SARP_TRIAL_LOG")
    assert TrialLog().path == Path("logs/trials.jsonl")


def test_a_span_has_the_dates_of_its_first_and_last_session() -> None:
    market = factories.random_market(np.random.default_rng(0), n_days=30)
    market = replace(market, split=Split(DayRange(0, 9), DayRange(10, 20), DayRange(20, 20)))
    expected = Span("validation", str(market.dates[10]), str(market.dates[19]))
    assert Span.of(market, "validation") == expected
    with pytest.raises(TrialLogError, match=r"span 'test'.*found none"):
        Span.of(market, "test")


def test_markets_are_told_apart_by_prices_not_by_their_split_or_features() -> None:
    market = factories.random_market(np.random.default_rng(0), n_days=30)
    other_split = Split(DayRange(0, 5), DayRange(6, 8), DayRange(9, 30))
    alike = replace(market, split=other_split, macro_features=market.macro_features + 1)
    assert prices_hash(alike) == prices_hash(market)
    moved = market.intraday_return.copy()
    moved[7, 1] += 1e-4
    assert prices_hash(replace(market, intraday_return=moved)) != prices_hash(market)
    renamed = (*market.symbols[:-1], "OTHER")
    assert prices_hash(replace(market, symbols=renamed)) != prices_hash(market)
