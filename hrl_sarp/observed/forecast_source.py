"""The forecaster whose forecasts agents see: where it lies, what it has seen, and its table."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from loguru import logger

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.encoders.embedding_table import write_blocks
from hrl_sarp.encoders.stock_embeddings import require_hash
from hrl_sarp.errors import CheckpointError, ConfigError, MissingArtifactError
from hrl_sarp.forecasters.api import load_forecaster
from hrl_sarp.forecasters.contract import Forecaster
from hrl_sarp.forecasters.cost import cost_of, networks_of
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.seen import run_of
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster
from hrl_sarp.observed.forecasts import (
    HORIZONS,
    RULES,
    ForecasterKind,
    ForecastPlan,
    Standard,
    column_names,
    forecast_day,
)
from hrl_sarp.run.files import sha256_plain, source_hash

CLASSES = {"toto": TotoForecaster, "kronos": KronosForecaster, "toto2": Toto2Forecaster}
"""Value of `forecasters.observe` -> what its weights have to be."""
FORECASTERS = "forecasters"
"""Folder of a market's own forecasters, beside `data/raw`."""
CODE = (
    "observed/forecasts.py",
    "forecasters/contract.py",
    "forecasters/series.py",
    "forecasters/toto",
    "forecasters/kronos",
    "forecasters/evaluation/baselines",
    "encoders/windows",
)
"""Source files that a table of forecasts depends on."""
STORED = np.dtype("<f4")


@dataclass(frozen=True)
class ObservedForecaster:
    """A forecaster that may forecast the days of a market."""

    kind: ForecasterKind
    forecaster: Forecaster
    identity: str
    """Hash of all that its forecasts depend on; its kind for a rule."""
    fitted_to: str | None
    """Last day of the data that it has seen; None for a rule, which fits each history alone."""
    folder: str
    """Of its weights; empty for a rule."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of its columns."""
        return column_names(self.kind)

    def to(self, device: torch.device) -> "ObservedForecaster":
        """Move its networks."""
        for network in networks_of(self.forecaster):
            network.to(device)
        return self

    def to_payload(self, standard: Standard) -> dict[str, Any]:
        """Return plain values, from which `from_payload` finds the same forecaster."""
        return {
            "kind": self.kind,
            "identity": self.identity,
            "fitted_to": self.fitted_to,
            "folder": self.folder,
            "mean": standard.mean.tolist(),
            "deviation": standard.deviation.tolist(),
            "clip": standard.clip,
        }

    @classmethod
    def from_payload(
        cls, payload: Mapping[str, Any], config: RunConfig, path: Path
    ) -> tuple["ObservedForecaster", Standard]:
        """Find the forecaster of a run again, with the unit of its columns.

        Raises:
            MissingArtifactError: if its folder is gone.
            CheckpointError: if it holds another one by now; `path` is named.
        """
        folder = payload["folder"]
        found = _read(payload["kind"], folder, config)
        if found.identity != payload["identity"]:
            raise CheckpointError(
                f"{path}: its agents observe forecasts of {found.kind}, and {folder or 'the rule'} "
                "is another forecaster by now: bring that of the training back, or train the "
                "agents again with --overwrite"
            )
        mean, deviation = (np.array(payload[name]) for name in ("mean", "deviation"))
        return found, Standard(mean, deviation, payload["clip"])


def forecaster_folder(data_dir: Path, market_name: str, kind: str) -> Path:
    """Return the folder of a market's own forecaster, beside `data/raw`."""
    return data_dir.parent / FORECASTERS / market_name / kind


def read_observed(market: Market, data_dir: Path, config: RunConfig) -> ObservedForecaster | None:
    """Read the forecaster of `forecasters.observe`; refuse one that has seen the fold's future.

    Returns:
        None where agents observe no forecasts.

    Raises:
        MissingArtifactError: if there is none; names the command that trains it.
        CheckpointError: if it is another kind of forecaster, or was trained past the training span.
        ConfigError: if the data of a run of ours are told by `pretrained_until`.
    """
    section = config.forecasters
    if section.observe == "none":
        return None
    kind: ForecasterKind = section.observe
    if kind in RULES:
        return _read(kind, "", config)
    folder = _folder_of(config, data_dir)
    found = _read(kind, str(folder), config)
    end = market.dates[market.split.train.stop - 1]
    is_late = np.datetime64(found.fitted_to or end, "D") > end
    if run_of(folder) is None:
        _say_vintage(found, config, str(end) if is_late else None)
    elif is_late:
        raise CheckpointError(
            f"{folder} was trained on bars to {found.fitted_to}, past the training span's end "
            f"{end}: it has seen the future of this fold; run `{_command(config, data_dir)}` with "
            "the configuration of the fold",
            has_seen_future=True,
        )
    return found


def forecaster_hash(data_dir: Path, config: RunConfig) -> str:
    """Hash the forecaster of `forecasters.observe`, whatever days it has seen; its kind for a rule.

    Raises:
        MissingArtifactError: if it has no files.
    """
    kind = config.forecasters.observe
    if kind == "none" or kind in RULES:
        return kind
    return _read(kind, str(_folder_of(config, data_dir)), config).identity


