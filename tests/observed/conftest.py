"""The small market with tiny forecasters trained on its training span, made once."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the small market, with its own Toto and Kronos beside them; not to be changed."""
    # not imported above: the package must be imported after the run-time checks are set up
    from hrl_sarp.forecasters.training.run import TrainingRequest, train_forecaster
    from hrl_sarp.forecasters.training.sources import from_market
    from hrl_sarp.observed.forecast_source import forecaster_folder
    from hrl_sarp.run.session import StopFlag
    from tests.encoders import panels
    from tests.forecasters.training.test_run import tiny_settings

    found = panels.write_small_data(tmp_path_factory.mktemp("observed"))
    settings = tiny_settings(epochs=1)
    source = from_market(found, panels.small_config(), settings, 0)
    for model in ("toto", "kronos"):
        folder = forecaster_folder(found, "us", model)
        cpu = torch.device("cpu")
        train_forecaster(TrainingRequest(model, source, settings, folder, 0, cpu, 0.0), StopFlag())
    return found
