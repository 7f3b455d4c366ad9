"""Windows per second of Jade's pretraining beside a bare nn.LSTM loop, in one process.

The bare loop does nothing but forward, squared error, backward and AdamW step on one batch that
never changes: no masks, no gather, no clipping, no baselines. Ours is the whole of `pretrain`:
masks drawn, batches gathered, loss on hidden bars, clipping, losses watched. On CUDA both compute
in bfloat16 and the device's utilisation is shown. Run: `python -m benchmarks.jade`. Writes
`logs/benchmarks/jade.json`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from benchmarks import timing
from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders.networks.jade import JadeMaskedAutoencoder
from hrl_sarp.encoders.pretrain.rebuilds import HiddenBars
from hrl_sarp.encoders.pretrain.reconstruction import MaskRule, precision
from hrl_sarp.encoders.pretrain.task import PretrainingRun, pretrain
from hrl_sarp.encoders.windows.cut import Windows, WindowTable, fit_scaler
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.session import StopFlag, resolve_device

CONFIG = load_config()
LENGTH, STRIDE = CONFIG.windowed.window_length, CONFIG.windowed.stride
N_FEATURES = len(PRETRAINING_COLUMNS)
REPEATS, TARGET = 3, 0.9
BATCHES = {"cpu": 2, "cuda": 400}
"""Of one call: some seconds of work on either device."""


def window_table(n_windows: int, device: torch.device) -> WindowTable:
    """Return noise in overlapping windows; one window of validation, no test."""
    n_rows = n_windows * STRIDE + 2 * LENGTH
    features = np.random.default_rng(0).normal(size=(n_rows, N_FEATURES)).astype(np.float32)
    starts = np.arange(n_windows) * STRIDE
    last = np.array([n_rows - LENGTH])
    windows = Windows(starts, last, np.array([], dtype=np.int64), length=LENGTH, dropped={})
    scaled = fit_scaler(features, windows).apply(features)
    return WindowTable.place(scaled, windows, device)


def our_loop(data: WindowTable, batch_size: int) -> Callable[[], object]:
    """Return one epoch of `pretrain`, as the command runs it."""
    windowed, settings = CONFIG.windowed, CONFIG.encoders.pretraining
    settings = settings.model_copy(update={"epochs": 1, "batch_size": batch_size})
    rule = MaskRule(
        settings.mask_strategy, windowed.mask_ratio, windowed.warmup_bars, settings.patch_bars
    )
    run = PretrainingRun(
        settings, rule, HiddenBars(PRETRAINING_COLUMNS), 0, World.alone(data.device), StopFlag()
    )
    module = JadeMaskedAutoencoder(N_FEATURES, CONFIG.encoders.jade).to(data.device)
    return lambda: pretrain(module, data, run)


def bare_loop(device: torch.device, batch_size: int, n_batches: int) -> Callable[[], None]:
    """Return forward, backward and step of an nn.LSTM of the same sizes with a linear layer."""
    sizes = CONFIG.encoders.jade
    lstm = nn.LSTM(
        N_FEATURES,
        sizes.hidden,
        sizes.layers,
        batch_first=True,
        bidirectional=True,
        dropout=sizes.dropout,
    ).to(device)
    linear = nn.Linear(2 * sizes.hidden, N_FEATURES).to(device)
    parameters = [*lstm.parameters(), *linear.parameters()]
    optimizer = torch.optim.AdamW(parameters, fused=device.type == "cuda")
    bars = torch.randn(batch_size, LENGTH, N_FEATURES, device=device)

    def train() -> None:
        for _ in range(n_batches):
            with precision(device):
                rebuilt = linear(lstm(bars)[0])
            optimizer.zero_grad()
            (rebuilt.float() - bars).square().mean().backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return train


def main() -> None:
    """Measure and print."""
    device = resolve_device("auto")
    if device.type == "cpu":
        torch.set_num_threads(1)
    batch_size, n_batches = CONFIG.encoders.pretraining.batch_size, BATCHES[device.type]
    n_windows = batch_size * n_batches
    data = window_table(n_windows, device)
    # a single validation window and no test: an epoch is training and little else
    data = replace(data, test=data.test[:0])
    rates = timing.alternate(
        {
            "ours": (our_loop(data, batch_size), n_windows),
            "bare nn.LSTM": (bare_loop(device, batch_size, n_batches), n_windows),
        },
        REPEATS,
    )
    facts = {"device": _device_name(device), "utilisation": _utilisation(device, data, batch_size)}
    ratio = timing.ratio(*rates.values())
    timing.publish("jade", rates, "windows", ratio=ratio, target=TARGET, **facts)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _utilisation(device: torch.device, data: WindowTable, batch_size: int) -> float | None:
    """Return the share of the time in which the GPU computed; None on the CPU."""
    if device.type == "cpu":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = torch.cuda.Event(enable_timing=True)
        ended = torch.cuda.Event(enable_timing=True)
        started.record()
        our_loop(data, batch_size)()
        ended.record()
        torch.cuda.synchronize()
    busy = sum(event.self_device_time_total for event in profile.key_averages())
    return busy / 1e3 / started.elapsed_time(ended)


if __name__ == "__main__":
    main()
