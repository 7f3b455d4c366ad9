"""Trains the transformer to forecast volatility or range, and sets it beside base rates.

The loss on validation chooses the epoch. The test span is evaluated once, at the end.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.features import candles
from hrl_sarp.fitting import Fitted, History, RunState
from hrl_sarp.price_action.buys.candle_run import BOOTSTRAP, EVALUATED, begin, identity, new_fit
from hrl_sarp.price_action.buys.inputs import CandleInputs
from hrl_sarp.price_action.buys.windows import CandleWindows
from hrl_sarp.price_action.risk.targets import BASES, RiskTarget, base_rates, risk_of
from hrl_sarp.reporting.figure import Panel, convergence_figure, save_png
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.checkpoints import save_payload
from hrl_sarp.run.files import write_json
from hrl_sarp.run.session import StopFlag, derive_seed

MODEL, SCALER = "risk_model.pth", "risk_scaler.json"
RUNNING, RESULTS, FIGURE = "risk_running.pt", "risk_results.json", "risk_convergence.png"
FILES = (RUNNING, MODEL, SCALER, RESULTS, FIGURE)
"""What a run that begins anew removes."""
WRITER = "hrl-sarp finetune-encoder --variant price-action --target"
KIND = "price-action risk"
PEER = "HAR and hour"
"""The base rate that intervals compare the network with."""
RESAMPLES, INTERVAL = 1000, (2.5, 97.5)
"""Bootstrap samples, and percentiles of a 95 % interval."""


class RiskTask:
    """The task of `fitting.Fit` that forecasts a log of risk in deviations of the training span."""

    def __init__(
        self, windows: CandleWindows, config: RunConfig, kind: RiskTarget, device: torch.device
    ) -> None:
        """Make random weights, fit the scaling and compute the targets."""
        self.windows, self.config, self.kind, self.device = windows, config, kind, device
        self.title = f"price action, {kind}"
        self.settings = config.encoders.price_action
        self.inputs = CandleInputs(windows, config, device)
        self.module = self.inputs.network
        self.train_rows = self.inputs.first["train"]
        horizon, border = self.settings.horizon, self.settings.max_missing_in_horizon
        self.risk = risk_of(windows.bars, kind, horizon, border)
        known = self.risk.target[windows.targets("train")]
        self.mean, self.std = float(known.mean()), float(known.std())
        scaled = (self.risk.target - self.mean) / self.std
        self.target = torch.from_numpy(scaled.astype(np.float32)).to(device)

    def loss(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute the mean squared error of a batch, in training deviations."""
        found = self.module(self.inputs.read(rows))
        return functional.mse_loss(found, self.target[rows + self.windows.to_target]), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the same on validation, which chooses the epoch."""
        error = self.forecast("validation") - self.truth("validation")
        loss = float((error / self.std) @ (error / self.std)) / len(error)
        return loss, {"val_loss": loss}

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Say when windows begin, for the message of a run that diverges."""
        return self.inputs.describe(rows)

    def forecast(self, span: str) -> Float[np.ndarray, " W"]:
        """Return the forecast log of each window, in the order of time."""
        return self.mean + self.std * self.inputs.answers(span).double().cpu().numpy()

    def truth(self, span: str) -> Float[np.ndarray, " W"]:
        """Return the log that came about."""
        return self.risk.target[self.windows.targets(span)]


def train_risk(
    windows: CandleWindows,
    config: RunConfig,
    kind: RiskTarget,
    folder: Path,
    device: torch.device,
    stop: StopFlag,
    *,
    resume: bool,
) -> dict[str, Any]:
    """Train, choose the epoch on validation, evaluate both spans beside base rates, write files."""
    task = RiskTask(windows, config, kind, device)
    state = RunState(folder, KIND, _identity(task), resume, file=RUNNING, option="--output")
    done = begin(state, folder / RESULTS, FILES, WRITER, resume=resume)
    if done is not None:
        return done
    fit = new_fit(task, stop, state, partial(_save, task))
    fitted = fit.run()
    _save(task, folder)
    results = _report(task, fitted, fit.history, folder)
    state.finish()
    return results


def skill(forecast: Float[np.ndarray, " W"], truth: Float[np.ndarray, " W"], mean: float) -> float:
    """Compute R2 against a mean that is known before: 1 is exact, 0 no better than the mean."""
    return 1.0 - float(((forecast - truth) ** 2).mean() / ((truth - mean) ** 2).mean())


