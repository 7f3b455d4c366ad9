"""Embeddings in a market: exact, causal, cached, and refused where they would not be honest."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.encoders.embedding_table import embed_windows
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.stock_embeddings import embedding_job, encoder_folder, read_frozen
from hrl_sarp.encoders.windows.panel import read_panel_bars
from hrl_sarp.errors import CheckpointError, MarketError, MissingArtifactError
from hrl_sarp.graph import node_features
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.observed import stocks
from hrl_sarp.observed.stocks import with_stock_embeddings
from tests import tiny_runs
from tests.encoders import panels

CPU = panels.CPU
KINDS: tuple[EncoderKind, ...] = ("jade", "transformer")
N_FEATURES, SIZE = 22, 4


@pytest.fixture
def data_dir(panel_data: Path, tmp_path: Path) -> Path:
    """A copy of data and encoders that a test may spoil."""
    shutil.copytree(panel_data.parent, tmp_path / "copy")
    return tmp_path / "copy" / "raw"


@pytest.fixture(scope="module")
def seen(panel_data: Path) -> Callable[[str], Market]:
    """Return the small market as each setting shows it."""

    def load(observe: str) -> Market:
        config = panels.small_config(observe=observe)
        return with_stock_embeddings(assembled_market(panel_data, config), panel_data, config, CPU)

    return load


def embeddings_of(market: Market) -> np.ndarray:
    assert market.stock_embeddings is not None
    return market.stock_embeddings


def describe_again(folder: Path, **changes: Any) -> None:
    """Change what an encoder's description says."""
    path = folder / "encoder.json"
    found = json.loads(path.read_text())
    del found["checksum"]
    path.write_text(json.dumps({**found, **changes}))


