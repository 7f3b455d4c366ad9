"""Frozen encoders as columns of a market: projection, table on disk, what agents observe."""
