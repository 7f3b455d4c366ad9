"""The Python that README shows runs as it stands."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hrl_sarp.config import loading
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.envs import PortfolioVecEnv, observation_table
from hrl_sarp.run.files import read_json


@pytest.fixture
def few_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backtests compare with 1/N alone; that of README keeps every baseline."""
    load = loading.load_config
    few = {"baselines": ["equal_weight"], "random_portfolios": 2, "bootstrap_samples": 50}

    def load_few(**options: Any) -> RunConfig:
        config = load(**options)
        evaluation = config.evaluation.model_copy(update=few)
        return config.model_copy(update={"evaluation": evaluation})

    monkeypatch.setattr(loading, "load_config", load_few)


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
    (code,) = python_blocks(repository / "docs" / "reading_the_report.md")
    exec(compile(code.replace("logs/backtest", "logs/mine"), "reading", "exec"), {})  # noqa: S102 -- our own page
    assert "┆ sector" in capsys.readouterr().out


@pytest.mark.usefixtures("few_baselines")
def test_the_policies_of_the_page_about_own_policies_run(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    function, reading, _, batches = python_blocks(repository / "docs" / "your_policy.md")
    exec(compile(function + reading + batches, "your_policy.md", "exec"), {})  # noqa: S102 -- our own page
    shown = capsys.readouterr().out
    assert "buy_what_fell" in shown
    assert "fallen most" in shown
    assert (tmp_path / "logs" / "mine" / "wealth.png").is_file()


@pytest.mark.usefixtures("few_baselines")
def test_the_code_of_the_page_about_own_agents_runs(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    training, naming = python_blocks(repository / "docs" / "your_agent.md")
    assert "learn(100_000)" in training
    quick = training.replace("100_000", "64").replace("n_envs=64", "n_envs=4").replace("256", "64")
    exec(compile(quick + naming, "your_agent.md", "exec"), {})  # noqa: S102 -- our own page
    shown = capsys.readouterr().out
    assert "stock PPO" in shown
    assert shown.endswith("\ncash\n")


def test_the_forecaster_of_the_page_about_forecasts_is_measured(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    page = repository / "docs" / "reading_forecasts.md"
    (code,) = python_blocks(page)
    quick = code.replace("days[300]", "days[450]")
    exec(compile(quick, "reading_forecasts.md", "exec"), {})  # noqa: S102 -- our own page
    assert capsys.readouterr().out.startswith("half way back does not beat repeating the last")
    found = read_json(tmp_path / "logs" / "forecasts" / "evaluation.json", "evaluate")
    (models,) = found["aggregate"].values()
    shown = {*re.findall(r"`(\w+)`", page.read_text(encoding="utf-8"))}
    counts = {"forecasts", "series", "origins", "contaminated"}
    names = {re.sub(r"_(80|90)$", "_50", name) for name in models["half way back"]}
    assert names - counts <= shown


def blocks_of_the_numbers() -> dict[str, str]:
    """What the page about own agents says between its markers, made from the envs."""
    names = {
        level: observation_table(PortfolioVecEnv.of(level, n_envs=1))
        for level in ("macro", "micro")
    }
    lines = ["| level | array | part | numbers | first name |", "|---|---|---|---|---|"]
    for level, table in names.items():
        parts = table.group_by("array", "part", maintain_order=True).agg(
            pl.col("position").min().alias("first"),
            pl.col("position").max().alias("last"),
            pl.col("name").first(),
        )
        lines += [
            f"| {level} | {array} | {part} | {first}{f' to {last}' * (last > first)} | {name} |"
            for array, part, first, last, name in parts.iter_rows()
        ]

    def of_first(level: str, part: str) -> str:
        found = names[level].filter(array="observation", part=part)["name"]
        owner = found[0].split(": ")[0]
        return ", ".join(f"`{n.split(': ')[1]}`" for n in found if n.startswith(f"{owner}: "))

    whole = names["macro"].filter(array="observation")
    context = whole.filter(~pl.col("part").is_in(["sectors", "classical prior"]))["name"]
    days = names["micro"].filter(array="observation", part="portfolio")["name"]
    return {
        "context": ", ".join(f"`{name}`" for name in context),
        "days": ", ".join(f"`{name}`" for name in days),
        "numbers": "\n".join(lines),
        "columns": of_first("macro", "sectors"),
        "features": of_first("micro", "stock features"),
    }


def test_the_page_about_own_agents_lists_the_numbers_of_the_envs(repository: Path) -> None:
    text = (repository / "docs" / "your_agent.md").read_text(encoding="utf-8")
    for marker, block in blocks_of_the_numbers().items():
        shown = re.search(rf"<!-- {marker} -->\n\n(.*?)\n\n<!-- /{marker} -->", text, re.DOTALL)
        assert shown is not None
        assert shown[1] == block, f"put between the markers '{marker}':\n{block}"
