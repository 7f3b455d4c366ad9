"""Ledgers and chains whose numbers a test makes up."""

import numpy as np

from hrl_sarp.studies.walk_forward.cells import RULES
from hrl_sarp.studies.walk_forward.chain import Chain, Series
from hrl_sarp.studies.walk_forward.folds import Fold
from hrl_sarp.studies.walk_forward.ledger import FRICTIONS, OWN_MEAN, Ledger

CASH = 0.0001


def ledger(
    returns: dict[str, np.ndarray], first: str, exposure: dict[str, float] | None = None
) -> Ledger:
    """Make a ledger of the same returns under all frictions."""
    net = np.stack(list(returns.values()), axis=1)
    dates = np.arange(len(net)) + np.datetime64(first)
    shares = np.array([(exposure or {}).get(name, 1.0) for name in returns])
    stacked = np.stack([net] * len(FRICTIONS))
    whole = np.ones_like(stacked)
    return Ledger(
        names=tuple(returns),
        dates=dates,
        risk_free=np.full(len(net), CASH),
        net_return=stacked,
        cost=0.001 * whole,
        turnover=0.01 * whole,
        invested=shares * whole,
        asked=shares * whole,
        objective={},
        frictions=FRICTIONS,
        distance={rule: np.full(net.shape, 0.2) for rule in (*RULES, OWN_MEAN)},
    )


def series(net: np.ndarray, first: str = "2005-01-03") -> Series:
    """Make the series of one fold from (D,) or (D, K) returns."""
    columns = net.reshape(len(net), -1)
    return Series(
        dates=np.arange(len(net)) + np.datetime64(first),
        risk_free=np.full(len(net), CASH),
        fold=np.zeros(len(net), dtype=int),
        net=columns,
        invested=np.ones_like(columns),
        turnover=np.full_like(columns, 0.01),
        cost=np.full_like(columns, 0.001),
        sessions_per_year=252,
    )


def chain(
    market: str, own: float, n_folds: int = 2, n_days: int = 300, seed: int = 0, late: float = 1.0
) -> Chain:
    """Make a chain in which the agent's deviation is `own` times that of 1/N on the same days.

    The agent and 1/N at its exposure have an exposure of 0.5 and the prior one of 1, at returns
    that are twice as large: at equal exposure the prior is 1/N at the same exposure.
    """
    rng = np.random.default_rng(seed)
    folds, baselines, seeds, ensembles = [], [], [], []
    for number in range(n_folds):
        first = f"{2005 + number}-01-03"
        excess = rng.normal(0.0004, 0.01, n_days)
        even = CASH + excess
        half = CASH + 0.5 * excess
        agent = CASH + 0.5 * (0.0004 + own * (excess - 0.0004))
        pairs = {"prior": even, "phase 1": agent, "macro alone": agent, "micro alone": even}
        exposure = {"phase 1": 0.5, "macro alone": 0.5, "1/N, same exposure": 0.5}
        folds.append(Fold(market, 2005 + number, 2005 + number))
        baselines.append(ledger({"1/N": even, "calm": CASH + 0.1 * excess}, first))
        seeds.append(tuple(ledger(pairs, first, exposure) for _ in range(2)))
        ensembles.append(ledger({**pairs, "1/N, same exposure": half}, first, exposure))
    return Chain(tuple(folds), tuple(baselines), tuple(seeds), tuple(ensembles), 252)
