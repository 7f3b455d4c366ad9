"""Fixtures that every test may ask for; tiny markets are in factories.py."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import jaxtyping
import pytest
from hypothesis import settings

from tests.checked_shapes import check_each_kind_once, keep_compiled_libraries

check_each_kind_once()
keep_compiled_libraries()

# Read when torch and matplotlib are first imported. One thread is faster on arrays this small, and
# there may be no screen.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# A busy machine is no bug (deadline), and a failure must come back in the next run (derandomize).
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

REPOSITORY = Path(__file__).resolve().parents[1]
TRIAL_LOG = "HRL_SARP_TRIAL_LOG"
LONG_RUNS = (
    *("docs", "end_to_end", "learning", "own_inputs", "price_action", "scripts", "training"),
    "test_front_door.py",
)
"""Folders and files whose tests train or run commands. Other folders hold the shapes inside."""
LONGEST = (
    *("learning", "end_to_end", "training", "studies", "scripts", "notebooks"),
    "test_wheel.py",
)
"""Folders and files that hold tests of half a minute, or that would come last, as they begin.

What starts processes of its own comes after tests that have compiled the kernels. Two files that
share a folder of `made_once` do not begin together: one would wait for the other.
"""


# Started in the background of a script, Ctrl-C is ignored, here and in every child; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the order below under `--dist loadfile`, too, which would begin with the most tests."""
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist is there
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left alone with one of them."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    parts = item.path.parts
    return next((turn for turn, name in enumerate(LONGEST) if name in parts), len(LONGEST))


class _LocalSocket(socket.socket):
    """A socket that reaches other processes of this machine by file only."""

    def connect(self, address: object) -> None:
        if self.family != socket.AF_UNIX:
            _refuse(address)
        super().connect(address)

    def connect_ex(self, address: object) -> int:
        if self.family != socket.AF_UNIX:
            _refuse(address)
        return super().connect_ex(address)


def _refuse(address: object, *_: object, **__: object) -> NoReturn:
    raise RuntimeError(f"a test tried to reach the network: {address!r}; mark it 'network'")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(socket, "socket", _LocalSocket)
        monkeypatch.setattr(socket, "create_connection", _refuse)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Give every test one thread, whatever the test before it has configured."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _checked_shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check shapes and types at run time, but not in long runs, which take half as long again.

    Session fixtures are made before this one, so that a whole run of all phases is checked.
    """
    folder = request.path.relative_to(REPOSITORY / "tests").parts[0]
    jaxtyping.config.update("jaxtyping_disable", "1" if folder in LONG_RUNS else "0")
    yield
    jaxtyping.config.update("jaxtyping_disable", "0")


@pytest.fixture(scope="session", autouse=True)
def _project_trial_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the trials of session fixtures out of the log of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRIAL_LOG, str(tmp_path_factory.mktemp("session") / "trials.jsonl"))
        yield


@pytest.fixture(autouse=True)
def _trial_log(_project_trial_log: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a trial log of its own."""
    monkeypatch.setenv(TRIAL_LOG, str(tmp_path / ".trials" / "trials.jsonl"))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process; returns exit code, stdout and stderr."""
    # not imported above: the package must be imported after the run-time checks are set up
    from tests.command_line import make_command

    return make_command(monkeypatch, capfd)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real market data, if this machine has them."""
    folder = Path(os.environ.get("HRL_SARP_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: set HRL_SARP_DATA to a folder that holds them")
    return folder
