"""The small market and its encoders, made once."""

from pathlib import Path

import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.market.cache import assembled_market


@pytest.fixture(scope="session")
def panel_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the small market, with encoders of both kinds pretrained beside them."""
    # not imported above: the package must be imported after the run-time checks are set up
    from tests.encoders import panels

    data_dir = panels.write_small_data(tmp_path_factory.mktemp("panel"))
    panels.pretrain_small("jade", data_dir, panels.small_config())
    panels.pretrain_small("transformer", data_dir, panels.small_config())
    return data_dir


@pytest.fixture(scope="session")
def panel_market(panel_data: Path) -> Market:
    """The small market, without embeddings."""
    from tests.encoders import panels

    return assembled_market(panel_data, panels.small_config())
