"""Agents that observe forecasts decide on new days as on those of their run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.daily.export import write as writing
from hrl_sarp.daily.export.graphs import Exportable
from hrl_sarp.encoders.stock_embeddings import EMBEDDINGS
from hrl_sarp.errors import CheckpointError, MissingArtifactError
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.observed.forecast_source import forecaster_folder
from hrl_sarp.observed.forecasts import column_names
from hrl_sarp.observed.stocks import with_stock_embeddings
from tests.command_line import Command
from tests.daily.conftest import Site, make_site
from tests.daily.test_market import decided
from tests.daily.test_observed import beside, embeddings_of, spoiled
from tests.encoders import panels
from tests.observed.small import train_small
from tests.tiny_runs import changed


@pytest.fixture(scope="module", params=["har", "toto"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run of agents that observe forecasts; a test must not change it."""
    return make_site(tmp_path_factory.mktemp(request.param), forecasts=request.param)


def test_a_decision_is_the_same_on_data_that_end_with_its_day(own: Site, tmp_path: Path) -> None:
    whole = own.today()
    for day in own.later_days[3::29]:
        cut, alone = own.today(day), own.today(data_dir=beside(own, tmp_path, day))
        row = cut.market.n_days
        for other in (cut, alone):
            columns = [whole.market.symbols.index(s) for s in other.market.symbols]
            expected = embeddings_of(whole.market)[:row, columns]
            np.testing.assert_array_equal(embeddings_of(other.market), expected)
            assert decided(other, day) == decided(whole, day)


def test_days_that_the_run_had_keep_their_rows_and_later_ones_move(own: Site) -> None:
    known = assembled_market(own.history, own.config)
    known = with_stock_embeddings(known, own.history, own.config, panels.CPU)
    market = own.today().market
    shared = [market.symbols.index(symbol) for symbol in known.symbols]
    found = embeddings_of(market)
    np.testing.assert_array_equal(found[: known.n_days, shared], embeddings_of(known))
    assert market.embeddings_hash == known.embeddings_hash
    later = found[known.n_days :]
    seen = market.eligible[known.n_days :] & (np.abs(later).sum(axis=2) > 0)
    assert seen.any(axis=1).all()
    moves = (later[1:] != later[:-1]).any(axis=(1, 2))
    assert moves[market.is_week_end[known.n_days + 1 :]].all()


def test_a_later_forecast_is_that_of_a_table_of_all_days(own: Site) -> None:
    market = own.today().market
    config = own.today().run.config
    folder = str(forecaster_folder(own.history, "us", "toto"))
    beside_history = {"weights": folder if config.forecasters.observe == "toto" else None}
    config = changed(config, {"forecasters": beside_history})
    again = assembled_market(own.whole, config)
    found = embeddings_of(market)
    made = embeddings_of(with_stock_embeddings(again, own.whole, config, panels.CPU))
    # the spans of both are the same days, and so is the unit of the columns
    later = np.flatnonzero(market.dates > np.datetime64(own.today().run.origin.last_day))
    np.testing.assert_allclose(found[later], made[later], atol=1e-5)


def test_forecasts_are_a_reason_of_their_own(own: Site, command: Command, tmp_path: Path) -> None:
    day = own.later_days[-2]
    code, out, err = command(
        *("decide", "--log-dir", own.run_dir, "--data-dir", own.whole, "--as-of", day),
        *("--output", tmp_path, "--accept-drift", "--json"),
    )
    assert code == 0, err
    groups = {effect["group"] for effect in json.loads(out)["why"]["effects"]}
    assert "forecasts" in groups
    assert "encoders" not in groups


@pytest.fixture
def _as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules decide in place of their graphs: the test of the encoders' columns has graphs."""
    kept: dict[bytes, Exportable] = {}

    def keep(module: Exportable, arrays: Mapping[str, torch.Tensor]) -> bytes:
        content = f"{len(kept)}: {list(arrays)}".encode()
        return kept.setdefault(content, module) and content

    class Module:
        def __init__(self, content: bytes) -> None:
            self.module = kept[content]

        def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            given = [torch.from_numpy(arrays[name]) for name in self.module.inputs]
            with torch.no_grad():
                found = [output.numpy() for output in self.module(*given)]
            return dict(zip(self.module.outputs, found, strict=True))

    monkeypatch.setattr(writing, "to_onnx", keep)
    monkeypatch.setattr(writing, "Session", Module)


@pytest.mark.usefixtures("_as_they_are")
def test_an_export_names_the_columns_of_the_forecasts(
    own: Site, command: Command, tmp_path: Path
) -> None:
    given = ("--log-dir", own.run_dir, "--data-dir", own.whole, "--output", tmp_path / "out")
    code, _, err = command("export", *given)
    assert code == 0, err
    facts = json.loads((tmp_path / "out" / "agents.json").read_text())
    (features,) = (each for each in facts["inputs"]["daily"] if each["name"] == "features")
    names = column_names(own.config.forecasters.observe)  # type: ignore[arg-type]
    columns = features["columns"][-len(names) :]
    assert tuple(column["name"] for column in columns) == names
    assert {column["scaling"] for column in columns} == {"stock forecasts"}
    units = {"har": {"log"}, "toto": {"log return", "probability"}}
    assert {column["unit"] for column in columns} == units[own.config.forecasters.observe]
    assert "run's forecaster" in facts["scaling"]["stock forecasts"]


def test_a_run_that_keeps_no_forecaster_is_refused_by_name(own: Site, tmp_path: Path) -> None:
    observe = own.config.forecasters.observe
    with pytest.raises(CheckpointError, match=rf"observe: {observe}.*does not keep"):
        spoiled(own, tmp_path / "run", lambda payload: payload.pop("encoders"))


def test_another_forecaster_or_none_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path, forecasts="toto")
    folder = forecaster_folder(site.history, "us", "toto")
    shutil.rmtree(folder)
    with pytest.raises(MissingArtifactError, match=str(folder)):
        site.today()
    shutil.rmtree(site.history.parent / EMBEDDINGS)
    train_small("toto", site.history, site.config.model_copy(update={"seed": 3}))
    weights = folder / "model" / "model.safetensors"
    assert weights.is_file()
    site.today()  # the same seed of training gives the same forecaster
    described = json.loads((folder / "forecaster.json").read_text())
    described["context"] = 8
    described.pop("checksum", None)
    (folder / "forecaster.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="another forecaster by now"):
        site.today()
