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


def test_the_page_about_own_policies_begins_with_the_same_code(repository: Path) -> None:
    (code,) = python_blocks(repository / "README.md")
    first = python_blocks(repository / "docs" / "your_policy.md")[0]
    defined = re.compile(r"def buy_what_fell.*?\n\n", re.DOTALL)
    bodies = [re.sub(r'""".*?"""', "", defined.findall(text)[0]) for text in (code, first)]
    assert bodies[0] == bodies[1]
