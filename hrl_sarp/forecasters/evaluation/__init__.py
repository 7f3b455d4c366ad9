"""What forecasts are worth: measures, baselines, and forecasts from origins that roll on."""

from hrl_sarp.forecasters.evaluation.baselines.statistical import usual_baselines
from hrl_sarp.forecasters.evaluation.comparison import DieboldMariano, diebold_mariano
from hrl_sarp.forecasters.evaluation.plan import RollingPlan, Vintage
from hrl_sarp.forecasters.evaluation.run import evaluate
from hrl_sarp.forecasters.evaluation.summary import Evaluation, Group

__all__ = [
    "DieboldMariano",
    "Evaluation",
    "Group",
    "RollingPlan",
    "Vintage",
    "diebold_mariano",
    "evaluate",
    "usual_baselines",
]
