"""Forecasters of the small market that train in a second."""

from pathlib import Path

import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.forecasters.training.run import TrainingRequest, train_forecaster
from hrl_sarp.forecasters.training.sources import from_market
from hrl_sarp.observed.forecast_source import forecaster_folder
from hrl_sarp.run.session import StopFlag
from tests.forecasters.training.test_run import TINY, tiny_settings

TINY_FORECASTERS = frozenset(TINY)


def train_small(model: str, data_dir: Path, config: RunConfig) -> Path:
    """Train a forecaster of a small market where the agents look for it."""
    settings = tiny_settings(epochs=1)
    source = from_market(data_dir, config, settings, 0)
    folder = forecaster_folder(data_dir, config.market, model)
    cpu = torch.device("cpu")
    train_forecaster(TrainingRequest(model, source, settings, folder, 0, cpu, 0.0), StopFlag())
    return folder
