import socket
import urllib.request

import pytest


def test_connecting_from_a_test_is_refused() -> None:
    with (
        socket.socket() as connection,
        pytest.raises(RuntimeError, match="tried to reach the network"),
    ):
        connection.connect(("127.0.0.1", 9))


def test_fetching_a_page_is_refused_before_any_name_is_looked_up() -> None:
    with pytest.raises(RuntimeError, match=r"tried to reach the network: \(.example\.invalid., 80"):
        urllib.request.urlopen("http://example.invalid/")


def test_files_between_processes_still_work() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"ok")
        assert other.recv(2) == b"ok"
