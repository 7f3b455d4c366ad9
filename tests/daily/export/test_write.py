"""What `hrl-sarp export` writes, for whom, and when it refuses."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from hrl_sarp.daily.export import export_agents, require_room
from hrl_sarp.daily.export import write as writing
from hrl_sarp.daily.export.decisions import DailyDecision, WeeklyDecision, macro_agents
from hrl_sarp.daily.export.graphs import Session
from hrl_sarp.daily.export.sectors import SectorEmbeddings
from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.evaluation.policies import LoadedAgents
from hrl_sarp.graph import SectorGNN, adjacency, embed_all, node_names, raw_nodes
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.sector_table import read_graph
from hrl_sarp.run.files import read_json, sha256_file, write_json
from hrl_sarp.run.phases import CERTIFICATION, SEEDS
from hrl_sarp.run.session import StopFlag
from hrl_sarp.training import make_context, run_phase
from hrl_sarp.training.certify import certify, read_certification
from hrl_sarp.training.phase import PhaseContext, with_sector_table
from hrl_sarp.training.seeds import members
from tests.command_line import Command, assert_refused
from tests.raw_data import random_raw, small_config
from tests.tiny_runs import TINY, changed, shaken, unchecked

N_DAYS = 700
GRANTED = {"macro": 0.7, "micro": 0.4}
NAMES = ["agents.json", "daily.onnx", "example.npz", "sectors.onnx", "weekly.onnx"]
WITHOUT = "import sys, runpy; sys.modules.update(torch=None, hrl_sarp=None, polars=None);"


class Site:
    """A run of two seeds on collected data, certified, and its export."""

    def __init__(self, root: Path) -> None:
        self.raw, self.log_dir, self.folder = root / "raw", root / "logs", root / "export"
        write_raw(random_raw(np.random.default_rng(4), N_DAYS), self.raw)
        config = changed(small_config("us", N_DAYS), TINY)
        market = assembled_market(self.raw, config)
        self.context: PhaseContext = make_context(
            config, market, self.log_dir, torch.device("cpu"), StopFlag(), resume=False
        )
        write_json(self.log_dir / SEEDS, {"seeds": [4, 1]})
        for member in members(self.context):
            with unchecked():
                for number in (1, 2):
                    run_phase(number, member)
            # a run this small learns nothing, and both agents have to count here
            seen = with_sector_table(member)
            shaken(seen.load_macro(1), member.config.seed).save(member.best(1))
            shaken(seen.load_micro(2), member.config.seed).save(member.best(2))
        with unchecked():
            certify(self.context)
        path = self.log_dir / CERTIFICATION
        found = read_json(path, "train")
        for level, share in GRANTED.items():
            found[level]["evidence"] = [
                {"candidate": 0.0, "mean_pct": 0.0, "lower_pct": 0.0},
                {"candidate": share, "mean_pct": 1.0, "lower_pct": 0.5},
            ]
        write_json(path, found)
        self.agents = LoadedAgents.of(self.context)
        self.made = export_agents([self.agents], self.folder)

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "agents.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("export"))


@pytest.fixture
def converted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graphs of the site for those of another export of the same run: they are equal."""
    names = {SectorEmbeddings: "sectors", WeeklyDecision: "weekly", DailyDecision: "daily"}
    files = {kind: site.folder / writing.GRAPHS[name] for kind, name in names.items()}
    monkeypatch.setattr(writing, "to_onnx", lambda module, _: files[type(module)].read_bytes())


def test_the_folder_holds_what_its_description_says(site: Site) -> None:
    facts = site.facts
    assert sorted(path.name for path in site.folder.iterdir()) == NAMES
    for found in facts["files"].values():
        assert sha256_file(site.folder / found["file"]) == found["sha256"]
    assert site.made.difference < writing.TOLERANCE
    granted = read_certification(site.log_dir)
    assert granted is not None
    for decision, share in (("weekly", granted.macro.granted), ("daily", granted.micro.granted)):
        parts = facts["pair"][decision]
        assert [part["who"] for part in parts] == ["classical portfolio", "network", "network"]
        assert [part["share"] for part in parts] == pytest.approx([1 - share, share / 2, share / 2])
    assert facts["runs"][0]["seeds"] == [4, 1]
    assert facts["runs"][0]["granted"] == {
        "weekly": GRANTED["macro"],
        "daily": GRANTED["micro"],
    }
    assert facts["spans"]["train"][1] in facts["scaling"]["risk"]


