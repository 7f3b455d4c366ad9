"""Caches assembled markets: one npz file for each combination of data, configuration and code."""

import json
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, RiskTables, SessionCounts, Split
from hrl_sarp.data.store import files_hash, read_manifest
from hrl_sarp.errors import MarketError
from hrl_sarp.run.damage import UNREADABLE, read_arrays
from hrl_sarp.run.files import atomic_path, remove_unfinished, sha256_plain, source_hash

SAMPLE = "sample"
"""Market profile of the bundled data."""
FOLDER = "market"
"""Of the cached markets, beside the data."""
META = "meta"
"""Entry of the file that holds all other fields, as UTF-8 JSON."""
PLAIN_FIELDS = (
    *("name", "symbols", "sector_names", "benchmark_name"),
    *("feature_names", "macro_names", "portfolio_names"),
)
"""Fields that are strings or tuples of strings."""
RISK = "risk."
"""Prefix of the entries that are arrays of the risk tables."""
RISK_NAMES = ("input_names", "sector_input_names")
"""Fields of the risk tables that are tuples of strings."""
CODE_FOLDERS = ("data", "features", "market", "risk")
"""A change of code in these folders makes a new market."""


def bundled_sample(config: RunConfig) -> Market:
    """Assemble the bundled sample in memory: 20 large US stocks, adjusted closes, 1990-2022.

    Nothing is written and no network is needed.

    Raises:
        MarketError: if the configuration is for another market, or observes an encoder
            or a forecaster.
    """
    for section in ("encoders", "forecasters"):
        observe = getattr(config, section).observe
        if observe != "none":
            raise MarketError(
                f"{section}.observe is '{observe}', but the bundled data have no folder for what "
                "it shows; collect the sample and name its folder"
            )
    if config.market != SAMPLE:
        raise MarketError(
            f"the bundled data are the market '{SAMPLE}', found a configuration for "
            f"'{config.market}'; name the folder of its collected data"
        )
    # these import pandas, numba and the calendars for seconds; a cached market needs none of them
    from hrl_sarp.data.sources import sample
    from hrl_sarp.market.assemble import assemble_market

    return assemble_market(sample.load(), config)


def assembled_market(data_dir: Path, config: RunConfig, halted_at_end: int = 0) -> Market:
    """Return the market of `data/raw`, from the cache beside it if nothing changed.

    Args:
        data_dir: `data/raw` as written by collect-data.
        config: the run's configuration; its market profile must fit the data.
        halted_at_end: sessions without a bar, at the end of the data, for which a stock counts as
            halted and not as gone.

    Returns:
        The market, with the hashes of data and market in its manifest.

    Raises:
        MissingArtifactError: if nothing was collected.
        DataError: if raw files changed since they were collected.
        FeatureError: if the profile names features that the data cannot serve.
        MarketError: if no market can be assembled.
    """
    path = market_path(data_dir, config, halted_at_end)
    profile = config.market_profile
    # the key does not cover the user's functions, so a market of theirs is assembled every time
    if not (profile.extra_stock_features or profile.extra_macro_features):
        with suppress(MarketError):  # missing or damaged: it is assembled anew
            return read_market(path)
    # these import numba and the calendars for seconds; a cached market needs neither
    from hrl_sarp.data.quality.validation import read_validated
    from hrl_sarp.market.assemble import assemble_market

    remove_unfinished(path.parent)
    raw, report = read_validated(data_dir, config)
    market = assemble_market(raw, config, report=report, halted_at_end=halted_at_end)
    market.manifest["data_hash"] = data_hash(data_dir)
    market.manifest["market_hash"] = market_key(data_dir, config, halted_at_end)
    write_market(market, path)
    return market


def market_path(data_dir: Path, config: RunConfig, halted_at_end: int = 0) -> Path:
    """Name the file of a market."""
    key = market_key(data_dir, config, halted_at_end)[:16]
    return data_dir.parent / FOLDER / f"{config.market}-{key}.npz"


def forget_markets(data_dir: Path, market: str) -> None:
    """Remove the cached markets of data that have just changed: nobody asks for them again.

    Args:
        data_dir: `data/raw`.
        market: name of the profile.
    """
    for path in (data_dir.parent / FOLDER).glob(f"{market}-*.npz"):
        path.unlink(missing_ok=True)


def market_key(data_dir: Path, config: RunConfig, halted_at_end: int = 0) -> str:
    """Hash everything that the market depends on: raw files, profile, data section and code."""
    sections = {
        "market": config.market,
        "market_profile": config.market_profile.model_dump(mode="json", exclude={"costs"}),
        "data": config.data.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
        "risk_model": config.risk_model.model_dump(mode="json"),
        "data_hash": data_hash(data_dir),
        "code": source_hash(*CODE_FOLDERS),
        "halted_at_end": halted_at_end,
    }
    return sha256_plain(sections)


def data_hash(data_dir: Path) -> str:
    """Hash the hashes of the raw files."""
    return files_hash(read_manifest(data_dir))


def write_market(market: Market, path: Path) -> None:
    """Write a market atomically."""
    arrays = _arrays(market)
    risk_names: dict[str, tuple[str, ...]] = {}
    if market.risk is not None:
        arrays |= {RISK + name: value for name, value in _arrays(market.risk).items()}
        risk_names = {name: getattr(market.risk, name) for name in RISK_NAMES}
    meta = {name: getattr(market, name) for name in PLAIN_FIELDS}
    meta |= {"sessions": asdict(market.sessions), "split": asdict(market.split)}
    meta |= {"manifest": market.manifest, "risk_names": risk_names}
    arrays[META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_market(path: Path) -> Market:
    """Read what `write_market` wrote, bit for bit; code in the file never runs.

    Raises:
        MarketError: if the file is truncated or not a market.
    """
    try:
        arrays: dict[str, Any] = dict(read_arrays(path))
        meta = json.loads(arrays.pop(META).tobytes())
        split = Split(**{name: DayRange(**span) for name, span in meta["split"].items()})
        values = {name: meta[name] for name in PLAIN_FIELDS}
        names: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        risk: dict[str, Any] = {
            key.removeprefix(RISK): arrays.pop(key) for key in list(arrays) if key.startswith(RISK)
        }
        risk |= {key: tuple(value) for key, value in meta["risk_names"].items()}
        return Market(
            **arrays,
            **names,
            split=split,
            sessions=SessionCounts(**meta["sessions"]),
            manifest=meta["manifest"],
            risk=RiskTables(**risk) if risk else None,
        )
    except UNREADABLE as error:
        raise MarketError(
            f"{path}: expected an assembled market, found something else ({error}); delete the file"
        ) from error


def _arrays(holder: Market | RiskTables) -> dict[str, np.ndarray]:
    return {
        field.name: value
        for field in fields(holder)
        if isinstance(value := getattr(holder, field.name), np.ndarray)
    }
