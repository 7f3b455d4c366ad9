"""Fits networks by gradient descent: one training loop, resumable runs and their history."""

from hrl_sarp.fitting.distributed import World, join_world
from hrl_sarp.fitting.epochs import Epoch
from hrl_sarp.fitting.history import History
from hrl_sarp.fitting.loop import Fit, Fitted, Task
from hrl_sarp.fitting.resume import RunState
from hrl_sarp.fitting.schedule import Schedule

__all__ = [
    "Epoch",
    "Fit",
    "Fitted",
    "History",
    "RunState",
    "Schedule",
    "Task",
    "World",
    "join_world",
]
