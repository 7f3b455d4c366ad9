"""Assembles the market from raw data, point in time: universe, rates, splits, tensors."""

from hrl_sarp.market.cache import assembled_market

__all__ = ["assembled_market"]
