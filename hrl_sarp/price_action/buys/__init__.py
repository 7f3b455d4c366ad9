"""Telling buys that are worth it: windows of candles, a transformer, and an honest judgement."""
