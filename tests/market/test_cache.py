"""The market on disk: whole, keyed by what it depends on, without code in it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import MarketError, MissingArtifactError
from hrl_sarp.market import assembled_market
from hrl_sarp.market.cache import market_key, market_path, read_market, write_market
from hrl_sarp.risk import risk_tables
from tests import factories, raw_data

N_DAYS = 700


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "raw"
    write_raw(raw_data.random_raw(np.random.default_rng(0), N_DAYS), folder)
    return folder


def test_a_market_survives_the_disk(tmp_path: Path) -> None:
    market = factories.random_market(np.random.default_rng(0))
    market.manifest["source"] = "files"
    write_market(market, tmp_path / "market.npz")
    found = read_market(tmp_path / "market.npz")
    for field in dataclasses.fields(market):
        expected, value = getattr(market, field.name), getattr(found, field.name)
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == expected.dtype
        else:
            assert value == expected


def test_risk_tables_survive_the_disk(tmp_path: Path) -> None:
    bare = factories.random_market(np.random.default_rng(0))
    risk = risk_tables(bare, load_config(market="sample"))
    market = dataclasses.replace(bare, risk=risk)
    write_market(market, tmp_path / "market.npz")
    found = read_market(tmp_path / "market.npz").risk
    assert found is not None
    for field in dataclasses.fields(risk):
        expected, value = getattr(risk, field.name), getattr(found, field.name)
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == expected.dtype
        else:
            assert value == expected


def test_the_second_load_reads_the_file_and_gives_the_same(data_dir: Path) -> None:
    config = raw_data.small_config("us", N_DAYS)
    first = assembled_market(data_dir, config)
    path = market_path(data_dir, config)
    assert path.parent == data_dir.parent / "market"
    written = path.stat().st_mtime_ns
    second = assembled_market(data_dir, config)
    assert path.stat().st_mtime_ns == written
    np.testing.assert_array_equal(second.stock_features, first.stock_features)
    assert second.manifest == first.manifest
    assert second.split == first.split


def test_a_damaged_cache_is_assembled_anew(data_dir: Path) -> None:
    config = raw_data.small_config("us", N_DAYS)
    expected = assembled_market(data_dir, config)
    path = market_path(data_dir, config)
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(assembled_market(data_dir, config).slots, expected.slots)
    assert read_market(path).dates[0] == expected.dates[0]


def test_the_key_follows_what_shapes_the_market_and_nothing_else(data_dir: Path) -> None:
    config = raw_data.small_config("us", N_DAYS)
    key = market_key(data_dir, config)
    data = config.data.model_copy(update={"feature_clip": 2.0})
    assert market_key(data_dir, config.model_copy(update={"data": data})) != key
    model = config.risk_model.model_copy(update={"correlation_shrinkage": 0.1})
    objective = config.objective.model_copy(update={"invested_share": 0.5})
    assert market_key(data_dir, config.model_copy(update={"risk_model": model})) != key
    assert market_key(data_dir, config.model_copy(update={"objective": objective})) != key
    assert market_key(data_dir, config.model_copy(update={"seed": 5, "threads": 1})) == key


def test_a_file_with_a_pickle_in_it_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "market.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(MarketError, match="expected an assembled market"):
        read_market(tmp_path / "market.npz")


def test_nothing_collected_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="collect-data"):
        assembled_market(tmp_path / "raw", raw_data.small_config("us", N_DAYS))
