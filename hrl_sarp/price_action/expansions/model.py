"""Jade with heads for expansions, and loading a pretrained Jade for other input columns.

The heads predict what came before an expansion, its place, and which bars belong to it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.encoders.transfer import (
    WRITER,
    LoadReport,
    holds_weights_alone,
    load_encoder,
    read_description,
)
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS

TASKS = ("type", "pointers", "span", "countdown")
TYPES = 2
KIND = "jade"
UNKNOWN = "unknown"
"""What a file of weights alone does not say."""
INPUT_WEIGHTS = ("lstm.weight_ih_l0", "lstm.weight_ih_l0_reverse")
"""Weights with a column for each input."""


class MultiTaskOutput(NamedTuple):
    """Outputs of the heads; None for tasks that the model lacks."""

    type_logits: Float[Tensor, "B 2"] | None
    pointers: Float[Tensor, "B 2"] | None
    """Center and length of the expansion, in [0, 1]; see `task.make_targets`."""
    span_logits: Float[Tensor, "B L"] | None
    countdown: Float[Tensor, "B L"] | None


class JadeMultiTask(nn.Module):
    """One encoder, a linear head per task, and the weights of the tasks' losses.

    The center is the mean position of the bars under learned weights, which sum to 1. The length
    is predicted from the bars' mean vector under the same weights, because a plain mean loses the
    position. `log_sigma` holds one number per task (Kendall et al. 2018).
    """

    def __init__(
        self, n_features: int, jade: JadeConfig, tasks: Sequence[str], dropout: float
    ) -> None:
        """Make random weights."""
        super().__init__()
        self.encoder = JadeEncoder(n_features, jade)
        self.dropout = nn.Dropout(dropout)
        width = self.encoder.width
        sizes = {
            "type": {"type_head": TYPES},
            "pointers": {"place_head": 1, "length_head": 1},
            "span": {"span_head": 1},
            "countdown": {"countdown_head": 1},
        }
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, n) for task in tasks for name, n in sizes[task].items()}
        )
        self.tasks = tuple(task for task in TASKS if task in tasks)
        """Names of the tasks."""
        self.log_sigma = nn.Parameter(torch.zeros(len(self.tasks)))

    def log_sigmas(self) -> dict[str, Float[Tensor, ""]]:
        """Name the weights of the tasks."""
        return dict(zip(self.tasks, self.log_sigma.unbind(), strict=True))

    @torch.no_grad()
    def start_at(self, constant: MultiTaskOutput) -> None:
        """Set the heads' biases to a constant answer; the center starts in the middle."""
        biases = {
            "type_head": constant.type_logits,
            "length_head": None if constant.pointers is None else constant.pointers[:, 1].logit(),
            "span_head": constant.span_logits,
            "countdown_head": constant.countdown,
        }
        for name, value in biases.items():
            if name in self.heads and value is not None:
                bias = cast("Tensor", self.heads[name].bias)
                bias.copy_(value.flatten()[: len(bias)])

    def forward(self, x: Float[Tensor, "B L F"]) -> MultiTaskOutput:
        """Encode windows and apply the heads."""
        return self.decode(self.encoder(x))

    def decode(self, per_bar: Float[Tensor, "B L W"]) -> MultiTaskOutput:
        """Apply the heads."""
        per_bar = self.dropout(per_bar)
        return MultiTaskOutput(
            self.heads["type_head"](per_bar.mean(dim=1)) if "type" in self.tasks else None,
            self._pointers(per_bar) if "pointers" in self.tasks else None,
            self._each_bar("span_head", per_bar) if "span" in self.tasks else None,
            self._each_bar("countdown_head", per_bar) if "countdown" in self.tasks else None,
        )

    def _pointers(self, per_bar: Float[Tensor, "B L W"]) -> Float[Tensor, "B 2"]:
        weight = self._each_bar("place_head", per_bar).softmax(dim=1)
        place = torch.linspace(0.0, 1.0, per_bar.shape[1], device=per_bar.device)
        center = weight @ place
        length = self.heads["length_head"](torch.einsum("bl,blw->bw", weight, per_bar)).sigmoid()
        return torch.stack([center, length.squeeze(-1)], dim=1)

    def _each_bar(self, head: str, per_bar: Float[Tensor, "B L W"]) -> Float[Tensor, "B L"]:
        return cast("Tensor", self.heads[head](per_bar)).squeeze(-1)


@dataclass(frozen=True)
class Pretrained:
    """Facts about a loaded encoder."""

    report: LoadReport
    """Input columns are listed as `input <name>`; those that are missing start at weight 0."""
    scaling: dict[str, tuple[float, float]]
    """Mean and deviation by which each of its columns was scaled; 0 and 1 if it was not."""
    fitted_to: str
    """Last bar that it was fitted to, or `UNKNOWN`. Earlier labelled windows are not new to it."""
    weights_hash: str
    """SHA-256 of its weights, by name."""


def load_pretrained(
    path: Path, encoder: JadeEncoder, columns: Sequence[str], config: JadeConfig
) -> Pretrained:
    """Fill an encoder from one that was pretrained on other columns, in any order.

    Weights of common columns are copied. Weights of new columns are 0, so that the encoder's
    output is first that of pretraining. The encoder is unchanged if an error is raised.
    """
    description = _describe_weights(path) if holds_weights_alone(path) else read_description(path)
    there = tuple(str(name) for name in description["columns"])
    if description["kind"] != KIND or not set(there) & set(columns):
        raise CheckpointError(
            f"{path}: expected a {KIND} encoder with some of the columns {', '.join(columns)}; "
            f"found kind {description['kind']} with {', '.join(there)}; pretrain one on these"
        )
    scaling = {} if description["scaler"] == UNKNOWN else dict.fromkeys(there, (0.0, 1.0))
    if isinstance(description["scaler"], dict):
        scaler = Scaler.from_plain(description["scaler"], len(there), str(path), WRITER)
        moments = zip(scaler.mean.tolist(), scaler.std.tolist(), strict=True)
        scaling = dict(zip(there, moments, strict=True))
    source = JadeEncoder(len(there), config)
    inputs = {name: source.state_dict()[name] for name in INPUT_WEIGHTS}
    source.load_state_dict(encoder.state_dict() | inputs)  # what the file lacks stays
    report = load_encoder(path, source)
    state = source.state_dict()
    for name in INPUT_WEIGHTS:
        state[name] = rearranged(state[name], there, columns)
    encoder.load_state_dict(state)
    new, unused = (
        tuple(f"input {name}" for name in first if name not in second)
        for first, second in ((columns, there), (there, columns))
    )
    report = LoadReport(report.missing + new, report.unexpected + unused)
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return Pretrained(report, scaling, str(description["fitted_to"]), digest.hexdigest())


def _describe_weights(path: Path) -> dict[str, Any]:
    """Describe weights that were saved alone: their columns are those that bars are given in."""
    logger.warning(
        f"{path} holds weights alone: its inputs are taken for {', '.join(PRETRAINING_COLUMNS)}, "
        "scaled by the labelled windows; the last bar that it was fitted to is unknown"
    )
    columns = list(PRETRAINING_COLUMNS)
    return {"kind": KIND, "columns": columns, "scaler": UNKNOWN, "fitted_to": UNKNOWN}


def rearranged(
    weights: Float[Tensor, "G N"], there: Sequence[str], here: Sequence[str]
) -> Float[Tensor, "G M"]:
    """Put input weights in the order of other columns."""
    result = torch.zeros(len(weights), len(here))
    for place, name in enumerate(here):
        if name in there:
            result[:, place] = weights[:, there.index(name)]
    return result
