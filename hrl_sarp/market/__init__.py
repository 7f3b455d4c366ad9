"""Point-in-time assembly of the market: universe, rates, rows and splits, tensors on a device."""

from hrl_sarp.market.cache import assembled_market

__all__ = ["assembled_market"]
