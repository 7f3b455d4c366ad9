"""The tasks of `fitting.Fit`: Toto, the tokenizer of Kronos, and its predictor.

Rows are first rows of windows. Every window is measured in units of its context alone. Training
learns from all steps of a window; validation looks at the steps after the context only, which are
the ones that nothing of the window has told.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from hrl_sarp.forecasters.contract import CLOSE
from hrl_sarp.forecasters.kronos.bars import (
    N_PRICES,
    SCALE_FLOOR,
    SMALL_PRICE,
    stamps_of,
)
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer
from hrl_sarp.forecasters.toto.learning import toto_loss
from hrl_sarp.forecasters.toto.model import Toto
from hrl_sarp.forecasters.toto.scaler import SeriesBatch
from hrl_sarp.forecasters.training.windows import TRAIN, VALIDATION, ForecastWindows

PERCENT = 100.0
VALIDATION_LOSS = "val_loss"
"""Name in the history of a run."""
VALIDATED_AT_ONCE = 128
"""Windows of a batch of validation."""
Terms = tuple[Float[Tensor, ""], Mapping[str, Tensor]]


class Windows:
    """The windows of a training on a device."""

    def __init__(self, windows: ForecastWindows, device: torch.device) -> None:
        self.source, self.device = windows, device
        self.first = {
            span: torch.from_numpy(rows).to(device) for span, rows in windows.first.items()
        }
        self._rows = torch.arange(windows.length, device=device)

    def gather(self, column: Tensor, rows: Int[Tensor, " B"]) -> Tensor:
        """Copy windows out of a column or table, (B, length, ...)."""
        return column[rows[:, None] + self._rows]

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Name windows, for the message of a run that diverges."""
        return self.source.describe(rows.cpu().numpy())

    def batches(self) -> tuple[Int[Tensor, " B"], ...]:
        """Return the rows of validation in batches; together they are all."""
        return self.first[VALIDATION].split(VALIDATED_AT_ONCE)


