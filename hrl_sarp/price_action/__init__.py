"""Supervised tasks on price charts for the encoders, independent of the agents.

`expansions` finds a labelled move inside a window of bars. This is detection, not a forecast.
`buys` predicts whether a buy after a window of candles is worth it, and compares the prediction
with simple baselines. `risk` forecasts how far price moves over the next candles, from the same
windows.
"""
