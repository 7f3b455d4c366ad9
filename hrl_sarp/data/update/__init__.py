"""Brings collected data up to date: what is new is appended, what changed is named."""

GOING_ON = ("files", "yahoo")
"""Sources that have new days; the others are made once."""
