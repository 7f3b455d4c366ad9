"""Public names say what goes in, what comes out and what can go wrong; classes show it."""

from tests.docs.public_surface import missing, public_objects


def test_nothing_public_leaves_anything_unsaid() -> None:
    assert [gap for name, value in public_objects().items() for gap in missing(name, value)] == []


def test_the_front_door_and_the_contracts_are_public() -> None:
    names = set(public_objects())
    assert {"hrl_sarp.backtest", "hrl_sarp.contracts.Market"} <= names
