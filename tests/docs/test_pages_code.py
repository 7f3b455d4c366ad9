"""The Python that README shows runs as it stands."""

import re
from pathlib import Path

import pytest


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def test_the_code_of_the_readme_runs(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = python_blocks(repository / "README.md")
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 -- our own page
    assert "buy_what_fell" in capsys.readouterr().out
    assert (tmp_path / "logs" / "mine" / "report.html").is_file()


def test_the_policies_of_the_page_about_own_policies_run(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    function, _, envs, batches = python_blocks(repository / "docs" / "your_policy.md")
    exec(compile(function + envs + batches, "your_policy.md", "exec"), {})  # noqa: S102 -- our own page
    shown = capsys.readouterr().out
    assert "buy_what_fell" in shown
    assert "fallen most" in shown
