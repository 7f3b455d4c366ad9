"""The market of an env that was made without one: the bundled sample, assembled once."""

from functools import lru_cache

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.graph import with_node_features


@lru_cache(maxsize=1)
def sample_market() -> tuple[Market, RunConfig]:
    """Assemble the sample in memory with raw node features as its sector table."""
    # pandas, numba and the calendars take seconds to import; a run with its own market needs none
    from hrl_sarp.data.sources import sample
    from hrl_sarp.market.assemble import assemble_market

    config = load_config(market="sample")
    market = assemble_market(sample.load(), config)
    return with_node_features(market, config.macro_agent.graph), config
