"""Walk-forward: expanding folds over years, trained and tested one after the other."""

from hrl_sarp.studies.walk_forward.cells import WalkForward
from hrl_sarp.studies.walk_forward.folds import Fold, Recipe
from hrl_sarp.studies.walk_forward.report import summarise

__all__ = ["Fold", "Recipe", "WalkForward", "summarise"]
