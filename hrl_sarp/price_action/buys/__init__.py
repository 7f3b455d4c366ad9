"""Telling buys that are worth it: windows of candles, a transformer, measures, baselines."""
