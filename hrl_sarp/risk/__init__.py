"""Forecasts risk, and makes the classical portfolios and the inputs that agents start from."""

from hrl_sarp.risk.tables import risk_tables

__all__ = ["risk_tables"]
