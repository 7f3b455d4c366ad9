"""Fixtures that every test may ask for; tiny markets are in factories.py."""

import os
import socket
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def _refuse(self: socket.socket, address: object) -> None:
    raise RuntimeError(f"a test tried to reach the network: {address!r}; mark it 'network'")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network") is None:
        monkeypatch.setattr(socket.socket, "connect", _refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", _refuse)


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
