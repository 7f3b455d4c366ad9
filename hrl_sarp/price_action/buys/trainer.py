"""One run of the price-action transformer: its state, an epoch, a judgement, its checkpoint."""

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.networks.transformer import PriceActionTransformer
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.errors import CheckpointError, TrainingDivergedError
from hrl_sarp.features import candles
from hrl_sarp.price_action.buys import measures
from hrl_sarp.price_action.buys.files import MODEL, PriceAction
from hrl_sarp.price_action.buys.windows import CandleWindows, fit_scaling
from hrl_sarp.run.checkpoints import load_payload, restore_rng, restoring, rng_state, save_payload
from hrl_sarp.run.session import derive_seed, seed_everything

HALF = 0.5
"""Threshold of the measures of an epoch."""
_KIND = "price-action"
_JUDGED_AT_ONCE = 128
"""Windows in memory while a span is judged; more do not fit into a processor's cache."""
_ORDER_STREAM = 1


@dataclass
class Progress:
    """Where a run stands between two epochs."""

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    best_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class PriceActionTrainer:
    """One run over the windows of one file."""

    def __init__(self, windows: CandleWindows, config: RunConfig, device: torch.device) -> None:
        self.windows, self.config, self.device = windows, config, device
        self.task = config.encoders.price_action
        seed_everything(config.seed)
        self.network = PriceActionTransformer(len(candles.COLUMNS), config.encoders.transformer).to(
            device
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.task.learning_rate,
            weight_decay=self.task.weight_decay,
        )
        self.table = torch.from_numpy(windows.table.astype(np.float32)).to(device)
        self.label = torch.from_numpy(windows.label.astype(np.float32)).to(device)
        self.first = {
            span: torch.from_numpy(rows).to(device) for span, rows in windows.first.items()
        }
        self.scaling = fit_scaling(
            self.table, self.first["train"], windows.length, self.task.levels
        )
        rate = float(windows.labels("train").mean())
        self.pos_weight = (1.0 - rate) / rate
        self.loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(self.pos_weight, device=device))
        self.order = torch.Generator().manual_seed(derive_seed(config.seed, _ORDER_STREAM))
        self.progress = Progress()

    def model(self) -> PriceAction:
        """Return the network with its scaling."""
        return PriceAction(self.network, self.scaling, self.windows.length)

    def run_epoch(self) -> float:
        """Train on every window once, in random order; returns the mean loss.

        Raises:
            TrainingDivergedError: at the first loss that is not finite.
        """
        self.network.train()
        rows = self.first["train"]
        order = torch.randperm(len(rows), generator=self.order).to(self.device)
        total = 0.0
        for index, chosen in enumerate(order.split(self.task.batch_size)):
            value = self.step(rows[chosen])
            if not math.isfinite(value):
                raise self._diverged(f"batch {index}", value, rows[chosen])
            total += value * len(chosen)
        if not all(bool(torch.isfinite(weight).all()) for weight in self.network.parameters()):
            raise self._diverged("weights after the last batch", math.nan, rows)
        return total / len(rows)

    def step(self, first_rows: Int[Tensor, " B"]) -> float:
        """Make one update and return its loss."""
        inputs, labels = self.batch(first_rows)
        loss: Tensor = self.loss(self.network(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.task.max_grad_norm)
        self.optimizer.step()
        return float(loss.detach())

    def batch(
        self, first_rows: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B L F"], Float[Tensor, " B"]]:
        """Gather and scale windows, with their labels."""
        inputs = self.scaling.apply(gather(self.table, first_rows, self.windows.length))
        return inputs, self.label[first_rows + self.windows.to_target]

    @torch.no_grad()
    def judge(self, span: str) -> tuple[float, Float[np.ndarray, " W"]]:
        """Return the mean loss over a span and the probability of each window, in its order."""
        self.network.eval()
        logits, labels = [], []
        for rows in self.first[span].split(_JUDGED_AT_ONCE):
            inputs, truth = self.batch(rows)
            logits.append(self.network(inputs))
            labels.append(truth)
        joined = torch.cat(logits)
        loss = float(self.loss(joined, torch.cat(labels)))
        return loss, torch.sigmoid(joined).double().cpu().numpy()

    def last_candles(self, span: str) -> Float[np.ndarray, "W F"]:
        """Return the scaled last candle of each window of a span, what a linear model reads."""
        blocks = (self.batch(rows)[0][:, -1] for rows in self.first[span].split(_JUDGED_AT_ONCE))
        return torch.cat(list(blocks)).double().cpu().numpy()

    def close_epoch(self, train_loss: float) -> bool:
        """Judge the epoch on validation; returns whether it is the best so far."""
        loss, scores = self.judge("validation")
        truth = self.windows.labels("validation")
        half = measures.judge_calls(scores, truth, HALF)
        area = measures.pr_auc(scores, truth)
        now = self.progress
        now.history.append(
            {
                "epoch": now.epoch,
                "train_loss": train_loss,
                "val_loss": loss,
                "val_pr_auc": area,
                "val_accuracy": half.accuracy,
                "val_precision": half.precision,
                "val_recall": half.recall,
                "val_f1": half.f1,
            }
        )
        is_best = loss < now.best_loss
        if is_best:
            now.best_loss, now.best_epoch = loss, now.epoch
            now.best_state = copy.deepcopy(self.network.state_dict())
        logger.info(
            f"epoch {now.epoch}: loss {train_loss:.4f}, validation loss {loss:.4f}, PR-AUC "
            f"{area:.4f}, at 0.5 F1 {half.f1:.4f}"
        )
        now.epoch += 1
        return is_best

    def is_finished(self) -> bool:
        """Say whether epochs or patience have run out."""
        now = self.progress
        stale = now.epoch - 1 - now.best_epoch
        return now.epoch >= self.task.epochs or (now.epoch > 0 and stale >= self.task.patience)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must agree with."""
        bars = self.windows.bars
        return {
            "configuration": config_hash(self.config),
            "data": f"{bars.content_hash} {', '.join(bars.instruments)}",
            "seed": self.config.seed,
            "device": self.device.type,
        }

    def save(self, path: Path) -> None:
        """Write everything that a continuation needs."""
        payload = {
            "kind": _KIND,
            "identity": self.identity(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "rng": rng_state(),
            "progress": vars(self.progress),
        }
        save_payload(path, payload)

    def restore(self, path: Path) -> None:
        """Continue where `save` was called.

        Raises:
            CheckpointError: if the file is of another run or of other code.
        """
        payload = load_payload(path)
        for name, here in self.identity().items():
            there = dict(payload.get("identity", {})).get(name)
            if there != here:
                raise CheckpointError(
                    f"{path}: is of a run with another {name}: expected {here}, found {there}; "
                    "resume with the same options or start again without --resume"
                )
        with restoring(path):
            self.network.load_state_dict(payload["network"])
            self.optimizer.load_state_dict(payload["optimizer"])
            self.order.set_state(payload["order"])
            restore_rng(payload["rng"])
            self.progress = Progress(**payload["progress"])

    def _diverged(self, where: str, value: float, rows: Int[Tensor, " B"]) -> TrainingDivergedError:
        times = self.windows.bars.timestamps[rows.cpu().numpy()]
        now = self.progress
        kept = f"epoch {now.best_epoch}, in {MODEL}" if now.best_epoch >= 0 else "none"
        return TrainingDivergedError(
            f"epoch {now.epoch}, {where}: expected a finite loss, found {value}; windows begin "
            f"{times.min()} to {times.max()}; best checkpoint: {kept}; lower "
            "encoders.price_action.learning_rate or look at these candles"
        )
