"""One undisturbed run of all phases and one whole installation, shared by the tests of these."""

from pathlib import Path

import pytest

from hrl_sarp.training import run_curriculum
from tests.end_to_end import tiny_site
from tests.end_to_end.phase_runs import small_context
from tests.end_to_end.tiny_site import Site
from tests.made_once import made_once


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log folder of a run of all phases that nobody stopped."""
    return made_once(
        tmp_path_factory, "undisturbed", lambda folder: run_curriculum(small_context(folder))
    )


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Site:
    """Configuration, data and logs that no test changes."""
    config = repository / "config"
    return Site(made_once(tmp_path_factory, "site", lambda root: tiny_site.build(root, config)))


@pytest.fixture
def site(whole_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy that a test may damage, read by the command line."""
    copy = whole_site.copy(tmp_path / "site")
    tiny_site.use(copy, monkeypatch)
    return copy
