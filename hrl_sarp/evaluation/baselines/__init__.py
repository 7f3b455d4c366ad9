"""Baselines: simple rules that a method should beat net of costs."""

from hrl_sarp.evaluation.baselines.risk import make_constant_exposure
from hrl_sarp.evaluation.baselines.rules import (
    EQUAL_WEIGHT,
    RULES,
    make_baselines,
    make_random_portfolios,
)
from hrl_sarp.evaluation.baselines.schedule import ScheduledPolicy

__all__ = [
    "EQUAL_WEIGHT",
    "RULES",
    "ScheduledPolicy",
    "make_baselines",
    "make_constant_exposure",
    "make_random_portfolios",
]
