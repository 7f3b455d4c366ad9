"""Windows per second of price-action training beside a bare loop, both in one process.

The bare loop makes the same update of the same module (forward, weighted cross-entropy, backward,
clipping, AdamW) on one batch that is ready in memory; ours also gathers the batch, relates it to
its last close, scales it and looks at the loss.
Run: `python -m benchmarks.transformer`. Writes `logs/benchmarks/transformer.json`.
"""

import numpy as np
import torch
from torch import nn

from benchmarks import timing
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.bars import Bars
from hrl_sarp.price_action.buys.trainer import PriceActionTrainer
from hrl_sarp.price_action.buys.windows import cut_candle_windows

N_CANDLES, UPDATES, REPEATS = 4000, 10, 7
GOAL = 0.9
"""Of the bare loop's rate."""


def drawn_bars() -> Bars:
    """Draw a random walk of 15-minute candles."""
    rng = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(0.003 * rng.normal(size=N_CANDLES)))
    before = np.concatenate([close[:1], close[:-1]])
    step = np.timedelta64(15, "m").astype("timedelta64[us]")
    return Bars(
        timestamps=np.datetime64("2024-01-01", "us") + step * np.arange(N_CANDLES),
        instrument=np.zeros(N_CANDLES, dtype=np.int32),
        instruments=("drawn",),
        open=before,
        high=np.maximum(close, before) * 1.001,
        low=np.minimum(close, before) / 1.001,
        close=close,
        volume=rng.lognormal(size=N_CANDLES),
        content_hash="drawn",
    )


def new_trainer() -> PriceActionTrainer:
    """Return a trainer of the default size over the drawn candles."""
    config = load_config()
    windows = cut_candle_windows(drawn_bars(), config.encoders)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = PriceActionTrainer(windows, config, device)
    trainer.network.train()
    return trainer


def our_updates(trainer: PriceActionTrainer) -> None:
    """Make the updates of a run's first batches."""
    batches = trainer.first["train"].split(trainer.task.batch_size)
    for rows in batches[:UPDATES]:
        trainer.step(rows)


def bare_updates(trainer: PriceActionTrainer) -> None:
    """Make as many updates of the same module on one batch that is ready."""
    network, task = trainer.network, trainer.task
    inputs, labels = trainer.batch(trainer.first["train"][: task.batch_size])
    for _ in range(UPDATES):
        loss = trainer.loss(network(inputs), labels)
        trainer.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), task.max_grad_norm)
        trainer.optimizer.step()
    if inputs.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    ours, bare = new_trainer(), new_trainer()
    units = UPDATES * ours.task.batch_size
    rates = timing.alternate(
        {
            "ours": (lambda: our_updates(ours), units),
            "bare loop of the same module": (lambda: bare_updates(bare), units),
        },
        REPEATS,
    )
    timing.publish("transformer", rates, "windows", ratio=timing.ratio(*rates.values()), goal=GOAL)


if __name__ == "__main__":
    main()
