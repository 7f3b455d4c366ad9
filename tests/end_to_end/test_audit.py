"""The command `audit` over a run: exit codes, files, and leaks of agents and their files."""

from pathlib import Path
from typing import Any

import pytest

from hrl_sarp.envs.observations import macro_inputs
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.files import read_json
from hrl_sarp.studies.audit import run
from tests.causality import audited
from tests.command_line import Command, assert_refused
from tests.end_to_end.tiny_site import Site

OWN = """
import numpy as np

def ahead(panel):
    value = np.full(panel.log_return.shape, np.nan)
    value[:-1] = panel.log_return[1:]
    return value
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try one other future and no baselines: they have tests of their own."""
    audited.remember_calendars(monkeypatch)
    monkeypatch.setattr(run, "FUTURES", run.FUTURES[:1])
    monkeypatch.setattr("hrl_sarp.studies.audit.behaviour.SESSIONS", 12)
    monkeypatch.setattr("hrl_sarp.studies.audit.behaviour.make_baselines", lambda *given: [])


def results(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "audit.json", "audit")
    return {check["check"]: check for check in found["checks"]}


def test_a_run_without_leaks_passes(site: Site, command: Command) -> None:
    code, out, err = command("audit", *site.folders)
    assert code == 0, err
    assert "No leak was found in 14 checks." in out
    found = results(site.log_dir / "audit")
    assert {check["result"] for check in found.values()} == {"ok", "not applicable"}
    assert "agents to" in found["vintages"]["where"][0]
    page = (site.log_dir / "audit" / "audit.html").read_text(encoding="utf-8")
    assert "No leak was found" in page


def test_data_are_audited_without_a_run(site: Site, command: Command) -> None:
    code, out, err = command("audit", "--data-dir", site.raw, "--experiment", "tiny")
    assert code == 0, err
    assert f"wrote {site.raw / 'audit' / 'audit.html'}" in out
    assert "agents to" not in results(site.raw / "audit")["vintages"]["where"][0]


def test_an_agent_that_reads_the_next_row_is_named(
    site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_tomorrow(tensors: Any, index: Any, *rest: Any) -> Any:
        day = (index["day"] + 1).clamp_max(tensors.n_days - 1)
        return macro_inputs(tensors, {**index, "day": day}, *rest)

    monkeypatch.setattr("hrl_sarp.agents.ppo.agent.macro_inputs", of_tomorrow)
    code, out, _ = command("audit", *site.folders)
    assert code == 1
    assert "1 of 14 checks found a leak." in out
    named = results(site.log_dir / "audit")["decisions"]["where"]
    assert [place.split(" (")[0] for place in named] == [
        "phases 1+2",
        "trained macro + rule micro",
    ]


def test_a_table_that_was_fitted_past_the_fold_is_named(site: Site, command: Command) -> None:
    (path,) = site.log_dir.rglob("sector_graph.pt")
    payload = load_payload(path)
    save_payload(path, {**payload, "fitted_rows": [0, len(payload["table"])]})
    code, _, _ = command("audit", *site.folders)
    assert code == 1
    found = results(site.log_dir / "audit")
    assert found["vintages"]["result"] == "leak"
    assert found["agents"]["result"] == "not applicable"
    assert "sector_graph.pt was fitted on rows to" in found["vintages"]["where"][0]


def test_a_function_that_reads_the_future_is_named(
    site: Site, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_the_audit.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = "mine_of_the_audit:ahead"
    site.experiment("leaky", {"market_profile": {"extra_stock_features": [name]}})
    code, out, _ = command("audit", "--data-dir", site.raw, "--experiment", "leaky")
    assert code == 1
    assert "1 of 14 checks found a leak." in out
    assert results(site.raw / "audit")["own features"]["where"][0].startswith(name)


def test_folders_without_data_or_agents_are_refused(
    site: Site, command: Command, tmp_path: Path
) -> None:
    assert_refused(command("audit", "--data-dir", tmp_path), "manifest.json", "collect-data")
    given = ["--data-dir", site.raw, "--log-dir", tmp_path / "none"]
    assert_refused(command("audit", *given), "train")
