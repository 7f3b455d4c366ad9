"""Both agents: the two observation forms mean the same, and a saved agent is the agent."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.checkpoints import load_payload, save_payload
from tests import factories, tiny_runs

LEVELS = ("macro", "micro")


@pytest.fixture(scope="module")
def tensors() -> MarketTensors:
    return tensors_with()


def tensors_with(names: tuple[str, ...] = ("level", "rise"), **options: Any) -> MarketTensors:
    """Draw a market with risk tables."""
    market = factories.with_risk(tiny_runs.tiny_market(**options), names=names)
    return tiny_runs.tensors_of(market, torch.float32)


def agent_of(level: str, tensors: MarketTensors, seed: int = 0, **config: Any) -> Any:
    make = tiny_runs.macro_agent if level == "macro" else tiny_runs.micro_agent
    return make(tensors, tiny_runs.tiny_config(**config), seed)


def load(level: str, path: Path, tensors: MarketTensors, **config: Any) -> Any:
    values = tiny_runs.tiny_config(**config)
    if level == "macro":
        return MacroAgent.load(path, tensors, values)
    return MicroAgent.load(path, MicroSettings(tensors, values))


def observations(level: str, tensors: MarketTensors) -> list[tuple[Any, Any]]:
    """Play some random steps; returns (index, full) of each."""
    config = tiny_runs.tiny_config()
    made = make_level(tensors, config, level, 6)
    env = PortfolioVecEnv(made, make_starts(tensors, config, level, None))
    env.reset()
    rng = np.random.default_rng(4)
    seen = []
    for _ in range(5):
        seen.append((env._numpy(made.observe("index")), env._numpy(made.observe("full"))))
        env.step(rng.random((6, env.action_space.shape[0])).astype(np.float32))
    return seen


@pytest.mark.parametrize("level", LEVELS)
def test_index_and_full_observations_give_the_same_actions(
    level: str, tensors: MarketTensors
) -> None:
    agent = agent_of(level, tensors)
    actions = []
    for index, full in observations(level, tensors):
        actions.append(agent.act(index))
        np.testing.assert_allclose(agent.act(full), actions[-1], rtol=0, atol=2e-6)
    assert np.concatenate(actions).std(axis=0).max() > 1e-3  # they do depend on what is seen


@pytest.mark.parametrize("level", LEVELS)
def test_the_algorithm_predicts_what_the_agent_does(level: str, tensors: MarketTensors) -> None:
    agent, config = agent_of(level, tensors), tiny_runs.tiny_config()
    made = make_level(tensors, config, level, 4)
    env = PortfolioVecEnv(made, make_starts(tensors, config, level, None))
    section = config.macro_agent.ppo if level == "macro" else config.micro_agent.td3
    algorithm = agent.algorithm(env, section)
    observation = env.reset()
    predicted, _ = algorithm.predict(observation, deterministic=True)
    np.testing.assert_allclose(predicted, agent.act(observation), rtol=0, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_a_loaded_agent_acts_as_the_saved_one(
    level: str, tensors: MarketTensors, tmp_path: Path
) -> None:
    saved = agent_of(level, tensors, seed=1)
    saved.save(tmp_path / "agent.pt")
    loaded = load(level, tmp_path / "agent.pt", tensors)
    for part in ("actor", "critic"):
        first, second = getattr(saved, part).state_dict(), getattr(loaded, part).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    index, _ = observations(level, tensors)[2]
    assert saved.act(index).tobytes() == loaded.act(index).tobytes()


class Hostile:
    """A pickle that would run code when it is opened."""

    def __reduce__(self) -> tuple[Any, Any]:
        return (Path.touch, (Path("hacked"),))


def hostile(path: Path, _: Any) -> None:
    torch.save({"kind": "macro", "market": Hostile()}, path)


def plain_pickle(path: Path, _: Any) -> None:
    path.write_bytes(pickle.dumps({"kind": Hostile()}))


def truncated(path: Path, agent: Any) -> None:
    agent.save(path)
    path.write_bytes(path.read_bytes()[:-500])


def empty(path: Path, _: Any) -> None:
    path.write_bytes(b"")


def text(path: Path, _: Any) -> None:
    path.write_text("not a checkpoint\n")


def bare_tensor(path: Path, _: Any) -> None:
    torch.save(torch.zeros(3), path)


def without_networks(path: Path, agent: Any) -> None:
    save_payload(path, {"kind": agent.kind})


DAMAGES = [hostile, plain_pickle, truncated, empty, text, bare_tensor, without_networks]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_hostile_file_is_refused_in_one_line_and_runs_nothing(
    damage: Any,
    level: str,
    tensors: MarketTensors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "agent.pt"
    damage(path, agent_of(level, tensors))
    with pytest.raises(CheckpointError) as refused:
        load(level, path, tensors)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    assert not (tmp_path / "hacked").exists()


def test_a_missing_file_is_named(tensors: MarketTensors, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"agent\.pt"):
        load("macro", tmp_path / "agent.pt", tensors)


@pytest.mark.parametrize("level", LEVELS)
def test_an_agent_of_other_sectors_is_refused(
    level: str, tensors: MarketTensors, tmp_path: Path
) -> None:
    agent_of(level, tensors).save(tmp_path / "agent.pt")
    other = tensors_with(n_sectors=4)
    with pytest.raises(CheckpointError, match=r"another market: expected sectors .*found") as no:
        load(level, tmp_path / "agent.pt", other)
    assert "\n" not in str(no.value)


@pytest.mark.parametrize("level", LEVELS)
def test_an_agent_of_other_risk_inputs_is_refused_by_their_names(
    level: str, tensors: MarketTensors, tmp_path: Path
) -> None:
    agent_of(level, tensors).save(tmp_path / "agent.pt")
    other = tensors_with(names=("level", "fall"))
    with pytest.raises(CheckpointError, match=r"risk_inputs .*'fall'.* found .*'rise'") as no:
        load(level, tmp_path / "agent.pt", other)
    assert "\n" not in str(no.value)
    bare = tiny_runs.tensors_of(tiny_runs.tiny_market(), torch.float32)
    with pytest.raises(CheckpointError, match=r"expected risk_inputs \[\], found"):
        load(level, tmp_path / "agent.pt", bare)


def test_a_file_that_names_no_risk_inputs_is_of_a_market_without(
    tensors: MarketTensors, tmp_path: Path
) -> None:
    bare = tiny_runs.tensors_of(tiny_runs.tiny_market(), torch.float32)
    path = agent_of("micro", bare).save(tmp_path / "agent.pt")
    payload = load_payload(path)
    del payload["market"]["risk_inputs"], payload["market"]["sector_risk_inputs"]
    save_payload(path, payload)
    load("micro", path, bare)
    with pytest.raises(CheckpointError, match=r"risk_inputs \['level', 'rise'\], found \[\]"):
        load("micro", path, tensors)


@pytest.mark.parametrize(("there", "here"), [("risk", "growth"), ("growth", "risk")])
def test_an_agent_that_decides_on_cash_is_no_agent_that_does_not(
    there: str, here: str, tensors: MarketTensors, tmp_path: Path
) -> None:
    agent_of("macro", tensors, objective={"kind": there}).save(tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match=r"another action: expected .*`objective.kind`") as no:
        load("macro", tmp_path / "agent.pt", tensors, objective={"kind": here})
    assert "\n" not in str(no.value)


def test_one_micro_agent_serves_another_number_of_stocks(
    tensors: MarketTensors, tmp_path: Path
) -> None:
    agent_of("micro", tensors).save(tmp_path / "agent.pt")
    wider = tensors_with(slots_per_sector=6)
    agent = load("micro", tmp_path / "agent.pt", wider)
    index, _ = observations("micro", wider)[0]
    assert agent.act(index).shape == (6, wider.n_slots)


@pytest.mark.parametrize("level", LEVELS)
def test_networks_of_other_shapes_are_refused(
    level: str, tensors: MarketTensors, tmp_path: Path
) -> None:
    agent_of(level, tensors).save(tmp_path / "agent.pt")
    wider = {"macro_agent": {"network": {"hidden": 9}}, "micro_agent": {"network": {"head": 9}}}
    with pytest.raises(CheckpointError, match=r"networks of other shapes: .*size mismatch") as no:
        load(level, tmp_path / "agent.pt", tensors, **wider)
    assert "\n" not in str(no.value)


def test_a_macro_file_is_no_micro_agent(tensors: MarketTensors, tmp_path: Path) -> None:
    agent_of("macro", tensors).save(tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match="expected a micro agent, found macro"):
        load("micro", tmp_path / "agent.pt", tensors)
