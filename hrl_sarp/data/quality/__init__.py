"""Checks of raw data: rules for bars, rules for series, and the report of their findings."""
