"""Trains the transformer to tell buys that are worth it from others, and says how well it does.

Epochs are chosen by the loss on validation, the threshold by precision there; the test span, which
chose nothing, is judged once at the end.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from loguru import logger

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders import transfer
from hrl_sarp.errors import StoppedEarly
from hrl_sarp.features import candles
from hrl_sarp.price_action.buys import measures, report
from hrl_sarp.price_action.buys.files import MODEL, SCALER, save_price_action
from hrl_sarp.price_action.buys.trainer import HALF, PriceActionTrainer
from hrl_sarp.price_action.buys.windows import CandleWindows
from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.files import write_json
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.run.terminal import phase_progress

RUNNING = "price_action_running.pt"
"""State after the last whole epoch, for --resume."""
RESULTS, FIGURE = "price_action_results.json", "price_action_convergence.png"
JUDGED = ("validation", "test")
_BOOTSTRAP_STREAM = 2
_HOURS = 24


@dataclass(frozen=True)
class RunOptions:
    """Where and how to train."""

    folder: Path
    device: torch.device
    resume: bool
    stop: StopFlag


def train_price_action(
    windows: CandleWindows, config: RunConfig, options: RunOptions
) -> dict[str, Any]:
    """Train, choose epoch and threshold on validation, judge both spans, write all files.

    Returns:
        What is written to `price_action_results.json`.

    Raises:
        StoppedEarly: after writing a checkpoint, if a stop was asked for.
        TrainingDivergedError: at the first loss that is not finite.
        CheckpointError: if --resume meets the checkpoint of another run.
    """
    trainer = PriceActionTrainer(windows, config, options.device)
    running = options.folder / RUNNING
    if options.resume and running.is_file():
        trainer.restore(running)
        logger.info(f"continues after epoch {trainer.progress.epoch - 1}")
    else:
        for name in (RUNNING, MODEL, SCALER, RESULTS, FIGURE):
            (options.folder / name).unlink(missing_ok=True)
    _fit(trainer, options)
    trainer.network.load_state_dict(trainer.progress.best_state)
    save_price_action(options.folder, trainer.model())
    _export(trainer, options.folder)
    return _report(trainer, options.folder)


def _fit(trainer: PriceActionTrainer, options: RunOptions) -> None:
    now = trainer.progress
    with phase_progress("price action", trainer.task.epochs, now.epoch) as bar:
        while not trainer.is_finished():
            if options.stop.is_set:
                raise StoppedEarly
            started = time.perf_counter()
            is_best = trainer.close_epoch(trainer.run_epoch())
            now.seconds += time.perf_counter() - started
            if is_best:
                save_price_action(options.folder, trainer.model())
            trainer.save(options.folder / RUNNING)
            bar.update(now.epoch, f"validation loss {now.history[-1]['val_loss']:.4f}")


def _report(trainer: PriceActionTrainer, folder: Path) -> dict[str, Any]:
    scores = {span: trainer.judge(span)[1] for span in JUDGED}
    truth = {span: trainer.windows.labels(span) for span in JUDGED}
    threshold = measures.choose_threshold(
        scores["validation"], truth["validation"], trainer.task.min_calls
    )
    spans = {span: _measures(trainer, scores[span], truth[span], threshold) for span in JUDGED}
    for span in JUDGED:
        spans[span].update(_peers(trainer, span, scores[span]))
    now = trainer.progress
    results = {
        "verdict": report.verdict(now.history, spans),
        "threshold": threshold,
        "spans": spans,
        "best_epoch": now.best_epoch,
        "best_val_loss": now.best_loss,
        "epochs_run": now.epoch,
        "total_time": now.seconds,
        "windows_per_second": len(trainer.first["train"]) * now.epoch / max(now.seconds, 1e-9),
        "pos_weight": trainer.pos_weight,
        "parameters": sum(weight.numel() for weight in trainer.network.parameters()),
        **trainer.identity(),
        "config": trainer.task.model_dump(),
        "windows": {span: len(rows) for span, rows in trainer.windows.first.items()},
        "dropped": trainer.windows.dropped,
        "excluded_bars": trainer.windows.bars.excluded,
        "history": now.history,
    }
    write_json(folder / RESULTS, results)
    curves = {span: measures.pr_curve(scores[span], truth[span]) for span in JUDGED}
    save_png(folder / FIGURE, report.results_figure(now.history, spans, curves))
    return results


def _peers(
    trainer: PriceActionTrainer, span: str, scores: Float[np.ndarray, " W"]
) -> dict[str, float]:
    """Return PR-AUCs that say what the model adds, and whether it knows more than when to look.

    Of a logistic regression on each window's last candle; of the training rate of buys at the same
    hour of the day; and of the model's own scores against falls as large as the rise of a buy.
    """
    windows = trainer.windows
    train, truth = windows.labels("train"), windows.labels(span)
    linear = measures.linear_scores(
        trainer.last_candles("train"), train, trainer.last_candles(span)
    )
    hours, known = (_hours(windows, name) for name in (span, "train"))
    rate = np.bincount(known, train, _HOURS) / np.maximum(np.bincount(known, minlength=_HOURS), 1)
    fall = windows.fall[windows.targets(span)]
    return {
        "linear_pr_auc": measures.pr_auc(linear, truth),
        "hour_pr_auc": measures.pr_auc(rate[hours], truth),
        "fall_rate": float(fall.mean()),
        "fall_pr_auc": measures.pr_auc(scores, fall) if fall.any() else math.nan,
    }


def _hours(windows: CandleWindows, span: str) -> Int[np.ndarray, " W"]:
    times = windows.bars.timestamps[windows.targets(span)]
    return times.astype("datetime64[h]").astype(np.int64) % _HOURS


def _measures(
    trainer: PriceActionTrainer,
    scores: Float[np.ndarray, " W"],
    truth: Int[np.ndarray, " W"],
    threshold: float,
) -> dict[str, Any]:
    rng = np.random.default_rng(derive_seed(trainer.config.seed, _BOOTSTRAP_STREAM))
    # windows stand in the order of time: those of one span of candles are as many as instruments
    block = trainer.windows.length * len(trainer.windows.bars.instruments)
    low, high = measures.lift_interval(scores, truth, block, rng)
    return {
        "windows": len(truth),
        "pr_auc": measures.pr_auc(scores, truth),
        "lift_low": low,
        "lift_high": high,
        "score_low": float(scores.min()),
        "score_high": float(scores.max()),
        **asdict(measures.judge_calls(scores, truth, threshold)),
        **asdict(measures.judge_trivial(truth)),
        "at_half": asdict(measures.judge_calls(scores, truth, HALF)),
    }


def _export(trainer: PriceActionTrainer, folder: Path) -> None:
    """Write the encoder; validation chose its epoch, so it is fitted up to the last label there."""
    windows, config = trainer.windows, trainer.config
    fitted = np.concatenate((windows.first["train"], windows.first["validation"]))
    read = fitted + windows.to_target + trainer.task.horizon  # the last bars that labels look at
    scaling = trainer.scaling
    description = {
        "kind": "transformer",
        "n_features": len(candles.COLUMNS),
        "columns": list(candles.COLUMNS),
        "window_length": windows.length,
        "sizes": config.encoders.transformer.model_dump(),
        "scaler": scaling.scaler.as_plain(),
        "levels": scaling.levels,
        "fitted_from": str(windows.bars.timestamps[fitted].min()),
        "fitted_to": str(windows.bars.timestamps[read].max()),
        "data_hash": windows.bars.content_hash,
        "config_hash": config_hash(config),
        "code_version": transfer.code_version(),
        "seed": config.seed,
    }
    transfer.export_encoder(folder, trainer.network.encoder, description)
