"""The examples in the docstrings of the encoders run and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import hrl_sarp.encoders

MODULES = [
    module.name
    for module in pkgutil.walk_packages(hrl_sarp.encoders.__path__, "hrl_sarp.encoders.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_networks_scaler_and_masks_have_examples() -> None:
    shown = {
        name.removeprefix("hrl_sarp.encoders."): doctest.testmod(importlib.import_module(name))
        for name in MODULES
    }
    counted = {name for name, result in shown.items() if result.attempted}
    expected = {"networks.jade", "networks.transformer", "networks.projection", "windows.scaler"}
    assert expected | {"pretrain.masking", "pretrain.reconstruction"} <= counted
