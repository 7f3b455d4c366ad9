"""Windows per second of price-action training beside a bare loop, both in one process.

The bare loop makes the same update of the same module (forward, weighted cross-entropy, backward,
clipping, AdamW) on one batch that is ready in memory; ours also gathers the batch, relates it to
its last close, scales it, looks at the loss and counts gradients.
Run: `python -m benchmarks.transformer`. Writes `logs/benchmarks/transformer.json`.
"""

import torch
from torch import nn

from benchmarks import timing
from hrl_sarp.config.loading import load_config
from hrl_sarp.fitting import Fit
from hrl_sarp.price_action.buys.candle_run import new_fit
from hrl_sarp.price_action.buys.training import BuyTask
from hrl_sarp.price_action.buys.windows import cut_candle_windows
from hrl_sarp.run.session import StopFlag
from hrl_sarp.run.terminal import PhaseBar
from tests.price_action.buys.candle_factories import noise_bars

N_CANDLES, UPDATES, REPEATS = 4000, 10, 7
GOAL = 0.9
"""Of the bare loop's rate."""


def new_run() -> tuple[Fit, BuyTask]:
    """Return a run of the default size over a random walk of candles, and its task."""
    config = load_config()
    windows = cut_candle_windows(noise_bars(N_CANDLES), config.encoders)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = BuyTask(windows, config, device)
    task.train_rows = task.train_rows[: UPDATES * task.settings.batch_size]
    return new_fit(task, StopFlag()), task


def our_epoch(run: Fit) -> None:
    """Make the updates of an epoch, without its validation."""
    run._run_epoch(PhaseBar.silent())
    run.progress.batch = 0


def bare_epoch(run: Fit, task: BuyTask) -> None:
    """Make as many updates of the same module on one batch that is ready."""
    inputs, labels = task.batch(task.train_rows[: run.batch_size])
    task.module.train()
    for _ in range(run.n_batches):
        loss = task.criterion(task.module(inputs), labels)
        run.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(task.module.parameters(), run.schedule.max_grad_norm)
        run.optimizer.step()
    if inputs.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    ours, (bare, task) = new_run()[0], new_run()
    units = ours.n_batches * ours.batch_size
    rates = timing.alternate(
        {
            "ours": (lambda: our_epoch(ours), units),
            "bare loop of the same module": (lambda: bare_epoch(bare, task), units),
        },
        REPEATS,
    )
    timing.publish("transformer", rates, "windows", ratio=timing.ratio(*rates.values()), goal=GOAL)


if __name__ == "__main__":
    main()
