"""Predicts how far price moves over the next candles, beside base rates that need no network."""
