"""Trains the transformer to tell buys that are worth it from others, and evaluates it.

The loss on validation chooses the epoch, and the precision on validation the threshold. The test
span is evaluated once, at the end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import TransformerConfig
from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders import transfer
from hrl_sarp.encoders.networks.transformer import PriceActionTransformer
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, DataError
from hrl_sarp.features import candles
from hrl_sarp.fitting import Fitted, History, RunState
from hrl_sarp.price_action.buys import measures, report
from hrl_sarp.price_action.buys.candle_run import BOOTSTRAP, EVALUATED, begin, identity, new_fit
from hrl_sarp.price_action.buys.inputs import CandleInputs
from hrl_sarp.price_action.buys.windows import HOURS, CandleScaling, CandleWindows
from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.checkpoints import load_module, load_plain, save_payload
from hrl_sarp.run.files import read_json, source_hash, write_json
from hrl_sarp.run.session import StopFlag, derive_seed

MODEL, SCALER = "best_model.pth", "scaler.json"
WRITER = "hrl-sarp finetune-encoder --variant price-action"
RUNNING = "price_action_running.pt"
"""State of an unfinished run, for --resume."""
RESULTS, FIGURE = "price_action_results.json", "price_action_convergence.png"
FILES = (RUNNING, MODEL, SCALER, RESULTS, FIGURE)
"""What a run that begins anew removes."""
KIND = "price-action"
HALF = 0.5
"""Threshold of the measures of an epoch."""


@dataclass(frozen=True)
class PriceAction:
    """A trained transformer, with the scaling of its inputs."""

    network: PriceActionTransformer
    scaling: CandleScaling
    window_length: int

    @torch.no_grad()
    def probabilities(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, " B"]:
        """Return the probability that the buy after each window of raw candles is worth it."""
        self.network.eval()
        logits: Tensor = self.network(self.scaling.apply(windows))
        return torch.sigmoid(logits)


def save_price_action(folder: Path, model: PriceAction) -> None:
    """Write `best_model.pth` and `scaler.json`, plain values only."""
    columns = list(candles.COLUMNS)
    state = {name: weight.detach().cpu() for name, weight in model.network.state_dict().items()}
    payload = {
        "model_state_dict": state,
        "feature_columns": columns,
        "window_size": model.window_length,
        "input_dim": len(columns),
    }
    scaling = model.scaling
    levels = {"feature_columns": columns, "levels": scaling.levels}
    save_payload(folder / MODEL, payload)
    write_json(folder / SCALER, {**scaling.scaler.as_plain(), **levels})


def load_price_action(folder: Path, config: TransformerConfig) -> PriceAction:
    """Read what `save_price_action` wrote; other columns or sizes are refused."""
    path, columns = folder / MODEL, list(candles.COLUMNS)
    payload = load_plain(path)
    expected = {"feature_columns": columns, "input_dim": len(columns)}
    expected |= {"window_size": config.window_length}
    _require(path, payload, {"model_state_dict": dict}, expected)
    network = PriceActionTransformer(len(columns), config)
    load_module(path, network, payload["model_state_dict"])
    for name, weight in network.state_dict().items():
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite; train again")
    path = folder / SCALER
    try:
        found = read_json(path, WRITER)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    _require(path, found, {"levels": str}, {"feature_columns": columns})
    if found["levels"] not in ("relative", "raw"):
        raise CheckpointError(
            f"{path}: levels must be relative or raw, found {found['levels']!r}; run `{WRITER}` "
            "again"
        )
    scaler = Scaler.from_plain(found, len(columns), str(path), WRITER)
    scaling = CandleScaling(found["levels"], scaler)
    return PriceAction(network.eval(), scaling, config.window_length)


def _require(path: Path, found: Any, types: Mapping[str, type], values: Mapping[str, Any]) -> None:
    """Refuse anything but a dictionary with entries of these types and values."""
    parts = found if isinstance(found, dict) else {}
    wrong = {
        name: f"a {kind.__name__}"
        for name, kind in types.items()
        if not isinstance(parts.get(name), kind)
    }
    wrong |= {name: str(value) for name, value in values.items() if parts.get(name) != value}
    for name, expected in wrong.items():
        raise CheckpointError(
            f"{path}: {name}: expected {expected}, found {str(parts.get(name, 'nothing'))[:60]}; "
            f"use the configuration of its run or run `{WRITER}` again"
        )


class BuyTask:
    """The task of `fitting.Fit` that tells buys that are worth it from others, in one file.

    Rows are the first rows of windows in the table of candles.
    """

    title = "price action"

    def __init__(self, windows: CandleWindows, config: RunConfig, device: torch.device) -> None:
        """Make random weights, fit the scaling and put all candles on a device."""
        self.windows, self.config, self.device = windows, config, device
        self.settings = config.encoders.price_action
        self.inputs = CandleInputs(windows, config, device)
        self.module = self.inputs.network
        self.label = torch.from_numpy(windows.label.astype(np.float32)).to(device)
        self.train_rows = self.inputs.first["train"]
        rate = float(windows.labels("train").mean())
        self.pos_weight = (1.0 - rate) / rate
        """Weight of a buy in the loss, under which both classes weigh alike."""
        self.criterion = nn.BCEWithLogitsLoss(
            pos_weight=torch.tensor(self.pos_weight, device=device)
        )

    def loss(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute the weighted cross-entropy of a batch, and count its calls."""
        inputs, labels = self.batch(rows)
        logits = self.module(inputs)
        called, buys = logits.detach() >= 0.0, labels > 0.0  # a logit of 0 is one half
        counts = {"hits": called & buys, "right": called == buys, "called": called, "buys": buys}
        means = {name: values.float().mean() for name, values in counts.items()}
        return self.criterion(logits, labels), means

    def summarise(self, terms: dict[str, float]) -> dict[str, float]:
        """Give accuracy and F1 of the training windows, as they were met, for their counts."""
        called_or_buy = terms["called"] + terms["buys"]
        measured = {
            "train_accuracy": terms["right"],
            "train_f1": 2 * terms["hits"] / called_or_buy if called_or_buy else 0.0,
        }
        counts = ("hits", "right", "called", "buys")
        return {**{k: v for k, v in terms.items() if k not in counts}, **measured}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the loss that chooses the epoch, and measures at a threshold of one half."""
        loss, scores = self.evaluate("validation")
        truth = self.windows.labels("validation")
        half = measures.evaluate_calls(scores, truth, HALF)
        return loss, {
            "val_loss": loss,
            "val_pr_auc": measures.pr_auc(scores, truth),
            **{f"val_{name}": half[name] for name in ("accuracy", "precision", "recall", "f1")},
        }

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Say when windows begin, for the message of a run that diverges."""
        return self.inputs.describe(rows)

    def batch(self, rows: Int[Tensor, " B"]) -> tuple[Float[Tensor, "B L F"], Float[Tensor, " B"]]:
        """Return windows as the network reads them, and their labels."""
        return self.inputs.read(rows), self.label[rows + self.windows.to_target]

    @torch.no_grad()
    def evaluate(self, span: str) -> tuple[float, Float[np.ndarray, " W"]]:
        """Return the mean loss, and the probability of each window in the order of time."""
        logits = self.inputs.answers(span)
        loss = float(
            self.criterion(logits, self.label[self.inputs.first[span] + self.windows.to_target])
        )
        return loss, torch.sigmoid(logits).double().cpu().numpy()

    def model(self) -> PriceAction:
        """Put the network and its scaling together."""
        return PriceAction(self.module, self.inputs.scaling, self.windows.length)


