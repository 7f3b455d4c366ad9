"""Raw market data: their sources, their storage and their checks."""