def _folder_of(config: RunConfig, data_dir: Path) -> Path:
    section = config.forecasters
    folder = forecaster_folder(data_dir, config.market, section.observe)
    cure = f"run `{_command(config, data_dir)}` first"
    if section.weights is not None:
        folder, cure = Path(section.weights), "name its folder in forecasters.weights"
    if not folder.exists():
        raise MissingArtifactError(
            f"forecasters.observe: {section.observe} needs a forecaster of market "
            f"{config.market}, found none at {folder}; {cure}"
        )
    return folder.absolute()


def _command(config: RunConfig, data_dir: Path) -> str:
    """Return the command that trains a market's own forecaster."""
    kind = config.forecasters.observe
    return (
        f"hrl-sarp train-forecaster --model {kind} --panel --data-dir {data_dir} --market "
        f"{config.market} --output {forecaster_folder(data_dir, config.market, kind)}"
    )


def _say_vintage(found: ObservedForecaster, config: RunConfig, end: str | None) -> None:
    """Log what published weights have seen; `end` is that of a training span before it."""
    is_told = config.forecasters.pretrained_until is not None
    source = "as pretrained_until says" if is_told else "by their release, nobody says more"
    told = (
        f"{found.folder}: published weights that may have seen data to {found.fitted_to}, {source}"
    )
    if end is None:
        logger.info(told)
    else:
        logger.warning(f"{told}; training ends {end}, so their forecasts may know what comes after")


def _read(kind: ForecasterKind, folder: str, config: RunConfig) -> ObservedForecaster:
    """Read a forecaster, which may have seen any day."""
    if kind in RULES:
        return ObservedForecaster(kind, RULES[kind](), kind, None, "")
    section = config.forecasters
    if run_of(Path(folder)) is not None and section.pretrained_until is not None:
        raise ConfigError(
            f"forecasters.pretrained_until belongs to published weights, and {folder} is of a run "
            "of train-forecaster, which says itself what it has seen; leave it null"
        )
    loaded = load_forecaster(
        folder,
        tokenizer=None if section.tokenizer is None else Path(section.tokenizer),
        n_paths=section.paths,
        pretrained_until=section.pretrained_until,
    )
    if not isinstance(loaded.forecaster, CLASSES[kind]):
        raise CheckpointError(
            f"{folder}: expected a forecaster of `forecasters.observe: {kind}`, found "
            f"{loaded.forecaster.name}; name another folder, or observe that one"
        )
    seen = str(np.datetime64(str(loaded.vintage.fitted_to), "D"))
    return ObservedForecaster(kind, loaded.forecaster, loaded.vintage.identity, seen, folder)


def table_path(found: ObservedForecaster, market: Market, config: RunConfig, folder: Path) -> Path:
    """Name the table of a forecaster by everything that it depends on.

    Raises:
        MarketError: if the market was not loaded from a data folder.
    """
    sections = {
        "forecaster": found.identity,
        "market": require_hash(market),
        "every": config.forecasters.every,
        "holes": config.encoders.panel.max_missing_sessions,
        "code": source_hash(*CODE),
    }
    return folder / f"{market.name}-{found.kind}-{sha256_plain(sections)[:16]}.npy"


def write_forecasts(found: ObservedForecaster, plan: ForecastPlan, path: Path) -> str:
    """Write the forecasts of a plan, one day after the other, and return the hash of the table.

    Row r holds the r-th day on which any forecast is made; NaN where none is. A killed process is
    continued with the same bytes.
    """
    days = np.flatnonzero(plan.made.any(axis=1))
    shape = len(days), plan.made.shape[1], len(found.names)

    def block(rows: slice) -> Float[np.ndarray, "1 A E"]:
        made = np.full((1, *shape[1:]), np.nan, dtype=np.float32)
        stocks, shown = forecast_day(found.forecaster, plan, int(days[rows][0]))
        made[0, stocks] = shown
        return made

    say_cost(found, plan)
    return write_blocks(path, shape, STORED, 1, block, f"{found.kind} forecasts")


def say_cost(found: ObservedForecaster, plan: ForecastPlan) -> None:
    """Log what the table costs: operations by count, seconds by one day that is timed."""
    made = plan.made
    days = np.flatnonzero(made.any(axis=1))
    n_forecasts, timed = int(made.sum()), int(days[len(days) // 2])
    cost = cost_of(found.forecaster, HORIZONS[-1])
    began = time.perf_counter()
    stocks, _ = forecast_day(found.forecaster, plan, timed)
    seconds = (time.perf_counter() - began) / len(stocks) * n_forecasts
    size = "a rule"
    if cost.parameters:
        size = (
            f"2 x {cost.parameters:,} parameters x {cost.tokens:,} tokens = {cost.flop:.2g} flop "
            f"each, {cost.flop * n_forecasts:.2g} in all"
        )
    logger.info(
        f"{found.kind} forecasts: {n_forecasts:,} on {len(days):,} days; {size}; about "
        f"{seconds / 60:.1f} min by {len(stocks)} that were timed"
    )
