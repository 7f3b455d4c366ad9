"""The five training phases, their order, and the arrays that they learn from."""

from hrl_sarp.market.training_data import TrainingDataLoader
from hrl_sarp.training.curriculum import make_context, run_curriculum, run_phase

__all__ = ["TrainingDataLoader", "make_context", "run_curriculum", "run_phase"]
