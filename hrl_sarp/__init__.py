"""HRL-SARP: hierarchical reinforcement learning for sector-aware, risk-adaptive portfolios."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: spinning OpenMP threads cost up to 70x on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market

__all__ = ["load_market"]


def load_market(
    data_dir: Path | str, market: str = "sample", config: "RunConfig | None" = None
) -> "Market":
    """Assemble the market of a collected data folder, or take it from the cache beside it.

    It carries the embeddings that `encoders.observe` of the configuration names.

    Args:
        data_dir: `data/raw` as written by collect-data.
        market: profile of `config/markets/`, used where no configuration is given.
        config: run configuration; it names its own market.
    """
    # torch, numba and the exchange calendars load here, so that `import hrl_sarp` is instant
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.encoders.embed.stock_embeddings import with_stock_embeddings
    from hrl_sarp.market.cache import assembled_market
    from hrl_sarp.run.session import resolve_device

    folder, chosen = Path(data_dir), config or load_config(market=market)
    assembled = assembled_market(folder, chosen)
    return with_stock_embeddings(assembled, folder, chosen, resolve_device("auto"))
