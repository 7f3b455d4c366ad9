"""The same daily task in other libraries: portfolio-days per second, and whether wealth agrees.

The task is one year of 30 or 100 stocks, traded at every close to drawn weights at 10 basis points.
vectorbt and bt are given the shares that our simulator reaches, because they size orders before
costs; they book prices, fees and cash on their own, and wealth has to agree to 1e-9. The envs of
FinRL trade whole shares, those of gym-trading-env and TorchTrade one instrument: only their speed
is compared. What cannot be imported is named with the reason. Into an environment of its own, as
some of them replace NumPy:

    python3.11 -m venv peers && peers/bin/pip install -c constraints.txt -e '.[dev]' && \
        for name in vectorbt bt gym-trading-env tensortrade torchtrade finrl; \
        do peers/bin/pip install $name; done

Run: `peers/bin/python -m benchmarks.peers`. Writes `logs/benchmarks/peers.json`.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, metadata
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks import cases, timing
from hrl_sarp.envs import MicroEnv, PortfolioVecEnv, make_level, make_starts
from hrl_sarp.simulator import PortfolioSimulator
from tests import factories

N_DAYS, BATCH, N_ENVS, REPEATS = 252, 1024, 8, 3
SIZES = (30, 100)
RATE = 1e-3
"""Cost of a trade, per side."""
CAPITAL, AGREEMENT = 1e6, 1e-9

Peer = tuple[Callable[[], object], int]
"""What to run, and how many portfolio-days that is."""


@dataclass(frozen=True)
class Task:
    """Closes of A stocks and the weights to hold from each close on."""

    prices: np.ndarray
    """(T, A)."""
    targets: np.ndarray
    """(T, A), shares of wealth after costs; nothing is traded at the first close."""
    rate: float

    def simulator(self, n_envs: int) -> PortfolioSimulator:
        """Return our simulator in float64 at the first close."""
        moves = np.ones_like(self.prices)
        moves[1:] = self.prices[1:] / self.prices[:-1]
        market = factories.market_with(moves - 1, 0 * moves, np.arange(moves.shape[1]) % 10)
        bps = 1e4 * self.rate
        costs = factories.cost_config(buy_bps=bps, sell_bps=bps, slippage_bps=0.0)
        risk = factories.risk_config(sector_cap=1.0)
        return PortfolioSimulator(market, costs, risk, n_envs, torch.float64)

    def run(self, simulator: PortfolioSimulator) -> tuple[np.ndarray, np.ndarray]:
        """Return wealth (T,) and shares (T, A) of the first portfolio after every close."""
        n_envs = simulator.n_envs
        simulator.reset(torch.zeros(n_envs, dtype=torch.int64))
        wealth, shares = np.ones(len(self.prices)), np.zeros_like(self.prices)
        for day in range(1, len(self.prices)):
            target = torch.as_tensor(self.targets[day]).expand(n_envs, -1)
            simulator.step(target)
            wealth[day] = simulator.state.wealth[0].item()
            weights = simulator.state.weights[0].numpy()
            shares[day] = CAPITAL * wealth[day] * weights / self.prices[day]
        return CAPITAL * wealth, shares

    @cached_property
    def ours(self) -> tuple[np.ndarray, np.ndarray]:
        """Wealth and shares of our simulator."""
        return self.run(self.simulator(1))

    def table(self, values: np.ndarray) -> pd.DataFrame:
        """Return values (T, A) with days and names."""
        days = pd.date_range("2020-01-01", periods=len(values), freq="D")
        return pd.DataFrame(values, index=days, columns=[f"S{i}" for i in range(values.shape[1])])


def draw_task(n_stocks: int, rate: float = RATE) -> Task:
    """Draw prices and weights; a tenth of wealth or more is left in cash."""
    rng = np.random.default_rng(n_stocks)
    prices = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (N_DAYS, n_stocks)), axis=0))
    return Task(prices, 0.9 * rng.dirichlet(np.ones(n_stocks), N_DAYS), rate)


def vectorbt_wealth(vectorbt: ModuleType, task: Task) -> np.ndarray:
    """Return wealth (T,) by vectorbt."""
    book = vectorbt.Portfolio.from_orders(
        task.table(task.prices),
        size=task.table(task.ours[1]),
        size_type="targetamount",
        fees=task.rate,
        init_cash=CAPITAL,
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        freq="D",
    )
    return np.asarray(book.value())


def bt_wealth(bt: ModuleType, task: Task) -> np.ndarray:
    """Return wealth (T,) by bt."""
    shares = task.table(np.diff(task.ours[1], axis=0, prepend=0.0))

    class Trade(bt.Algo):
        def __call__(self, target: Any) -> bool:
            for name, amount in shares.loc[target.now].items():
                if amount:
                    target.transact(amount, child=name)
            return True

    prices = task.table(task.prices)
    strategy = bt.Strategy("task", [bt.algos.RunAfterDays(0), Trade()], list(prices.columns))
    test = bt.Backtest(
        strategy,
        prices,
        initial_capital=CAPITAL,
        commissions=lambda quantity, price: abs(quantity) * price * task.rate,
        integer_positions=False,
        progress_bar=False,
    )
    test.run()
    return np.asarray(test.strategy.values)[-len(prices) :]


BOOKS: dict[str, Callable[[ModuleType, Task], np.ndarray]] = {
    "vectorbt": vectorbt_wealth,
    "bt": bt_wealth,
}
"""Libraries that can express the task to the last share."""


def finrl_steps(_: ModuleType | None, task: Task) -> Peer:
    """Return a year of FinRL's env of stocks, loaded alone: its package imports brokers."""
    found = find_spec("finrl")
    places = [] if found is None else found.submodule_search_locations or []
    path = Path(places[0]) / "meta" / "env_stock_trading" / "env_stocktrading.py"
    spec = spec_from_file_location("finrl_stocks", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    n_days, n_stocks = task.prices.shape
    days = np.repeat(np.arange(n_days), n_stocks)
    rows = {"tic": [f"S{i}" for i in range(n_stocks)] * n_days, "date": days.astype(str)}
    close = task.prices.ravel()
    prices = pd.DataFrame({**rows, "close": close, "indicator": close}, index=days)
    env = module.StockTradingEnv(
        prices,
        stock_dim=n_stocks,
        hmax=100,
        initial_amount=int(CAPITAL),
        num_stock_shares=[0] * n_stocks,
        buy_cost_pct=[task.rate] * n_stocks,
        sell_cost_pct=[task.rate] * n_stocks,
        reward_scaling=1.0,
        state_space=1 + 3 * n_stocks,
        action_space=n_stocks,
        tech_indicator_list=["indicator"],
        print_verbosity=10**9,
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (n_days, n_stocks))
    return one_episode(env, list(actions)), n_days - 2


def one_stock_steps(module: ModuleType, task: Task) -> Peer:
    """Return a year of gym-trading-env with the first stock."""
    close = task.prices[:, 0]
    table = pd.DataFrame({"close": close, "open": close, "high": close, "low": close})
    table.index = pd.date_range("2020-01-01", periods=len(close), freq="D")
    table["feature_close"] = table["close"].pct_change().fillna(0.0)
    with warnings.catch_warnings():  # the module turns all warnings into errors
        environments = import_module(f"{module.__name__}.environments")
    env = environments.TradingEnv(
        table, positions=[0.0, 0.5, 1.0], trading_fees=task.rate, verbose=0
    )
    choices = np.random.default_rng(0).integers(0, 3, len(close)).tolist()
    return one_episode(env, choices), len(close) - 2


def one_episode(env: Any, actions: list[Any]) -> Callable[[], object]:
    """Return steps of a Gymnasium env from its reset to the day before its last."""

    def run() -> None:
        env.reset()
        for action in actions[:-2]:
            env.step(action)

    return run


def torchtrade_steps(module: ModuleType, task: Task) -> Peer:
    """Return steps of a batch of TorchTrade's vectorised env with the first stock."""
    offline = import_module(f"{module.__name__}.envs.offline.vectorized_sequential")
    close = task.prices[:, 0]
    table = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close))
    table["volume"] = 1.0
    table.insert(0, "timestamp", pd.date_range("2020-01-01", periods=len(close), freq="D"))
    settings = offline.VectorizedSequentialTradingEnvConfig(
        num_envs=BATCH,
        time_frames="1Day",
        window_sizes=10,
        execute_on="1Day",
        transaction_fee=task.rate,
    )
    env = offline.VectorizedSequentialTradingEnv(table, settings)
    n_steps = 20

    def run() -> None:
        state = env.reset()
        for _ in range(n_steps):
            state = env.step(env.rand_action(state))["next"]

    return run, BATCH * n_steps


