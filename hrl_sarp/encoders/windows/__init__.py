"""Windows of bars: their first rows, their splits, and the scale of their columns."""
