"""What chart readers mark in price action, taught to encoders: a product beside the agents.

`expansions` finds a marked move inside a window of bars: detection, no forecast. `buys` says
whether a buy after a window of candles is worth it, and compares that with what needs no network.
"""
