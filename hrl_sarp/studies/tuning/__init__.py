"""Tuning: trials of values of the configuration, compared inside training and validation.

The modules that import Optuna, which is an extra, are imported by the command alone.
"""
