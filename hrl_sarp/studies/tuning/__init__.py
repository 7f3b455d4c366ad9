"""Tuning: trials of values of the configuration, compared inside training and validation.

The modules that import Optuna, which is an extra, are imported by the command alone.
"""

SEARCH, TRIALS, PAGE = "search.json", "trials.json", "tune.html"
"""In the folder of a search: what it is about, what its trials have come to, and the page on it."""