STEPS: dict[str, Callable[[Any, Task], Peer]] = {
    "finrl": finrl_steps,
    "gym_trading_env": one_stock_steps,
    "torchtrade": torchtrade_steps,
}
"""Envs of other libraries, of which only the speed compares."""
NAMED = ("tensortrade",)
"""Libraries that are asked for and have had no version that installs beside ours."""


def importable() -> tuple[dict[str, ModuleType | None], dict[str, str]]:
    """Return the modules that there are, and why the others are not."""
    found: dict[str, ModuleType | None] = {}
    reasons = {}
    for name in (*BOOKS, *STEPS, *NAMED):
        try:
            found[name] = None if name == "finrl" and find_spec(name) else import_module(name)
        except ImportError as error:
            reasons[name] = str(error)
    return found, reasons


def our_loops() -> dict[str, timing.Case]:
    """Return SB3's loop over single envs beside one batch of as many, both with our micro level."""
    config, tensors = cases.configuration(), cases.tensors(N_DAYS)
    loop = DummyVecEnv([lambda: MicroEnv(tensors, config)] * N_ENVS)
    level = make_level(tensors, config, "micro", N_ENVS)
    batch = PortfolioVecEnv(level, make_starts(tensors, config, "micro", None), form="full")
    n_steps, actions = 20, np.full((N_ENVS, tensors.n_slots), 0.01, dtype=np.float32)

    def steps(env: Any) -> Callable[[], object]:
        env.reset()
        return lambda: [env.step(actions) for _ in range(n_steps)]

    return {
        f"ours, PortfolioVecEnv of {N_ENVS}": (steps(batch), n_steps * N_ENVS),
        f"ours in SB3's DummyVecEnv of {N_ENVS}": (steps(loop), n_steps * N_ENVS),
    }