def skill_interval(
    errors: tuple[Float[np.ndarray, " W"], Float[np.ndarray, " W"]],
    spread: Float[np.ndarray, " W"],
    block: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Bootstrap a 95 % interval of the skill of the first less that of the second.

    Args:
        errors: squared errors of two forecasts of the same windows, in the order of time.
        spread: squared distances of the truth from the mean that skill refers to.
        block: windows of a block, drawn together because neighbours share candles.
        rng: draws them.

    Returns:
        Both ends.
    """
    n_windows = len(spread)
    block = min(block, n_windows)
    n_blocks = -(-n_windows // block)
    starts = rng.integers(0, n_windows - block + 1, size=(RESAMPLES, n_blocks, 1))
    rows = (starts + np.arange(block)).reshape(RESAMPLES, -1)[:, :n_windows]
    gained = (errors[1] - errors[0])[rows].sum(axis=1) / spread[rows].sum(axis=1)
    low, high = np.percentile(gained, INTERVAL)
    return float(low), float(high)


def results_table(results: dict[str, Any]) -> Table:
    """Lay out the skill of the network and of the base rates."""
    spans = results["spans"]
    names = ("network", *BASES)
    rows = [(name, *(f"{spans[s]['skill'][name]:.4f}" for s in EVALUATED)) for name in names]
    for end in ("low", "high"):
        title = f"network - {PEER}, 95 % {end}"
        rows.append((title, *(f"{spans[s][f'gain_{end}']:+.4f}" for s in EVALUATED)))
    title = f"R2 of the log of {results['target']} over the next candles, against the training mean"
    return Table(title, ("forecast", *EVALUATED), rows)


def verdict(results: dict[str, Any]) -> str:
    """Say in one sentence whether the network beats HAR and the hour on the test span."""
    test = results["spans"]["test"]
    numbers = f"R2 {test['skill']['network']:.4f}, {PEER} {test['skill'][PEER]:.4f}"
    if test["gain_low"] > 0.0:
        return f"on the test span the network beats {PEER} ({numbers})"
    if test["gain_high"] < 0.0:
        return f"on the test span the network is worse than {PEER} ({numbers})"
    return f"on the test span the network cannot be told from {PEER} ({numbers})"


def _identity(task: RiskTask) -> dict[str, Any]:
    return {**identity(task), "target": task.kind}


def _save(task: RiskTask, folder: Path) -> None:
    columns = list(candles.COLUMNS)
    weights = {name: weight.detach().cpu() for name, weight in task.module.state_dict().items()}
    payload = {
        "model_state_dict": weights,
        "feature_columns": columns,
        "window_size": task.windows.length,
        "input_dim": len(columns),
        "target": task.kind,
        "target_mean": task.mean,
        "target_std": task.std,
    }
    scaling = task.inputs.scaling
    named = {"feature_columns": columns, "levels": scaling.levels}
    save_payload(folder / MODEL, payload)
    write_json(folder / SCALER, {**scaling.scaler.as_plain(), **named})


def _report(task: RiskTask, fitted: Fitted, history: History, folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {
        "spans": {span: _measures(task, span) for span in EVALUATED},
        "best_epoch": fitted.best_epoch,
        "best_val_loss": fitted.best_loss,
        "epochs_run": fitted.epochs,
        "total_time": sum(fitted.seconds),
        "parameters": sum(weight.numel() for weight in task.module.parameters()),
        **_identity(task),
        "config": task.settings.model_dump(),
        "windows": {span: len(rows) for span, rows in task.inputs.first.items()},
        "dropped": task.windows.dropped,
    }
    results["verdict"] = verdict(results)
    epochs = [row["step"] for row in history.rows]
    losses = {
        name: (epochs, [row[key] for row in history.rows])
        for name, key in (("training", "total_loss"), ("validation", "val_loss"))
    }
    levels = {PEER: 1.0 - results["spans"]["validation"]["skill"][PEER]}
    panel = Panel("squared error over variance", losses, best=fitted.best_epoch, levels=levels)
    save_png(folder / FIGURE, convergence_figure([panel]))
    history.write(folder / RESULTS, results)
    return {**results, "history": history.rows}


def _measures(task: RiskTask, span: str) -> dict[str, Any]:
    truth = task.truth(span)
    forecasts = {"network": task.forecast(span), **base_rates(task.risk, task.windows, span)}
    rng = np.random.default_rng(derive_seed(task.config.seed, BOOTSTRAP))
    # windows stand in the order of time: those of one span of candles are as many as instruments
    block = task.windows.length * len(task.windows.bars.instruments)
    errors = {name: (forecast - truth) ** 2 for name, forecast in forecasts.items()}
    spread = (truth - task.mean) ** 2
    low, high = skill_interval((errors["network"], errors[PEER]), spread, block, rng)
    return {
        "windows": len(truth),
        "skill": {name: skill(found, truth, task.mean) for name, found in forecasts.items()},
        "gain_low": low,
        "gain_high": high,
    }
