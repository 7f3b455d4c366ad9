"""Tables with known answers for pretraining, and a small encoder that learns them in seconds."""

from collections.abc import Callable

import numpy as np
import torch

from hrl_sarp.config.encoder_schema import JadeConfig, PretrainingConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders.networks.jade import JadeMaskedAutoencoder
from hrl_sarp.encoders.pretrain.rebuilds import HiddenBars, Rebuild
from hrl_sarp.encoders.pretrain.reconstruction import MaskRule
from hrl_sarp.encoders.pretrain.task import Keep, PretrainingRun
from hrl_sarp.encoders.windows.cut import Windows, WindowTable, fit_scaler
from hrl_sarp.fitting import RunState, World
from hrl_sarp.run.session import StopFlag

LENGTH, FEATURES = 20, 3
CPU = torch.device("cpu")
RULE = MaskRule("random", ratio=0.25, warmup_bars=4, patch_bars=3)
"""Hides 4 of 20 bars."""


class StopAfter(StopFlag):
    """Asks for a stop when it has been read this many times."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads_left = reads

    @property
    def is_set(self) -> bool:
        self.reads_left -= 1
        return self.reads_left < 0


def settings(**changes: object) -> PretrainingConfig:
    """Return the project's settings with changes."""
    return load_config().encoders.pretraining.model_copy(update=changes)


def run(
    config: PretrainingConfig,
    *,
    rule: MaskRule = RULE,
    rebuild: Rebuild | None = None,
    world: World | None = None,
    stop: StopFlag | None = None,
    state: RunState | None = None,
    keep: Keep | None = None,
) -> PretrainingRun:
    alone, never = World.alone(CPU), StopFlag()
    columns = HiddenBars(tuple("abc"))
    return PretrainingRun(
        *(config, rule, rebuild or columns, 17, world or alone, stop or never), state, keep
    )


def small_jade(
    n_features: int = FEATURES, dropout: float = 0.1, hidden: int = 12
) -> JadeMaskedAutoencoder:
    """Return a fresh autoencoder, the same each time."""
    torch.manual_seed(5)
    return JadeMaskedAutoencoder(n_features, JadeConfig(hidden=hidden, layers=2, dropout=dropout))


def windows_of(n_rows: int, train: int, validation: int, test: int) -> Windows:
    """Cut windows that do not overlap, in this order."""
    starts = np.arange(train + validation + test) * LENGTH
    assert n_rows >= len(starts) * LENGTH
    parts = np.split(starts, [train, train + validation])
    return Windows(*parts, length=LENGTH, dropped={})


def table(
    values: Callable[[np.random.Generator, int], np.ndarray],
    train: int = 64,
    validation: int = 64,
    test: int = 64,
) -> WindowTable:
    """Draw a table and cut it into windows."""
    n_rows = (train + validation + test) * LENGTH
    drawn = values(np.random.default_rng(0), n_rows).astype(np.float32)
    windows = windows_of(n_rows, train, validation, test)
    return WindowTable.place(fit_scaler(drawn, windows).apply(drawn), windows, CPU)


def noise(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """Independent normal values: the mean is the best rebuild there is."""
    return rng.normal(size=(n_rows, FEATURES))


def autoregressive(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """AR(1) with coefficient 0.9: a value is nearly told by its neighbours."""
    values = rng.normal(size=(n_rows, FEATURES))
    for t in range(1, n_rows):
        values[t] = 0.9 * values[t - 1] + np.sqrt(1 - 0.81) * values[t]
    return values
