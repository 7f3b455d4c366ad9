import socket

import pytest


def test_connecting_from_a_test_is_refused() -> None:
    with (
        socket.socket() as connection,
        pytest.raises(RuntimeError, match="tried to reach the network"),
    ):
        connection.connect(("127.0.0.1", 9))
