"""The bar of a run is one line that fits, and its time left follows from measured work."""

import io
import re
from collections.abc import Iterator

import pytest

from hrl_sarp.run import terminal
from hrl_sarp.run.terminal import (
    expect_seconds,
    found_finished,
    phase_progress,
    run_progress,
    stretch,
)

LONGEST = "phase 5 of 5, supervised macro after certification"


class Screen(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self.getvalue())
        return [line for line in re.split(r"[\r\n]", plain) if line]


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terminal.time, "monotonic", clock)
    return clock


@pytest.fixture
def bar() -> Iterator[None]:
    with run_progress():
        yield


def left() -> float | None:
    """Return the seconds that the bar on the screen shows."""
    return terminal._lines[-1].left()


def work(clock: Clock, seconds: float, n_counts: int = 10) -> list[float | None]:
    """Count a part of so many seconds to its end; return the times left on the way."""
    seen = []
    with phase_progress("part", n_counts, unit="steps") as bar:
        for count in range(n_counts):
            clock.now += seconds / n_counts
            bar.update(count + 1)
            seen.append(left())
    return seen


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize(
    ("seconds", "shown"), [(350_000.0, r"8\d:\d\d:\d\d"), (3_700.0, r"0:5\d:\d\d")]
)
def test_a_bar_of_long_words_and_large_numbers_fits_on_the_screen(
    width: int, seconds: float, shown: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", screen)
    with run_progress():
        expect_seconds(seconds)
        with stretch(0.0, 1.0, LONGEST), phase_progress("part", 10**6, unit="sessions") as counted:
            clock.now += seconds / 10
            counted.update(100_000)
            terminal._lines[-1].progress.refresh()
    lines = [line for line in screen.lines() if "%" in line]
    assert any(re.search(rf"10 % [\d.,]+ sessions/s {shown} left", line) for line in lines)
    assert max(map(len, lines)) <= width


def test_at_the_expected_pace_the_time_left_is_what_is_left(bar: None, clock: Clock) -> None:
    expect_seconds(400.0)
    assert left() == pytest.approx(400.0)
    with stretch(0.0, 0.25, "first"):
        seen = work(clock, 100.0)
    assert seen == pytest.approx([390.0 - 10 * count for count in range(10)])
    with stretch(0.25, 1.0, "second"):
        assert work(clock, 300.0)[-1] == 1.0  # never 0 while the block has not ended


@pytest.mark.parametrize("slowness", [0.3, 1.0, 3.0])
def test_the_pace_of_this_process_replaces_the_expected_one(
    bar: None, clock: Clock, slowness: float
) -> None:
    expect_seconds(1000.0)
    with stretch(0.0, 0.8):
        work(clock, 800.0 * slowness)
    assert left() == pytest.approx(200.0 * slowness, rel=0.15)


def test_a_phase_that_stops_early_does_not_multiply_the_time_left(bar: None, clock: Clock) -> None:
    # ten of fifty epochs end the phase after a fifth of its time: the other four are as expected
    expect_seconds(500.0)
    with stretch(0.0, 0.2), phase_progress("epochs", 50) as counted:
        for epoch in range(10):
            clock.now += 2.0
            counted.update(epoch + 1)
            assert 350.0 < (left() or 0.0) < 550.0
    assert left() == pytest.approx(400.0 * 50 / 130)  # 100 expected seconds took 20, 30 are trusted


def test_silence_never_raises_the_time_left_and_what_follows_stays(bar: None, clock: Clock) -> None:
    expect_seconds(100.0)
    with stretch(0.0, 0.6, "silent"):
        seen = []
        for _ in range(20):
            clock.now += 6.0
            seen.append(left() or 0.0)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(40.0)


def test_what_an_earlier_process_finished_tells_no_pace(bar: None, clock: Clock) -> None:
    expect_seconds(500.0)
    for number in range(3):  # finished already, although looking takes a while
        with stretch(number / 5, (number + 1) / 5):
            clock.now += 2.0
            found_finished()
    assert left() == pytest.approx(200.0, rel=0.25)
    with stretch(0.6, 0.8), phase_progress("half is there", 10, done=5) as counted:
        clock.now += 44.0
        counted.update(10)
    assert left() == pytest.approx(100.0, rel=0.01)


def test_without_an_expectation_the_pace_alone_counts(bar: None, clock: Clock) -> None:
    assert left() is None
    with phase_progress("rows", 100) as counted:
        clock.now += 30.0
        counted.update(25)
        assert left() == pytest.approx(90.0)
        counted.update(20)  # a later part that counts anew moves nothing back
        assert left() == pytest.approx(90.0)


def test_a_bar_counts_nothing_where_there_is_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with run_progress(), stretch(0.0, 1.0, "part"):
        expect_seconds(10.0)
        with phase_progress("part", 3) as counted:
            counted.update(2)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("called", "said"),
    [
        ("/some where/main.py", "run `python '/some where/main.py' train` first, see hrl-sarp."),
        ("main.py", "run `python main.py train` first, see hrl-sarp."),
        ("/usr/bin/hrl-sarp", "run `hrl-sarp train` first, see hrl-sarp."),
        ("", "run `hrl-sarp train` first, see hrl-sarp."),
    ],
)
def test_commands_are_named_as_this_one_was_called(
    called: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    terminal.say("run `hrl-sarp train` first, see hrl-sarp.")
    assert capsys.readouterr().out == f"{said}\n"
