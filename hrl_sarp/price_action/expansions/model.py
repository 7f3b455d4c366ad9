"""Jade with heads: what came before an expansion, where it lies, and which bars belong to it."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder

TASKS = ("type", "pointers", "span", "countdown")
TYPES = 2


class MultiTaskOutput(NamedTuple):
    """What the heads say; None for tasks that the model does not have."""

    type_logits: Float[Tensor, "B 2"] | None
    pointers: Float[Tensor, "B 2"] | None
    """Center and length of the expansion, in [0, 1]; see `task.make_targets`."""
    span_logits: Float[Tensor, "B L"] | None
    countdown: Float[Tensor, "B L"] | None


class JadeMultiTask(nn.Module):
    """One encoder, a linear head per task, and what the tasks' losses weigh.

    The center is the mean place of the bars under learned weights, which sum to 1, and the length
    is read from their mean vector under the same weights: a window's plain mean has lost the
    place. `log_sigma` holds one number per task (Kendall et al. 2018).
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
        """What the model is taught."""
        self.log_sigma = nn.Parameter(torch.zeros(len(self.tasks)))

    def log_sigmas(self) -> dict[str, Float[Tensor, ""]]:
        """Name the weights of the tasks."""
        return dict(zip(self.tasks, self.log_sigma.unbind(), strict=True))

    @torch.no_grad()
    def start_at(self, constant: MultiTaskOutput) -> None:
        """Let the heads' biases say what suits all windows; the center starts in the middle."""
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