class TotoTask:
    """Toto learns 100 times the log of the price over that at the origin.

    Args:
        model: trained in place.
        windows: with a horizon of one patch.
        device: of the training.
        nll_weight: share of the likelihood in the loss.
    """

    title = "Toto"

    def __init__(
        self, model: Toto, windows: ForecastWindows, device: torch.device, nll_weight: float
    ) -> None:
        self.module, self.windows = model.to(device), Windows(windows, device)
        self._nll_weight = nll_weight
        self.train_rows = self.windows.first[TRAIN]
        self._levels = torch.from_numpy(PERCENT * np.log(windows.table[:, CLOSE])).to(device)

    def loss(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> Terms:
        """Compute the mean loss over all patches that follow another."""
        return self._loss(rows, is_last_only=False), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss over the patches after the contexts."""
        return validated(self.windows, lambda rows: self._loss(rows, is_last_only=True))

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Name windows, for the message of a run that diverges."""
        return self.windows.describe(rows)

    def _loss(self, rows: Int[Tensor, " B"], *, is_last_only: bool) -> Float[Tensor, ""]:
        context, patch = self.windows.source.context, self.module.config.patch_size
        levels = self.windows.gather(self._levels, rows)
        values = (levels - levels[:, context - 1 : context]).float()
        targets = values[:, None, patch:]
        counts = torch.ones_like(targets, dtype=torch.bool)
        if is_last_only:
            counts[..., :-patch] = False
        batch = SeriesBatch.alone(values[:, :context])
        return toto_loss(self.module, batch, targets, counts, self._nll_weight)


class KronosBars:
    """Windows of bars as Kronos reads them: in units of their context, in float32."""

    def __init__(self, windows: ForecastWindows, device: torch.device, clip: float) -> None:
        self.windows, self._clip = Windows(windows, device), clip
        self._table = torch.from_numpy(windows.table.astype(np.float32)).to(device)
        self._stamps = torch.from_numpy(stamps_of(windows.timestamps)).to(device)

    def bars(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B T 6"]:
        """Return normalised bars."""
        bars = self.windows.gather(self._table, rows)
        context = bars[:, : self.windows.source.context]
        deviation, mean = torch.std_mean(context, dim=1, keepdim=True, correction=0)
        floor = torch.full_like(mean, SCALE_FLOOR)
        close = mean[..., CLOSE : CLOSE + 1]
        shrunk = 10.0 ** (close / SMALL_PRICE).log10().floor()
        is_small = (close > 0) & (close < SMALL_PRICE)
        floor[..., :N_PRICES] *= torch.where(is_small, shrunk, 1.0)
        return ((bars - mean) / (deviation + floor)).clamp(-self._clip, self._clip)

    def stamps(self, rows: Int[Tensor, " B"]) -> Int[Tensor, "B T 5"]:
        """Return the parts of the times."""
        return self.windows.gather(self._stamps, rows)


class TokenizerTask:
    """The tokenizer learns to rebuild bars from few bits.

    Args:
        model: trained in place.
        windows: of bars.
        device: of the training.
        clip: normalised bars are cut to plus and minus this.
    """

    title = "Kronos tokenizer"

    def __init__(
        self, model: KronosTokenizer, windows: ForecastWindows, device: torch.device, clip: float
    ) -> None:
        self.module, self.inputs = model.to(device), KronosBars(windows, device, clip)
        self.train_rows = self.inputs.windows.first[TRAIN]

    def loss(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> Terms:
        """Compute the loss of both halves of the tokens."""
        parts = self.module.loss(self.inputs.bars(rows))
        return parts.total, {"full_error": parts.full_error, "coarse_error": parts.coarse_error}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the mean squared error of rebuilding the bars after the contexts."""
        return validated(self.inputs.windows, self._error)

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Name windows, for the message of a run that diverges."""
        return self.inputs.windows.describe(rows)

    def _error(self, rows: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        bars, context = self.inputs.bars(rows), self.inputs.windows.source.context
        rebuilt = self.module.decode(*self.module.encode(bars))
        return functional.mse_loss(rebuilt[:, context:], bars[:, context:])


class PredictorTask:
    """The predictor learns the next token; the tokenizer stays as it is.

    Args:
        model: trained in place.
        tokenizer: makes the tokens.
        windows: of bars.
        device: of the training.
        clip: normalised bars are cut to plus and minus this, as for the tokenizer.
    """

    title = "Kronos"

    def __init__(
        self,
        model: KronosPredictor,
        tokenizer: KronosTokenizer,
        windows: ForecastWindows,
        device: torch.device,
        clip: float,
    ) -> None:
        self.module, self.inputs = model.to(device), KronosBars(windows, device, clip)
        self.tokenizer = tokenizer.to(device).eval().requires_grad_(requires_grad=False)
        self.train_rows = self.inputs.windows.first[TRAIN]

    def loss(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> Terms:
        """Compute the cross-entropy of both halves; s2 follows an s1 that the model draws."""
        parts = self.module.loss(*self._tokens(rows), self.inputs.stamps(rows), generator)
        return parts.total, {"s1_loss": parts.s1, "s2_loss": parts.s2}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the mean cross-entropy of the tokens after the contexts."""
        return validated(self.inputs.windows, self._entropy)

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Name windows, for the message of a run that diverges."""
        return self.inputs.windows.describe(rows)

    def _tokens(self, rows: Int[Tensor, " B"]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.tokenizer.encode(self.inputs.bars(rows))

    def _entropy(self, rows: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        (s1, s2), stamps = self._tokens(rows), self.inputs.stamps(rows)
        hidden = self.module.read(s1[:, :-1], s2[:, :-1], stamps[:, :-1])
        logits = self.module.s1_logits(hidden), self.module.s2_logits(hidden, s1[:, 1:])
        context = self.inputs.windows.source.context
        losses = [
            functional.cross_entropy(
                each[:, context - 1 :].flatten(0, 1), tokens[:, context:].flatten()
            )
            for each, tokens in zip(logits, (s1, s2), strict=True)
        ]
        return sum(losses, torch.zeros(())) / 2


@torch.no_grad()
def validated(
    windows: Windows, measure: Callable[[Tensor], Tensor]
) -> tuple[float, dict[str, float]]:
    """Average a measure over all windows of validation, which is read in batches.

    Args:
        windows: of the training.
        measure: mean over the rows that it is given.

    Returns:
        The mean over all windows, and the same for the history.
    """
    sums = [measure(rows).double() * len(rows) for rows in windows.batches()]
    loss = float(torch.stack(sums).sum() / len(windows.first[VALIDATION]))
    return loss, {VALIDATION_LOSS: loss}
