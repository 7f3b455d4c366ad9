"""The small market with tiny forecasters trained on its training span, made once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the small market, with its own Toto and Kronos beside them; not to be changed."""
    # not imported above: the package must be imported after the run-time checks are set up
    from tests.encoders import panels
    from tests.observed.small import train_small

    found = panels.write_small_data(tmp_path_factory.mktemp("observed"))
    for model in ("toto", "kronos"):
        train_small(model, found, panels.small_config())
    return found
