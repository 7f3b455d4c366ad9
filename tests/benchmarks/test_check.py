import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import check


def busy(milliseconds: float) -> Callable[[], object]:
    def run() -> None:
        end = time.process_time() + milliseconds / 1000
        while time.process_time() < end:
            pass

    return run


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Three cases that take 2, 4 and 6 ms beside a calibration of 2 ms, and their baseline."""
    chosen = {name: busy(ms) for name, ms in (("a", 2), ("b", 4), ("c", 6))}
    monkeypatch.setattr(check, "calibration", lambda: busy(2))
    monkeypatch.setattr(check, "measured", lambda: chosen)
    monkeypatch.setattr(check.timing, "ROOT", tmp_path)
    monkeypatch.setattr(check, "BASELINE", tmp_path / "baseline.json")
    check.BASELINE.write_text(json.dumps({"figures": {"a": 1.0, "b": 2.0, "c": 3.0}}))
    return chosen


def test_nothing_is_named_where_all_is_as_fast_as_before(
    cases: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([]) == 0
    assert "slower" not in capsys.readouterr().out


def test_what_got_slower_is_named_with_its_factor(
    cases: dict[str, Callable[[], object]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cases["b"] = busy(8)
    assert check.main([]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "slower" in line]
    assert line.startswith("slower: b, ")
    assert float(line.split()[2]) == pytest.approx(2.0, rel=0.1)
    written = json.loads((tmp_path / "logs" / "benchmarks" / "check.json").read_text())
    assert list(written["slower"]) == ["b"]


def test_a_busy_moment_is_measured_again(
    cases: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def figures(chosen: dict[str, object], turns: int) -> dict[str, float]:
        asked.append(turns)
        everything = {"a": 1.0, "b": 2.0 if len(asked) > 1 else 9.0, "c": 3.0}
        return {name: everything[name] for name in chosen}

    monkeypatch.setattr(check, "figures", figures)
    assert check.main([]) == 0
    assert asked == [check.TURNS, check.MORE_TURNS]


def test_a_case_without_a_baseline_is_refused_until_it_is_stored(
    cases: dict[str, Callable[[], object]], capsys: pytest.CaptureFixture[str]
) -> None:
    cases["new"] = busy(1)
    assert check.main([]) == 1
    assert "no comparison for new" in capsys.readouterr().out
    assert check.main(["--write"]) == 0
    assert set(json.loads(check.BASELINE.read_text())["figures"]) == set(cases)
    assert check.main([]) == 0


def test_every_figure_of_the_stored_baseline_is_above_0() -> None:
    stored = json.loads(check.BASELINE.read_text(encoding="utf-8"))["figures"]
    assert min(stored.values()) > 0
