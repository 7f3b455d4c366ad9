"""One undisturbed run of all phases, shared by the tests that compare with it."""

from pathlib import Path

import pytest

from hrl_sarp.training import run_curriculum
from tests.end_to_end.phase_runs import small_context


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log folder of a run of all phases that nobody stopped."""
    log_dir = tmp_path_factory.mktemp("undisturbed")
    run_curriculum(small_context(log_dir))
    return log_dir
