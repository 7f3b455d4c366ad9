"""Predicts which buys are worth it: windows of candles, a transformer, measures, baselines."""
