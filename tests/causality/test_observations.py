"""Whatever happens after day t, what both agents see and do at its close stays the same."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import Market, RiskTables
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.market.tensors import MarketTensors
from tests import factories, tiny_runs

TABLES = (
    "overnight_return",
    "intraday_return",
    "tradable",
    "listed",
    "eligible",
    "slots",
    "risk_free",
    "benchmark_return",
    "dollar_volume",
    "stock_features",
    "macro_features",
    "filtered_regime",
    "sector_embeddings",
)
"""Everything but the calendar, which is published ahead."""


def with_another_future(market: Market, other: Market, t: int) -> Market:
    """Take all rows after t from another market."""
    return replace(
        market,
        **{
            name: np.concatenate([getattr(market, name)[: t + 1], getattr(other, name)[t + 1 :]])
            for name in TABLES
        },
        risk=joined(market.risk, other.risk, t),
    )


def joined(before: RiskTables | None, after: RiskTables | None, t: int) -> RiskTables:
    """Take the rows of all risk tables after t from another market."""
    assert before is not None
    assert after is not None
    pairs = {f.name: (getattr(before, f.name), getattr(after, f.name)) for f in fields(before)}
    return replace(
        before,
        **{
            name: np.concatenate([first[: t + 1], second[t + 1 :]])
            for name, (first, second) in pairs.items()
            if isinstance(first, np.ndarray)
        },
    )


def with_permuted_risk(market: Market, t: int) -> Market:
    """Shuffle the rows of all risk tables after t."""
    order = np.arange(market.n_days)
    np.random.default_rng(4).shuffle(order[t + 1 :])
    assert market.risk is not None
    tables = {f.name: getattr(market.risk, f.name) for f in fields(market.risk)}
    permuted = {n: v[order] for n, v in tables.items() if isinstance(v, np.ndarray)}
    return replace(market, risk=replace(market.risk, **permuted))


def with_permuted_returns(market: Market, t: int) -> Market:
    """Shuffle the rows of returns after t."""
    order = np.arange(market.n_days)
    np.random.default_rng(3).shuffle(order[t + 1 :])
    names = ("overnight_return", "intraday_return", "benchmark_return")
    return replace(market, **{name: getattr(market, name)[order] for name in names})


@pytest.fixture(scope="module")
def market() -> Market:
    return drawn(seed=1)


def drawn(seed: int) -> Market:
    market = tiny_runs.with_nodes(tiny_runs.tiny_market(seed=seed, delistings=False))
    return factories.with_risk(market, seed)


@pytest.mark.parametrize("change", ["other future", "permuted returns", "permuted risk"])
@pytest.mark.parametrize(("level", "t"), [("macro", 69), ("micro", 69), ("micro", 71)])
def test_observations_and_actions_ignore_the_future(
    market: Market, level: str, t: int, change: str
) -> None:
    # row 69 is a Friday, row 71 a Tuesday
    future = {
        "other future": with_another_future(market, drawn(seed=2), t),
        "permuted risk": with_permuted_risk(market, t),
        "permuted returns": with_permuted_returns(market, t),
    }[change]
    first, second = seen_until(market, level, t), seen_until(future, level, t)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name] == second[name], name


def seen_until(market: Market, level: str, t: int) -> dict[str, bytes]:
    """Trade from row 49 to t and return all that is seen and decided there, as bytes."""
    tensors, config = MarketTensors(market, torch.float64, "cpu"), tiny_runs.tiny_config()
    made = make_level(tensors, config, level, 3)
    env = PortfolioVecEnv(made, make_starts(tensors, config, level, None))
    made.reset(torch.tensor([49, 49, 49]), torch.ones(3, dtype=torch.bool))
    made.horizon = 1000
    rng = np.random.default_rng(0)
    while int(made.clocks.day[0]) < t:
        env.step(rng.random((3, env.action_space.shape[0])).astype(np.float32))
    assert int(made.clocks.day[0]) == t
    index, full = env._numpy(made.observe("index")), env._numpy(made.observe("full"))
    agents = {"macro": tiny_runs.macro_agent, "micro": tiny_runs.micro_agent}
    action = agents[level](tensors, config).act(index)
    seen: dict[str, Any] = {f"index {name}": value for name, value in index.items()}
    seen |= full if isinstance(full, dict) else {"full": full}
    seen["action"] = action
    seen["wealth"] = made.clocks.simulator.state.wealth.numpy()
    seen["classical portfolio's returns"] = tensors.prior_return[: t + 1].numpy()
    return {name: np.ascontiguousarray(value).tobytes() for name, value in seen.items()}


def test_the_control_sees_another_past(market: Market) -> None:
    # the comparison above is not blind: one return of row t itself shows
    overnight = market.overnight_return.copy()
    overnight[69] += 0.01 * market.tradable[69]
    first = seen_until(market, "micro", 69)
    second = seen_until(replace(market, overnight_return=overnight), "micro", 69)
    assert first["index portfolio"] != second["index portfolio"]


@pytest.mark.parametrize("level", ["macro", "micro"])
def test_the_control_sees_the_risk_tables(market: Market, level: str) -> None:
    first, second = (
        seen_until(market, level, 69),
        seen_until(with_permuted_risk(market, 67), level, 69),
    )
    assert first["action"] != second["action"]
