"""The bundled sample, assembled once in a process: pages and examples ask for it many times."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market

DEPENDS_ON = {
    *("market", "market_profile", "data", "objective", "risk_model", "encoders", "forecasters")
}
"""Sections of a configuration that make its market."""


@pytest.fixture(scope="session", autouse=True)
def _one_sample() -> Iterator[None]:
    # not imported above: the package must be imported after the run-time checks are set up
    from hrl_sarp.envs import gym_env
    from hrl_sarp.market import cache

    made: dict[str, Market] = {}
    assemble = cache.bundled_sample

    def remembered(config: "RunConfig") -> "Market":
        key = config.model_dump_json(include=DEPENDS_ON)
        if key not in made:
            made[key] = assemble(config)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "bundled_sample", remembered)
        patch.setattr(gym_env, "bundled_sample", remembered)
        yield
