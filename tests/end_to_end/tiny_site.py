"""A folder that holds all a user has: configuration, raw data, market cache and logs, all tiny."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from hrl_sarp.config import loading
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.store import write_raw
from hrl_sarp.errors import StoppedEarly
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.run.session import configure_threads
from hrl_sarp.training import make_context, run_phase
from tests import raw_data
from tests.end_to_end.phase_runs import SMALL, StopAfter
from tests.tiny_runs import TINY

EXPERIMENT = "tiny"
N_DAYS = 700
UNFINISHED_PHASE = 3

Values = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """One such folder."""

    root: Path

    @property
    def config_dir(self) -> Path:
        """Copy of `config/` with the experiment `tiny`."""
        return self.root / "config"

    @property
    def raw(self) -> Path:
        """Collected data."""
        return self.root / "data" / "raw"

    @property
    def log_dir(self) -> Path:
        """Logs with phases 1 and 2 finished and phase 3 stopped."""
        return self.root / "logs"

    @property
    def folders(self) -> list[str]:
        """The options that name the folders."""
        return ["--data-dir", str(self.raw), "--log-dir", str(self.log_dir)]

    def experiment(self, name: str, values: Values | str) -> None:
        """Write an experiment: the values of `tiny` with some replaced, or any text."""
        path = self.config_dir / "experiments" / f"{name}.yaml"
        if isinstance(values, str):
            path.write_text(values)
        else:
            tiny = yaml.safe_load((path.parent / f"{EXPERIMENT}.yaml").read_text())
            path.write_text(yaml.safe_dump(merged(tiny, values)))

    def config(self) -> RunConfig:
        """Load the experiment `tiny`."""
        return load_config(self.config_dir, experiment=EXPERIMENT)

    def content(self) -> dict[str, str]:
        """Return every path with a hash of its content."""
        return {str(path.relative_to(self.root)): _digest(path) for path in self.root.rglob("*")}

    def copy(self, root: Path) -> "Site":
        """Copy everything."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Site(root)


def merged(below: Values, above: Values) -> Values:
    """Lay values over others, mapping by mapping."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = merged(below[key], above[key])
    return both


def build(root: Path, market: Path) -> Site:
    """Make a site whose phases 1 and 2 have finished and whose phase 3 was stopped.

    Args:
        root: an empty folder.
        market: the repository's configuration folder.
    """
    site = collected(root, market)
    train(site)
    return site


def collected(root: Path, market: Path) -> Site:
    """Make a site with configuration and raw data, and without logs; arguments as in `build`."""
    site = Site(root)
    shutil.copytree(market, site.config_dir)
    profile = raw_data.small_config("us", N_DAYS).market_profile
    kept = {"sectors", "universe", "spans"}
    values = merged(merged(TINY, SMALL), {"market": "us"})
    values["macro_agent"]["ppo"]["envs_per_group"] = 2  # of 4
    values["market_profile"] = profile.model_dump(include=kept)
    values["evaluation"] = {
        "baselines": ["equal_weight", "inverse_volatility"],  # optimised ones take seconds
        "bootstrap_samples": 20,
        "random_portfolios": 2,
    }
    text = yaml.safe_dump(values)
    (site.config_dir / "experiments" / f"{EXPERIMENT}.yaml").write_text(text)
    write_raw(raw_data.random_raw(np.random.default_rng(0), N_DAYS), site.raw)
    return site


def train(site: Site) -> None:
    """Finish phases 1 and 2 and stop phase 3 at its second checkpoint."""
    config = site.config()
    configure_threads(config.threads)
    market = assembled_market(site.raw, config)
    device = torch.device("cpu")
    for number in range(1, UNFINISHED_PHASE + 1):
        stop = StopAfter(2 if number == UNFINISHED_PHASE else 10**6)
        try:
            run_phase(
                number, make_context(config, market, site.log_dir, device, stop, resume=False)
            )
        except StoppedEarly:
            assert number == UNFINISHED_PHASE


def collect_closes_only(site: Site) -> None:
    """Replace the raw data by closes alone, as the bundled sample has them."""
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    write_raw(raw_data.closes_only(raw), site.raw)


def collect_without_sector(site: Site) -> None:
    """Take the first symbol out of the table of sectors."""
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    write_raw(replace(raw, sectors=raw.sectors.slice(1)), site.raw)


def price_files(site: Site) -> Path:
    """Write the user's own files: prices.csv and sectors.csv of three symbols."""
    folder = site.root / "input"
    folder.mkdir()
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    chosen = raw.sectors["symbol"][:3]
    raw.bars.filter(pl.col("symbol").is_in(chosen.implode())).write_csv(folder / "prices.csv")
    raw.sectors.filter(pl.col("symbol").is_in(chosen.implode())).write_csv(folder / "sectors.csv")
    return folder


def use(site: Site, monkeypatch: Any) -> None:
    """Let the command line read the site's configuration."""

    def load(**options: Any) -> RunConfig:
        return load_config(site.config_dir, **options)

    monkeypatch.setattr(loading, "load_config", load)


def _digest(path: Path) -> str:
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