def differences(found: dict[str, ModuleType | None]) -> dict[str, float]:
    """Return the largest relative difference of wealth, with costs and without."""
    largest = {}
    for name in BOOKS.keys() & found.keys():
        for n_stocks in SIZES:
            for rate in (0.0, RATE):
                task = draw_task(n_stocks, rate)
                wealth = BOOKS[name](found[name], task)
                apart = np.abs(wealth / task.ours[0] - 1).max()
                largest[f"{name}, {n_stocks} stocks, {1e4 * rate:.0f} bps"] = float(apart)
    return largest


def main() -> None:
    """Measure and print."""
    found, reasons = importable()
    apart = differences(found)
    measured: dict[str, timing.Case] = our_loops()
    for n_stocks in SIZES:
        task = draw_task(n_stocks)
        for n_envs in (1, BATCH):
            simulator = task.simulator(n_envs)
            run = _quiet(lambda task=task, simulator=simulator: task.run(simulator))
            name = f"ours, {n_stocks} stocks, {n_envs} at once"
            measured[name] = (run, n_envs * (N_DAYS - 1))
        for name in (name for name in BOOKS if name in found):
            book, module = BOOKS[name], found[name]
            run = _quiet(lambda book=book, module=module, task=task: book(module, task))
            measured[f"{name}, {n_stocks} stocks"] = (run, N_DAYS - 1)
        for name in (name for name in STEPS if name in found):
            if name == "finrl" or n_stocks == SIZES[0]:
                run, days = STEPS[name](found[name], task)
                size = n_stocks if name == "finrl" else 1
                measured[f"{name}, {size} stocks"] = (_quiet(run), days)
    rates = timing.alternate(measured, REPEATS)
    versions = {name: metadata.version(name.replace("_", "-")) for name in found}
    facts = {"versions": versions, "not_importable": reasons, "wealth_apart": apart}
    timing.publish("peers", rates, "portfolio-days", **facts)
    if wrong := [name for name, value in apart.items() if not value <= AGREEMENT]:
        raise SystemExit(f"wealth is apart by more than {AGREEMENT}: {', '.join(wrong)}")


def _quiet(run: Callable[[], object]) -> Callable[[], object]:
    def silent() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()

    return silent


if __name__ == "__main__":
    main()