def test_none_leaves_the_market_as_it_is(panel_data: Path, panel_market: Market) -> None:
    config = panels.small_config()
    assert with_stock_embeddings(panel_market, panel_data, config, CPU) is panel_market


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_window_of_bars_up_to_that_day_alone(
    kind: EncoderKind, seen: Callable[[str], Market], panel_data: Path, panel_market: Market
) -> None:
    # every step is taken again with the bars cut off at the day, and the window embedded by itself
    table, config = embeddings_of(seen(kind)), panels.small_config()
    frozen = read_frozen(kind, panel_market, panel_data, config)
    bars = read_panel_bars(panel_data, panel_market, config)
    days, stocks = np.nonzero(panel_market.eligible & panel_market.tradable)
    for at in np.linspace(0, len(days) - 1, 12).astype(int):
        day, stock = days[at], stocks[at]
        known = panels.cut_off(bars, panel_market.dates[day])
        job = embedding_job(frozen, known, panel_market, config, CPU)
        own = np.flatnonzero(
            known.instrument == bars.instruments.index(panel_market.symbols[stock])
        )
        alone = embed_windows(job, own[-1:] - panels.LENGTH + 1)[0]
        np.testing.assert_allclose(table[day, stock], alone, atol=1e-5)
        assert np.abs(table[day, stock]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_later_bars_change_no_bit_of_earlier_rows(
    kind: EncoderKind, panel_data: Path, panel_market: Market
) -> None:
    config, t = panels.small_config(), 200
    frozen = read_frozen(kind, panel_market, panel_data, config)
    bars = read_panel_bars(panel_data, panel_market, config)
    other = panels.with_other_prices(bars, panel_market.dates[t])
    tables = []
    for future in (bars, other):
        job = embedding_job(frozen, future, panel_market, config, CPU)
        here = job.starts >= 0
        table = np.zeros(job.shape, dtype=np.float32)
        table[here] = embed_windows(job, job.starts[here])
        tables.append(table)
    np.testing.assert_array_equal(tables[1][: t + 1], tables[0][: t + 1])
    assert (tables[1][t + 1 :] != tables[0][t + 1 :]).any()


def test_stocks_outside_the_slots_and_halted_ones_show_zeros(
    seen: Callable[[str], Market], panel_market: Market
) -> None:
    table = embeddings_of(seen("jade"))
    shown = np.abs(table).sum(axis=2) > 0
    np.testing.assert_array_equal(shown, panel_market.eligible & panel_market.tradable)


def test_components_have_one_scale_over_the_training_span(
    seen: Callable[[str], Market], panel_market: Market
) -> None:
    span = slice(panel_market.split.train.start, panel_market.split.train.stop)
    table = embeddings_of(seen("jade"))[span]
    known = table[panel_market.eligible[span] & panel_market.tradable[span]]
    # fitted on every eighth window of all stocks of the first 80 %
    np.testing.assert_allclose(known.std(axis=0), 1.0, atol=0.25)


@pytest.mark.parametrize(("observe", "columns"), [("jade", 4), ("transformer", 4), ("both", 8)])
def test_the_setting_widens_what_agents_and_sector_graph_see(
    observe: str, columns: int, seen: Callable[[str], Market]
) -> None:
    config, market, plain = panels.small_config(), seen(observe), seen("none")
    tensors = MarketTensors(tiny_runs.with_nodes(market), torch.float32, "cpu")
    settings = MicroSettings(tensors, config)
    assert settings.n_features == N_FEATURES + columns
    graph = config.macro_agent.graph
    widths = [node_features(seen_market, graph).shape[2] for seen_market in (market, plain)]
    assert widths[0] - widths[1] == columns
    macro = MacroAgent(tensors, config, 0)
    narrow = MacroAgent(MarketTensors(tiny_runs.with_nodes(plain), torch.float32, "cpu"), config, 0)
    inputs = [sum(p.numel() for p in agent.actor.parameters()) for agent in (macro, narrow)]
    assert inputs[0] > inputs[1]


def test_both_stand_side_by_side_in_a_mapped_file(seen: Callable[[str], Market]) -> None:
    both = embeddings_of(seen("both"))
    assert isinstance(both, np.memmap)
    parts = [embeddings_of(seen(kind)) for kind in KINDS]
    np.testing.assert_array_equal(both, np.concatenate(parts, axis=2))


def test_slots_show_features_then_embeddings_of_their_stock(seen: Callable[[str], Market]) -> None:
    market = seen("both")
    found = MarketTensors(market, torch.float32, "cpu").slot_features.numpy()
    day, slot = 300, int(np.flatnonzero(market.slots[300] >= 0)[3])
    stock = market.slots[day, slot]
    np.testing.assert_array_equal(
        found[day, slot, :N_FEATURES], market.stock_features[day, stock].astype(np.float32)
    )
    np.testing.assert_array_equal(found[day, slot, N_FEATURES:], embeddings_of(market)[day, stock])
    assert not found[market.slots < 0].any()


def test_a_table_is_made_once(
    seen: Callable[[str], Market], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = seen("jade")

    def refuse(*_: object) -> None:
        raise AssertionError("the table is on disk")

    monkeypatch.setattr(stocks, "read_panel_bars", refuse)
    np.testing.assert_array_equal(embeddings_of(seen("jade")), embeddings_of(first))


def test_another_encoder_is_never_shown_by_the_table_of_the_first(data_dir: Path) -> None:
    config = panels.small_config(observe="jade")
    market = assembled_market(data_dir, config)
    first = with_stock_embeddings(market, data_dir, config, CPU)
    panels.pretrain_small("jade", data_dir, config.model_copy(update={"seed": 9}))
    second = with_stock_embeddings(market, data_dir, config, CPU)
    assert (embeddings_of(first) != embeddings_of(second)).any()
    assert len(list((data_dir.parent / "embeddings").glob("us-jade-*.npy"))) == 2


def test_the_fingerprint_tells_tables_apart(seen: Callable[[str], Market]) -> None:
    observed = ("none", "jade", "transformer", "both")
    assert len({market_fingerprint(seen(observe)) for observe in observed}) == len(observed)
    assert market_fingerprint(seen("jade")) == market_fingerprint(seen("jade"))
    assert seen("jade").manifest[STOCK_EMBEDDINGS]["fitted_to"].keys() == {"jade"}


def test_an_agent_is_refused_on_another_table(
    seen: Callable[[str], Market], tmp_path: Path
) -> None:
    # jade and transformer have equally many columns: only the hash tells them apart
    config = panels.small_config()
    settings = [
        MicroSettings(MarketTensors(tiny_runs.with_nodes(seen(kind)), torch.float32, "cpu"), config)
        for kind in KINDS
    ]
    path = MicroAgent(settings[0], 0).save(tmp_path / "micro.pt")
    MicroAgent.load(path, settings[0])
    with pytest.raises(CheckpointError, match="trained for another market: expected stock_embed"):
        MicroAgent.load(path, settings[1])


def test_embeddings_without_a_manifest_count_by_their_content() -> None:
    market = tiny_runs.tiny_market()
    table = np.zeros((market.n_days, market.n_assets, 2), dtype=np.float32)
    first, second = (replace(market, stock_embeddings=table + shift) for shift in (0, 1))
    assert len({market_fingerprint(seen) for seen in (market, first, second)}) == 3


def test_a_missing_encoder_names_the_command(data_dir: Path, panel_market: Market) -> None:
    shutil.rmtree(encoder_folder(data_dir, "us", "transformer"))
    config = panels.small_config(observe="both")
    command = f"pretrain-encoder --encoder transformer --panel --data-dir {data_dir} --market us"
    with pytest.raises(MissingArtifactError, match=command):
        with_stock_embeddings(panel_market, data_dir, config, CPU)


def test_a_market_that_was_not_loaded_is_refused(panel_data: Path, panel_market: Market) -> None:
    config = panels.small_config(observe="jade")
    with pytest.raises(MarketError, match="load_market"):
        with_stock_embeddings(replace(panel_market, manifest={}), panel_data, config, CPU)


def test_an_encoder_that_has_seen_the_future_of_the_fold_is_refused(
    panel_data: Path, panel_market: Market
) -> None:
    split = panel_market.split
    earlier = replace(split, train=replace(split.train, stop=split.train.stop - 1))
    fitted_to = panel_market.dates[split.train.stop - 1]
    end = panel_market.dates[split.train.stop - 2]
    with pytest.raises(
        CheckpointError, match=f"fitted on bars to {fitted_to}, past the training span's end {end}"
    ):
        read_frozen("jade", replace(panel_market, split=earlier), panel_data, panels.small_config())


def test_a_projection_that_has_seen_the_future_is_refused(
    data_dir: Path, panel_market: Market
) -> None:
    folder = encoder_folder(data_dir, "us", "jade")
    describe_again(folder, fitted_to=str(panel_market.dates[0]))
    split = panel_market.split
    earlier = replace(split, train=replace(split.train, stop=split.train.stop - 1))
    with pytest.raises(CheckpointError, match=r"projection.safetensors was fitted on bars to"):
        read_frozen("jade", replace(panel_market, split=earlier), data_dir, panels.small_config())


@pytest.mark.parametrize(
    "changes",
    [
        {"market": "nse"},
        {"columns": ["open_norm"]},
        {"window_length": 99},
        {"kind": "transformer"},
        {"sizes": {"hidden": 7}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_encoder_of_something_else_is_refused(
    changes: dict[str, Any], data_dir: Path, panel_market: Market
) -> None:
    describe_again(encoder_folder(data_dir, "us", "jade"), **changes)
    with pytest.raises(CheckpointError, match=f"expected {next(iter(changes))} "):
        read_frozen("jade", panel_market, data_dir, panels.small_config())


def test_a_projection_of_another_encoder_is_refused(data_dir: Path, panel_market: Market) -> None:
    folder = encoder_folder(data_dir, "us", "jade")
    kept = (folder / "projection.safetensors").read_bytes()
    panels.pretrain_small("jade", data_dir, panels.small_config().model_copy(update={"seed": 9}))
    (folder / "projection.safetensors").write_bytes(kept)
    with pytest.raises(CheckpointError, match="belongs to another encoder"):
        read_frozen("jade", panel_market, data_dir, panels.small_config())
