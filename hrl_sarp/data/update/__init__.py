"""Brings collected data up to date: what is new is appended, what changed is named."""