def test_every_number_of_every_input_has_a_name_a_unit_and_a_scaling(site: Site) -> None:
    facts, example = site.facts, np.load(site.folder / "example.npz")
    market = site.context.market
    for decision in ("sectors", "weekly", "daily"):
        graph = onnx.load(site.folder / f"{decision}.onnx").graph
        shapes = {
            part.name: [size.dim_value for size in part.type.tensor_type.shape.dim]
            for part in graph.input
        }
        assert list(shapes) == [one["name"] for one in facts["inputs"][decision]]
        for one in facts["inputs"][decision]:
            array = example[f"{decision}.{one['name']}"]
            assert list(array.shape) == one["shape"] == shapes[one["name"]]
            assert str(array.dtype) == one["type"]
            assert len(one["axes"]) == array.ndim
            assert one["meaning"]
            if "columns" not in one:
                assert one["unit"]
                continue
            assert len(one["columns"]) == array.shape[-1]
            assert all(column["name"] and column["unit"] for column in one["columns"])
            assert {column["scaling"] for column in one["columns"]} <= facts["scaling"].keys()
        names = [part.name for part in graph.output]
        assert names == [one["name"] for one in facts["outputs"][decision]]
    (features,) = [one for one in facts["inputs"]["daily"] if one["name"] == "features"]
    assert [column["name"] for column in features["columns"]] == list(market.feature_names)
    assert len(facts["slots"]) == market.n_slots == len(facts["files"]["example"]["stocks"])


def test_columns_stand_where_their_names_say(site: Site) -> None:
    # one number of each part, looked up in the market by its name
    facts, example = site.facts, np.load(site.folder / "example.npz")
    market, tensors = site.context.market, site.context.tensors

    def value(decision: str, name: str, column: str) -> np.ndarray:
        (one,) = [one for one in facts["inputs"][decision] if one["name"] == name]
        place = [found["name"] for found in one["columns"]].index(column)
        return example[f"{decision}.{name}"][..., place]

    macro = market.macro_names[-1]
    np.testing.assert_allclose(value("weekly", "context", macro), market.macro_features[-1, -1])
    assert market.risk is not None
    risk = market.risk.sector_input_names[0]
    seen = value("weekly", "sectors", risk)
    np.testing.assert_allclose(seen[1], market.risk.sector_inputs[-1, :, 0], rtol=1e-6)
    cash = 1 - tensors.prior_exposure[-1].item()
    np.testing.assert_allclose(value("weekly", "classical", "cash"), cash, atol=1e-6)
    held = example["daily.held"].sum() + example["daily.held_elsewhere"].sum()
    held += example["daily.halted_elsewhere"].sum()
    np.testing.assert_allclose(value("daily", "scalars", "cash"), 1 - held, atol=1e-5)
    last = market.slots[-1]
    stocks = [market.symbols[asset] if asset >= 0 else None for asset in last]
    assert facts["files"]["example"]["stocks"] == stocks


