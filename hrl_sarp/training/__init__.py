"""The five phases, their order, and the arrays they learn from."""

from hrl_sarp.training.curriculum import make_context, run_curriculum, run_phase
from hrl_sarp.training.data_loader import TrainingDataLoader

__all__ = ["TrainingDataLoader", "make_context", "run_curriculum", "run_phase"]
