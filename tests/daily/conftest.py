"""A small run, trained on a history that goes on: shared by the tests of daily decisions."""

import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.config.loading import DAILY, DEFAULT_CONFIG_DIR, load_apart
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.daily.market import Today, TrainedRun, read_today
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import RawData, write_raw
from hrl_sarp.encoders.stock_embeddings import EMBEDDINGS, OBSERVED
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.observed.stocks import with_stock_embeddings
from hrl_sarp.run.session import StopFlag
from hrl_sarp.training import make_context, run_phase
from tests.encoders.panels import SMALL_ENCODERS, pretrain_small
from tests.made_once import made_once
from tests.observed.small import TINY_FORECASTERS, train_small
from tests.raw_data import random_raw, sessions, small_config
from tests.tiny_runs import TINY, changed, unchecked

N_DAYS, HISTORY_DAYS = 700, 640
SETTINGS = load_apart(DEFAULT_CONFIG_DIR / DAILY, DailyConfig, "the settings")
QUIET = SETTINGS.model_copy(
    update={
        "max_missing_share": 0.5,
        "max_stale_sessions": 10**5,
        "drift": SETTINGS.drift.model_copy(update={"least_psi": 9.0, "max_market_share": 1.0}),
    }
)
"""Two years of training are too few to tell drift from chance, one of 12 stocks is more than the
usual share already, and the data end years ago: only another unit of prices is refused."""


@dataclass(frozen=True)
class Site:
    """A trained run, the data that it saw, and all data."""

    run_dir: Path
    history: Path
    whole: Path
    raw: RawData
    config: RunConfig

    def today(self, day: date | None = None, data_dir: Path | None = None) -> Today:
        """Return the market at the close of a day, cut from all data."""
        run = TrainedRun.read(self.run_dir)
        return read_today(run, data_dir or self.whole, SETTINGS, day)

    @property
    def later_days(self) -> list[date]:
        """Sessions after the data of the run."""
        return [day.item() for day in sessions(N_DAYS)[HISTORY_DAYS:]]


def make_site(
    folder: Path, observe: str = "none", forecasts: str = "none", shows: str = "embeddings"
) -> Site:
    """Train phases 1 and 2 on the first sessions of a random market.

    Encoders and forecasters that the agents observe are trained on the same sessions; their tables
    lie beside all data, too.
    """
    site = site_in(folder, observe, forecasts, shows)
    history, whole, config = site.history, site.whole, site.config
    write_raw(as_of(site.raw, sessions(N_DAYS)[HISTORY_DAYS - 1].item()), history)
    write_raw(site.raw, whole)
    device = torch.device("cpu")
    with unchecked():
        for kind in OBSERVED[observe]:
            pretrain_small(kind, history, config)
        if forecasts in TINY_FORECASTERS:
            train_small(forecasts, history, config)
        market = with_stock_embeddings(assembled_market(history, config), history, config, device)
        context = make_context(config, market, site.run_dir, device, StopFlag(), resume=False)
        for number in (1, 2):
            run_phase(number, context)
    if (observe, forecasts) != ("none", "none"):
        shutil.copytree(history.parent / EMBEDDINGS, whole.parent / EMBEDDINGS)
    return site


def site_in(
    folder: Path, observe: str = "none", forecasts: str = "none", shows: str = "embeddings"
) -> Site:
    """Describe the site that `make_site` leaves in a folder."""
    raw = random_raw(np.random.default_rng(4), N_DAYS)
    config = changed(small_config("us", N_DAYS), TINY)
    config = changed(config, {"encoders": {**SMALL_ENCODERS, "observe": observe, "shows": shows}})
    config = changed(config, {"forecasters": {"observe": forecasts, "paths": 4}})
    history, whole = folder / "history" / "raw", folder / "whole" / "raw"
    return Site(folder / "run", history, whole, raw, config)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run that a test must not change."""
    made = made_once(tmp_path_factory, "daily", make_site)
    copy = tmp_path_factory.mktemp("daily")  # commands keep their caches beside the data
    shutil.copytree(made, copy, dirs_exist_ok=True)
    return site_in(copy)