def test_sector_embeddings_of_new_days_come_from_the_graph_of_each_seed(site: Site) -> None:
    """From node features in their own units: the scale of the training span is in the graph."""
    graph = Session((site.folder / "sectors.onnx").read_bytes())
    members = [seed.context for seed in site.agents.seeds]
    config = site.context.config.macro_agent.graph
    market = site.context.market
    nodes, edges = raw_nodes(market, config), adjacency(market, config)
    rng = np.random.default_rng(0)
    for row in (100, 300, market.n_days - 1):
        filled = nodes.filled[row : row + 1].copy()
        given = nodes.values[row : row + 1] + rng.normal(0.0, 1e-3, nodes.values[:1].shape)
        filled[0, 1] = row != 300  # a sector that is empty for once
        scaled = np.clip((given - nodes.mean) / nodes.deviation, -5.0, 5.0) * filled[..., None]
        arrays = {"nodes": given.astype(np.float32), "edges": edges[row : row + 1]}
        (found,) = graph.run({**arrays, "filled": filled}).values()
        for place, member in enumerate(members):
            network = SectorGNN(given.shape[2], config)
            network.load_state_dict(read_graph(member.best(1, which=1))[2])
            seen = torch.from_numpy(scaled.astype(np.float32))
            expected = embed_all(network, seen, torch.from_numpy(arrays["edges"]))[0]
            np.testing.assert_allclose(found[place], expected, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2
    (one,) = [one for one in site.facts["inputs"]["sectors"] if one["name"] == "nodes"]
    assert [column["name"] for column in one["columns"]] == node_names(market, config)


def test_a_run_whose_first_phase_ran_again_is_not_exported(site: Site, tmp_path: Path) -> None:
    """Its agents read the table of another graph network."""
    agents = macro_agents(site.agents.policies()[0][0].macro)
    assert len(agents) == 2
    with pytest.raises(HrlSarpError, match="phase 1 has run again"):
        SectorEmbeddings(agents, [site.agents.seeds[0].context])


def test_the_same_run_gives_the_same_bytes(site: Site, tmp_path: Path) -> None:
    export_agents([LoadedAgents.of(site.context)], tmp_path)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (site.folder / name).read_bytes(), name


def test_several_runs_decide_as_their_mean(site: Site, tmp_path: Path) -> None:
    # two runs of one seed each, certified alike, are the run of both seeds
    runs = [replace(site.agents, seeds=[seed]) for seed in site.agents.seeds]
    made = export_agents(runs, tmp_path)
    assert made.networks == (2, 2)
    assert made.name == "mean of 2 runs"
    both, mean = (np.load(folder / "example.npz") for folder in (site.folder, tmp_path))
    for name in ("expected.goal", "expected.weights"):
        np.testing.assert_allclose(both[name], mean[name], atol=1e-6)
    alone = [run.policies()[0][0].macro for run in runs]
    goals = [macro_agents(each)[0].actor.state_dict() for each in alone]
    assert any(not torch.equal(value, goals[1][name]) for name, value in goals[0].items())


def test_another_pair_can_be_exported_and_a_rule_has_no_networks(
    site: Site, tmp_path: Path
) -> None:
    made = export_agents([site.agents], tmp_path, "classical prior")
    assert made.networks == (0, 0)
    assert "sectors" not in json.loads((tmp_path / "agents.json").read_text())["inputs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*NAMES} - {"sectors.onnx"})
    assert "Nothing that was learned is granted for the weekly and daily" in made.sentence()
    with pytest.raises(HrlSarpError, match="no trained pair"):
        export_agents([site.agents], tmp_path / "no", "joint")
    assert not (tmp_path / "no").exists()


def test_an_export_is_replaced_only_when_asked(site: Site, tmp_path: Path) -> None:
    folder = shutil.copytree(site.folder, tmp_path / "export")
    for name in NAMES:
        rest = tmp_path / name.replace(".", "_")
        rest.mkdir()
        shutil.copy(folder / name, rest)
        with pytest.raises(OverwriteError, match="--overwrite"):
            require_room(rest, overwrite=False)
    require_room(folder, overwrite=True)


@pytest.mark.usefixtures("converted")
def test_a_graph_that_decides_otherwise_is_not_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = writing.expected_decision

    def wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        found = right(*arguments)
        return {**found, "weights": found["weights"] + 2 * writing.TOLERANCE}

    monkeypatch.setattr(writing, "expected_decision", wrong)
    with pytest.raises(HrlSarpError, match="differ by 2e-05 from those of the package"):
        export_agents([site.agents], tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.usefixtures("converted")
def test_a_write_that_ends_early_leaves_no_export(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(site.folder, tmp_path / "export")

    def full(path: Path, _: bytes) -> None:
        raise HrlSarpError(f"cannot write {path}")

    monkeypatch.setattr(writing, "write_bytes", full)
    with pytest.raises(HrlSarpError, match="cannot write"):
        export_agents([site.agents], folder, overwrite=True)
    assert not (folder / "agents.json").exists()


def test_without_the_extra_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(HrlSarpError, match=r"pip install 'hrl-sarp\[onnx\]'"):
        require_room(tmp_path, overwrite=False)


def decide(repository: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run the example where neither torch nor the package can be imported."""
    script = str(repository / "examples" / "decide_without_torch.py")
    code = f"{WITHOUT} sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own


def test_the_example_decides_without_torch(site: Site, repository: Path) -> None:
    lines = (repository / "examples" / "decide_without_torch.py").read_text().splitlines()
    assert len(lines) <= 60
    done = decide(repository, site.folder)
    assert done.returncode == 0, done.stderr
    facts, example = site.facts, np.load(site.folder / "example.npz")
    shown = dict(reversed(line.split("  ", 1)) for line in map(str.strip, done.stdout.splitlines()))
    weights = example["expected.weights"][0]
    assert (weights > 0).sum() > 3
    for name, weight in zip(facts["slots"], weights, strict=True):
        assert float(shown.get(name, 0.0)) == pytest.approx(weight, abs=1e-4), name
    for output in ("embeddings", "goal", "weights", "kept_elsewhere", "asked"):
        assert float(shown[f"largest difference of {output}"]) <= writing.TOLERANCE


def test_the_example_keeps_a_goal_and_refuses_what_is_wrong(
    site: Site, repository: Path, tmp_path: Path
) -> None:
    example = dict(np.load(site.folder / "example.npz"))
    daily = {name: array for name, array in example.items() if not name.startswith("weekly.")}
    del daily["expected.goal"]
    np.savez(tmp_path / "daily.npz", **daily)
    assert decide(repository, site.folder, tmp_path / "daily.npz").returncode == 0
    daily["daily.held"] = np.full_like(daily["daily.held"], np.nan)
    np.savez(tmp_path / "nan.npz", **daily)
    done = decide(repository, site.folder, tmp_path / "nan.npz")
    assert (done.returncode, done.stderr) == (
        1,
        "daily decision: not a number in held; correct them\n",
    )
    example["expected.weights"] = example["expected.weights"] + 1e-3
    np.savez(tmp_path / "other.npz", **example)
    done = decide(repository, site.folder, tmp_path / "other.npz")
    assert done.returncode == 1
    assert done.stderr.startswith("weights: differs from what is expected")
    folder = shutil.copytree(site.folder, tmp_path / "export")
    (folder / "daily.onnx").write_bytes((folder / "weekly.onnx").read_bytes())
    done = decide(repository, folder)
    assert done.returncode == 1
    assert "is not the file that agents.json describes" in done.stderr


@pytest.mark.usefixtures("converted")
def test_the_command_exports_and_refuses(site: Site, tmp_path: Path, command: Command) -> None:
    options = ("export", "--log-dir", site.log_dir, "--data-dir", site.raw)
    where = ("--output", tmp_path / "export")
    code, out, err = command(*options, *where, "--format", "onnx")
    assert code == 0, err
    assert "2 weekly and 2 daily networks" in out + err
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == NAMES
    assert_refused(command(*options, *where), "--overwrite", str(tmp_path / "export"), code=2)
    wrong = command(*options, "--format", "tflite")
    assert_refused(wrong, "--format must be onnx", "tflite", code=2)
    missing = ("export", "--log-dir", tmp_path / "none", "--data-dir", site.raw)
    assert_refused(command(*missing, "--output", tmp_path / "no"), str(tmp_path / "none"))
    assert not (tmp_path / "no").exists()
