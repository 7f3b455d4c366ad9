"""How pretraining is run and what it comes to: settings, processes, stored states, results."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hrl_sarp.config.encoder_schema import PretrainingConfig
from hrl_sarp.encoders.pretrain.masking import MaskRule
from hrl_sarp.encoders.pretrain.reconstruction import Errors, best_baseline
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.session import StopFlag

MODEL = "model"
"""Name of the trained module beside the baselines."""


@runtime_checkable
class Store(Protocol):
    """Where states and checkpoints are kept."""

    @property
    def state_file(self) -> Path:
        """What `load` reads, for messages."""
        ...

    def load(self) -> dict[str, Any] | None:
        """Return the state to continue from, None to begin anew."""
        ...

    def save_latest(self, payload: dict[str, Any]) -> None:
        """Keep the state to continue from."""
        ...

    def save_epoch(
        self, payload: dict[str, Any], val_losses: list[float], *, is_best: bool
    ) -> None:
        """Keep a finished epoch, given the validation losses of all epochs so far."""
        ...


@dataclass(frozen=True)
class PretrainingRun:
    """How to train; nothing in it says on what."""

    config: PretrainingConfig
    rule: MaskRule
    seed: int
    world: World
    stop: StopFlag
    store: Store | None
    """None keeps nothing: a run that is stopped is lost then."""


@dataclass(frozen=True)
class PretrainingResult:
    """What training came to; the module holds the weights of the best epoch."""

    best_val_loss: float
    best_epoch: int
    train_metrics: list[dict[str, float]]
    """Per epoch."""
    val_metrics: list[dict[str, float]]
    validation: dict[str, Errors]
    """Of the model and of each baseline, on the same hidden bars."""
    test: dict[str, Errors]
    """Likewise; empty without test windows."""
    seconds: float
    """Spent training; the parts of a resumed run added up."""

    @property
    def judged(self) -> dict[str, Errors]:
        """Errors on the test split, or on validation where there is no test."""
        return self.test or self.validation

    @property
    def beats_baselines(self) -> bool:
        """Whether the model's loss is below that of the best baseline."""
        return self.judged[MODEL].loss < self.judged[best_baseline(self.judged)].loss


def learning_rate(epoch: int, config: PretrainingConfig) -> float:
    """Return the learning rate of an epoch: a linear rise, then a cosine down to its last share."""
    if epoch < config.warmup_epochs:
        return config.learning_rate * (epoch + 1) / config.warmup_epochs
    done = (epoch - config.warmup_epochs + 1) / (config.epochs - config.warmup_epochs)
    low = config.final_learning_rate_share
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))
