"""Finds expansions: labels windows of bars, fine-tunes Jade on them and measures the result."""
