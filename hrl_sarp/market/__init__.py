"""Point-in-time assembly of the market: calendar, universe, returns, rates, features, splits."""

from hrl_sarp.market.cache import load_market

__all__ = ["load_market"]
