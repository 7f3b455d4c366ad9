"""The sector embeddings that phase 1 writes, as a file that belongs to one market and span."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hrl_sarp.contracts import Market
from hrl_sarp.errors import CheckpointError
from hrl_sarp.fitting.resume import MARKET_FACTS, name_difference
from hrl_sarp.run.checkpoints import load_payload, restoring, save_payload

SECTOR_TABLE = "sector table"
"""`kind` of the file."""
WRITER = "hrl-sarp train --phase 1"


def market_fingerprint(market: Market) -> str:
    """Hash the market data that agents and checkpoints depend on, without sector embeddings."""
    digest = hashlib.sha256(repr((market.symbols, market.sector_names, market.split)).encode())
    digest.update(market.embeddings_hash.encode())
    tables = (market.dates, market.slots, market.overnight_return, market.intraday_return)
    for table in (*tables, market.stock_features, market.macro_features, market.filtered_regime):
        digest.update(table.tobytes())
    if market.risk is not None:
        for field in fields(market.risk):
            part = getattr(market.risk, field.name)
            digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def market_facts(market: Market) -> dict[str, Any]:
    """Return what tells a market from another one in words: a checkpoint holds it for messages.

    Returns:
        Name -> plain value. Markets that agree in all may still differ in single values.
    """
    train = market.dates[market.split.train.start : market.split.train.stop]
    return {
        "profile": market.name,
        "days": f"{market.dates[0]} to {market.dates[-1]}",
        "stocks": ", ".join(market.symbols),
        "sectors": ", ".join(market.sector_names),
        "training span": f"{train[0]} to {train[-1]}",
        "stock features": ", ".join(market.feature_names),
        "market features": ", ".join(market.macro_names),
        "series": ", ".join(
            f"{name} from {series}" for name, series in market.manifest.get("series", {}).items()
        ),
    }


@dataclass(frozen=True)
class Origin:
    """What a run was trained on, as far as later data must continue it.

    Examples:
        >>> Origin({"profile": "us"}, {}, "", np.array(["2024-01-02"], "datetime64[D]")).last_day
        datetime.date(2024, 1, 2)
    """

    facts: dict[str, Any]
    """Of `market_facts`."""
    spans: dict[str, list[str]]
    """First and last day of each span as it was asked for; empty where no data were collected."""
    data_hash: str
    """Of the raw files; empty where no data were collected."""
    dates: Shaped[np.ndarray, " T"]
    """Sessions of its market, datetime64[D]."""
    observed: Mapping[str, Any] | None = None
    """What embeds and forecasts for its agents; None where they observe neither, or the run did not
    keep it."""

    @property
    def last_day(self) -> date:
        """Last session of the run's market."""
        day: date = self.dates[-1].item()
        return day


def write_sector_table(
    path: Path,
    market: Market,
    fingerprint: str,
    table: Float[np.ndarray, "T S E"],
    network: Mapping[str, Tensor] | None = None,
    observed: Mapping[str, Any] | None = None,
) -> Path:
    """Write the embeddings with the span they were fitted on, and the fingerprint of the data.

    `network` are the weights of the graph network that made them, from which days to come get
    theirs; None where no network did. `observed` embeds and forecasts what stands in the market's
    stock embeddings.
    """
    train = market.split.train
    payload = {
        "kind": SECTOR_TABLE,
        "identity": {"market": fingerprint, MARKET_FACTS: market_facts(market)},
        "fitted_rows": [train.start, train.stop],
        "table": torch.from_numpy(table),
        "network": None if network is None else dict(network),
        "encoders": None if observed is None else dict(observed),
        "dates": torch.from_numpy(market.dates.astype("datetime64[D]").astype(np.int64)),
        "spans": market.manifest.get("asked_spans", {}),
        "data_hash": market.manifest.get("data_hash", ""),
    }
    return save_payload(path, payload)


def read_origin(path: Path) -> Origin:
    """Read what the run of a sector table was trained on.

    Raises:
        MissingArtifactError: if there is no file.
        CheckpointError: if it is damaged, or was written by a version that did not keep it.
    """
    payload = _payload(path)
    _require_network(path, payload)
    with restoring(path):
        return Origin(
            facts=dict(payload["identity"][MARKET_FACTS]),
            spans=dict(payload["spans"]),
            data_hash=str(payload["data_hash"]),
            dates=payload["dates"].numpy().astype("datetime64[D]"),
            observed=payload.get("encoders"),  # files of earlier versions have none
        )


def read_graph(
    path: Path,
) -> tuple[Shaped[np.ndarray, " T"], Float[np.ndarray, "T S E"], dict[str, Tensor]]:
    """Read the sessions of a sector table, the table, and the weights of its network.

    Raises:
        MissingArtifactError: if there is no file.
        CheckpointError: if it is damaged, or holds no network.
    """
    payload = _payload(path)
    _require_network(path, payload)
    with restoring(path):
        dates = payload["dates"].numpy().astype("datetime64[D]")
        return dates, payload["table"].numpy(), dict(payload["network"])


def _require_network(path: Path, payload: Mapping[str, Any]) -> None:
    if payload.get("network") is None:
        raise CheckpointError(
            f"{path} holds no graph network, so that days after its training have no sector table: "
            f"expected a run of this version; run `{WRITER}` and the phases after it again"
        )


def read_sector_table(path: Path, market: Market, fingerprint: str) -> Float[np.ndarray, "T S E"]:
    """Read the embeddings of a market with this fingerprint.

    Raises:
        MissingArtifactError: if there is no file.
        CheckpointError: if it is damaged, of other data, or was fitted past this training span.
    """
    payload = _payload(path)
    with restoring(path):
        last, table = payload["fitted_rows"][1], payload["table"].numpy()
    if payload["identity"]["market"] != fingerprint:
        facts = payload["identity"].get(MARKET_FACTS, {})
        raise CheckpointError(
            f"{path} belongs to another market ({name_difference(facts, market_facts(market))}): "
            f"run `{WRITER}` again, or give the options of its run"
        )
    if last > market.split.train.stop:
        raise CheckpointError(
            f"{path} was fitted on rows to {last}, past the training span's end "
            f"{market.split.train.stop}: it has seen the future of this fold",
            has_seen_future=True,
        )
    return table


def is_of_market(path: Path, fingerprint: str) -> bool:
    """Say whether a file holds the embeddings of the data with this fingerprint.

    Raises:
        CheckpointError: if the file is damaged.
    """
    return bool(_payload(path)["identity"]["market"] == fingerprint)


def _payload(path: Path) -> dict[str, Any]:
    payload = load_payload(path)
    if payload["kind"] != SECTOR_TABLE:
        raise CheckpointError(
            f"{path}: expected a {SECTOR_TABLE}, found {payload['kind']}: run `{WRITER}` again"
        )
    return payload
