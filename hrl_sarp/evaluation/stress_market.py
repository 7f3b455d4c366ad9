"""Markets for hypothetical shocks: the world stops on a day, then only the scenario happens.

Rows up to the day are the real ones. Every later row repeats what the day showed (features,
universe, who trades), cash earns nothing, and stocks earn what their sector's shock says. No
feature is rebuilt from shocked prices and no rule estimates anything from them: it rebalances to
what it wanted on the last real day. So a shock tells what holdings and limits lose; how an agent
reads a crisis, only the dated windows can tell.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from hrl_sarp.config.schema import RunConfig, ShockConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import ConfigError
from hrl_sarp.market.tensors import reward_benchmark

REPEATED = (
    "listed",
    "eligible",
    "slots",
    "dollar_volume",
    "stock_features",
    "macro_features",
    "filtered_regime",
    "stock_embeddings",
    "sector_embeddings",
)
"""Tables whose later rows repeat the day on which the world stops."""
EMPTIED = ("overnight_return", "intraday_return", "risk_free", "benchmark_return")
"""Tables whose later rows are 0."""


def frozen_market(market: Market, day: int, n_more: int) -> Market:
    """Cut the market after `day` and append sessions on which nothing happens.

    Stocks that were halted on the day trade again on the next.

    Args:
        market: the real one.
        day: its last row that stays.
        n_more: sessions to append, on the weekdays that follow.
    """
    tables: dict[str, Any] = {
        name: _repeat_last(getattr(market, name)[: day + 1], n_more)
        for name in REPEATED
        if getattr(market, name) is not None
    }
    for name in EMPTIED:
        real = getattr(market, name)[: day + 1]
        tables[name] = np.concatenate([real, np.zeros((n_more, *real.shape[1:]), real.dtype)])
    later = np.busday_offset(market.dates[day], np.arange(1, n_more + 1), roll="backward")
    tables["dates"] = np.concatenate([market.dates[: day + 1], later.astype(market.dates.dtype)])
    fridays = np.is_busday(later, weekmask="Fri")
    tables["is_week_end"] = np.concatenate([market.is_week_end[: day + 1], fridays])
    tables["tradable"] = np.concatenate([market.tradable[: day + 1], tables["listed"][day + 1 :]])
    return replace(market, **tables)


def shocked_market(frozen: Market, day: int, shock: ShockConfig, config: RunConfig) -> Market:
    """Let a shock and its recovery happen after `day` of a frozen market; then nothing again.

    A sector that loses s over n sessions moves by (1 + s)^(1/n) - 1 on each, split between night
    and day by `overnight_share` of the logarithm; its recovery over m sessions undoes it by
    (1 + s)^(-1/m) - 1 a session. A portfolio that holds still loses the sum of weight x s. The
    index, of which no scenario speaks, earns what 1/N of the universe does.

    Args:
        frozen: from `frozen_market`, with room for shock and recovery.
        day: the row after which the world stopped.
        shock: sector returns, length and recovery.
        config: sectors of the shocks, their map, share of the night.

    Raises:
        ConfigError: if the profile names no shock sector for one of the market's sectors.
    """
    closes_only = not frozen.intraday_return.any()
    night_share = 1.0 if closes_only else config.stress.overnight_share
    path = session_log_returns(shock, frozen.sector_names, config)[:, frozen.sector_of]
    rows = slice(day + 1, day + 1 + len(path))
    overnight, intraday = frozen.overnight_return.copy(), frozen.intraday_return.copy()
    overnight[rows] = np.expm1(night_share * path) * frozen.listed[rows]
    intraday[rows] = np.expm1((1 - night_share) * path) * frozen.listed[rows]
    market = replace(frozen, overnight_return=overnight, intraday_return=intraday)
    benchmark = frozen.benchmark_return.copy()
    benchmark[rows] = reward_benchmark(market)[rows]
    return replace(market, benchmark_return=benchmark)


def session_log_returns(
    shock: ShockConfig, sector_names: tuple[str, ...], config: RunConfig
) -> Float[np.ndarray, "D S"]:
    """Return each sector's log return on each session of the shock, then of the recovery."""
    mapped, order = config.market_profile.stress.sectors, config.stress.sectors
    missing = [name for name in sector_names if name not in mapped]
    if missing:
        raise ConfigError(
            f"stress test: market_profile.stress.sectors names no shock sector for "
            f"{', '.join(missing)}; expected one of {', '.join(order)} for each"
        )
    total = np.log1p([shock.sector_returns[order.index(mapped[name])] for name in sector_names])
    falls = np.tile(total / shock.days, (shock.days, 1))
    recovers = np.tile(-total / shock.recovery_days, (shock.recovery_days, 1))
    return np.concatenate([falls, recovers])


def _repeat_last(table: np.ndarray, n_more: int) -> np.ndarray:
    return np.concatenate([table, np.repeat(table[-1:], n_more, axis=0)])