def train_price_action(
    windows: CandleWindows,
    config: RunConfig,
    folder: Path,
    device: torch.device,
    stop: StopFlag,
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train, choose epoch and threshold on validation, evaluate both spans, write all files."""
    task = BuyTask(windows, config, device)
    state = RunState(folder, KIND, identity(task), resume, file=RUNNING, option="--output")
    done = begin(state, folder / RESULTS, FILES, WRITER, resume=resume)
    if done is not None:
        return done

    def save(into: Path) -> None:
        save_price_action(into, task.model())

    fit = new_fit(task, stop, state, save)
    fitted = fit.run()
    save_price_action(folder, task.model())
    _export(task, folder)
    results = _report(task, fitted, fit.history, folder)
    state.finish()
    return results


def _report(task: BuyTask, fitted: Fitted, history: History, folder: Path) -> dict[str, Any]:
    scores = {span: task.evaluate(span)[1] for span in EVALUATED}
    truth = {span: task.windows.labels(span) for span in EVALUATED}
    threshold = measures.choose_threshold(
        scores["validation"], truth["validation"], task.settings.min_calls
    )
    spans = {
        span: {
            **_measures(task, scores[span], truth[span], threshold),
            **_peers(task, span, scores[span]),
        }
        for span in EVALUATED
    }
    seconds = sum(fitted.seconds)
    results = {
        "verdict": report.verdict(history.rows, spans),
        "threshold": threshold,
        "spans": spans,
        "best_epoch": fitted.best_epoch,
        "best_val_loss": fitted.best_loss,
        "epochs_run": fitted.epochs,
        "total_time": seconds,
        "windows_per_second": len(task.train_rows) * fitted.epochs / max(seconds, 1e-9),
        "pos_weight": task.pos_weight,
        "parameters": sum(weight.numel() for weight in task.module.parameters()),
        **identity(task),
        "config": task.settings.model_dump(),
        "windows": {span: len(rows) for span, rows in task.inputs.first.items()},
        "dropped": task.windows.dropped,
        "excluded_bars": task.windows.bars.excluded,
        "own_columns": list(task.windows.bars.own),
    }
    curves = {span: measures.pr_curve(scores[span], truth[span]) for span in EVALUATED}
    save_png(folder / FIGURE, report.results_figure(history.rows, spans, curves))
    history.write(folder / RESULTS, results)
    return {**results, "history": history.rows}


def _measures(
    task: BuyTask,
    scores: Float[np.ndarray, " W"],
    truth: Int[np.ndarray, " W"],
    threshold: float,
) -> dict[str, Any]:
    rng = np.random.default_rng(derive_seed(task.config.seed, BOOTSTRAP))
    # windows stand in the order of time: those of one span of candles are as many as instruments
    block = task.windows.length * len(task.windows.bars.instruments)
    low, high = measures.lift_interval(scores, truth, block, rng)
    return {
        "windows": len(truth),
        "pr_auc": measures.pr_auc(scores, truth),
        "lift_low": low,
        "lift_high": high,
        "score_low": float(scores.min()),
        "score_high": float(scores.max()),
        **measures.evaluate_calls(scores, truth, threshold),
        **measures.evaluate_trivial(truth),
        "at_half": measures.evaluate_calls(scores, truth, HALF),
    }


def _peers(task: BuyTask, span: str, scores: Float[np.ndarray, " W"]) -> dict[str, float]:
    """Return the PR-AUCs with which the model is compared.

    Two are of baselines: a logistic regression on each window's last candle, and the training rate
    of buys at the same hour of the day. The third is of the model's scores for falls as large as
    the rise of a buy, which shows whether it tells directions apart.
    """
    windows = task.windows
    train, truth = windows.labels("train"), windows.labels(span)
    last = {name: task.inputs.last_candles(name) for name in ("train", span)}
    linear = measures.linear_scores(last["train"], train, last[span])
    hours, known = (windows.hours(name) for name in (span, "train"))
    rate = np.bincount(known, train, HOURS) / np.maximum(np.bincount(known, minlength=HOURS), 1)
    fall = windows.fall[windows.targets(span)]
    return {
        "linear_pr_auc": measures.pr_auc(linear, truth),
        "hour_pr_auc": measures.pr_auc(rate[hours], truth),
        "fall_rate": float(fall.mean()),
        "fall_pr_auc": measures.pr_auc(scores, fall) if fall.any() else math.nan,
    }


def _export(task: BuyTask, folder: Path) -> None:
    """Write the encoder. It counts as fitted to validation, which chose its epoch."""
    windows, config = task.windows, task.config
    fitted = np.concatenate((windows.first["train"], windows.first["validation"]))
    read = fitted + windows.to_target + task.settings.horizon  # the last bars that labels look at
    scaling = task.inputs.scaling
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
        "code_version": source_hash(*transfer.CODE_FOLDERS, "price_action"),
        "seed": config.seed,
    }
    transfer.export_encoder(folder, task.module.encoder, description)
