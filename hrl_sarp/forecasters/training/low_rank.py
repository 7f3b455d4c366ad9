"""Fine-tuning that changes few weights: low-rank additions (LoRA), or the last layers alone."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """Adds a product of two thin matrices to a weight; it begins at 0.

    Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models".

    Args:
        weight: that it is added to.
        rank: columns of the thin matrices.
        scale: factor on the product.
    """

    def __init__(self, weight: Float[Tensor, "out inner"], rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "out inner"]) -> Float[Tensor, "out inner"]:
        """Return the weight with its addition."""
        return weight + self.scale * (self.up @ self.down)


def add_low_rank(module: nn.Module, rank: int, scale: float, seed: int) -> int:
    """Freeze a module and add trainable low-rank parts to all of its linear layers.

    Args:
        module: changed in place.
        rank: of the parts; a layer that is thinner keeps its own width.
        scale: factor on the parts.
        seed: of their first values.

    Returns:
        Number of weights that are trained.
    """
    module.requires_grad_(requires_grad=False)
    torch.manual_seed(seed)
    for layer in _linears(module):
        part = LowRank(layer.weight, min(rank, *layer.weight.shape), scale)
        parametrize.register_parametrization(layer, "weight", part)
    return count_trained(module)


def merge_low_rank(module: nn.Module) -> None:
    """Add the low-rank parts to the weights for good, so that names are the published ones again.

    Args:
        module: changed in place; one without parts stays as it is.
    """
    for layer in _linears(module):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def freeze_all_but(module: nn.Module, trained: tuple[str, ...]) -> int:
    """Train only weights whose names begin in given ways.

    Args:
        module: changed in place.
        trained: beginnings of names.

    Returns:
        Number of weights that are trained.
    """
    for name, weight in module.named_parameters():
        weight.requires_grad_(name.startswith(trained))
    return count_trained(module)


def count_trained(module: nn.Module) -> int:
    """Count the weights that a training changes.

    Args:
        module: of which they are.

    Returns:
        Their number.
    """
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (part for part in module.modules() if isinstance(part, nn.Linear))
