"""The files of a backtest: ledgers of stocks and of days, and the figures as strict JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import REGIME_NAMES, Market, Trajectory
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.performance import bootstrap_plan, market_rows
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.run.files import sha256_file, write_json, write_table
from hrl_sarp.simulator.trades import BPS

LEDGER_NAME = "ledger.parquet"
DAILY_NAME = "daily.parquet"
METRICS_NAME = "metrics.json"
REPORT_NAME = "report.html"


def stock_ledger(trajectory: Trajectory, market: Market, costs: CostConfig) -> pl.DataFrame:
    """List every stock that a policy wanted, held or traded, one row per session.

    Target and weight (just after the trade) are shares of wealth after costs. Before, traded
    (signed) and cost are shares of wealth just before the trade. The holding earned
    overnight_return on its old weight and intraday_return on its new one; return is both
    compounded.
    """
    target, before = trajectory.target_weights, trajectory.weights_before
    after = trajectory.weights_after
    day, policy, stock = np.nonzero((target != 0) | (before != 0) | (after != 0))
    where = (day, policy, stock)
    kept = 1.0 - trajectory.cost[day, policy]
    traded = after[where] * kept - before[where]
    rows = market_rows(market, trajectory)[day]
    night, session = market.overnight_return[rows, stock], market.intraday_return[rows, stock]
    sectors = np.asarray(market.sector_names)[market.sector_of]
    return pl.DataFrame(
        {
            "date": trajectory.dates[day].astype("datetime64[D]"),
            "policy": _named(np.asarray(trajectory.names), policy),
            "symbol": _named(np.asarray(market.symbols), stock),
            "sector": _named(sectors, stock),
            "target": target[where],
            "before": before[where],
            "traded": traded,
            "cost": _cost_by_stock(trajectory, costs, where, traded),
            "weight": after[where],
            "overnight_return": night.astype(np.float64),
            "intraday_return": session.astype(np.float64),
            "return": (1.0 + night) * (1.0 + session) - 1.0,
        }
    )


def daily_ledger(result: BacktestResult) -> pl.DataFrame:
    """List every policy's session: returns, cost, turnover, wealth, delistings, limits and goal.

    What limits moved is null without orders, the columns of a goal where there is none. Its regime
    probabilities carry the names that the objective gives them.
    """
    trajectory, market = result.main, result.market
    n_days, n_policies = trajectory.net_return.shape
    day, policy = np.divmod(np.arange(n_days * n_policies), n_policies)
    scalars = (
        *("net_return", "gross_return", "cost", "turnover", "wealth", "delisted_value"),
        "moved_by_limits",
    )
    columns: dict[str, Any] = {
        "date": trajectory.dates[day].astype("datetime64[D]"),
        "policy": _named(np.asarray(trajectory.names), policy),
        **{name: getattr(trajectory, name).ravel() for name in scalars},
        "risk_free": market.risk_free[market_rows(market, trajectory)][day].astype(np.float64),
    }
    goals = trajectory.goal.reshape(n_days * n_policies, -1)
    regimes = REGIME_NAMES[result.config.objective.kind]
    names = [f"goal/{name}" for name in (*market.sector_names, "cash", *regimes)]
    columns |= dict(zip(names, goals.T, strict=True))
    return pl.DataFrame(columns).with_columns(pl.col("moved_by_limits", *names).fill_nan(None))


def metrics_document(result: BacktestResult, analysis: Analysis) -> dict[str, Any]:
    """Collect what `metrics.json` holds: where the numbers come from, then the numbers."""
    figures = asdict(analysis)
    headline, own = figures.pop("headline_name"), figures.pop("own_names")
    figures["performances"] = {
        name: {"name": name, **found} for name, found in figures["performances"].items()
    }
    figures["grants"] = {name: found.as_dict() for name, found in analysis.grants.items()}
    return {
        "provenance": provenance(result), **figures, "headline_policy": headline, "policies": own
    }  # fmt: skip


def experiment_hash(config: RunConfig) -> str:
    """Hash the configuration but for its seed: runs that agree in it differ in luck only."""
    return config_hash(config.model_copy(update={"seed": 0}))


def provenance(result: BacktestResult) -> dict[str, Any]:
    """Say what the numbers were computed from."""
    market, split, dates = result.market, result.market.split, result.market.dates
    spans = {
        name: [str(dates[span.start]), str(dates[span.stop - 1])]
        for name, span in (
            ("train", split.train),
            ("validation", split.validation),
            ("test", split.test),
        )
        if len(span)
    }
    return {
        "market": market.name,
        "benchmark": market.benchmark_name,
        "span": result.span_name,
        "first_session": str(result.main.dates[0]),
        "last_session": str(result.main.dates[-1]),
        "sessions": len(result.main.dates),
        "sessions_per_year": market.sessions.year,
        "stocks": market.n_assets,
        "slots": market.n_slots,
        "seed": result.config.seed,
        "trials": result.trials.count,
        "seen_before": None if result.history is None else asdict(result.history),
        "bootstrap": asdict(bootstrap_plan(result.config)),
        "spans": spans,
        "config_hash": config_hash(result.config),
        "experiment_hash": experiment_hash(result.config),
        "data_hash": market.manifest.get("data_hash"),
        "market_hash": market.manifest.get("market_hash"),
        "survivorship": market.manifest.get("survivorship"),
    }


def write_ledgers(result: BacktestResult, analysis: Analysis, out_dir: Path) -> None:
    """Write the two Parquet ledgers and `metrics.json`, each atomically."""
    costs = result.config.market_profile.costs
    write_table(out_dir / LEDGER_NAME, stock_ledger(result.main, result.market, costs))
    write_table(out_dir / DAILY_NAME, daily_ledger(result))
    digest = {"files": {DAILY_NAME: sha256_file(out_dir / DAILY_NAME)}}
    write_json(out_dir / METRICS_NAME, metrics_document(result, analysis) | digest)


def _named(names: np.ndarray, index: np.ndarray) -> pl.Series:
    categories = pl.Enum([str(name) for name in dict.fromkeys(names.tolist())])
    return pl.Series(names[index].astype(str), dtype=categories)


def _cost_by_stock(
    trajectory: Trajectory,
    costs: CostConfig,
    where: tuple[np.ndarray, np.ndarray, np.ndarray],
    traded: np.ndarray,
) -> np.ndarray:
    """Give each stock its commission and slippage, and its share of the impact in proportion."""
    buy = (costs.buy_bps + costs.slippage_bps) * BPS
    sell = (costs.sell_bps + costs.slippage_bps) * BPS
    linear = buy * traded.clip(min=0.0) - sell * traded.clip(max=0.0)
    day, policy, _ = where
    total = np.zeros_like(trajectory.cost)
    np.add.at(total, (day, policy), linear)
    factor = np.divide(trajectory.cost, total, out=np.zeros_like(total), where=total > 0)
    return linear * factor[day, policy]
