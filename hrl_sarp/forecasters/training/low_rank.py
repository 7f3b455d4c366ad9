"""Fine-tuning that changes few weights: low-rank additions (LoRA), or the last layers alone."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class LowRankLinear(nn.Linear):
    """A linear layer whose weight stays; a product of two thin matrices, first 0, is added to it.

    Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models".

    Args:
        layer: whose weight and bias it takes.
        rank: columns of the thin matrices.
        scale: factor on the product.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias, self.scale = layer.weight, layer.bias, scale
        self.down = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.up = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes out"]:
        """Apply the weight with its addition."""
        return functional.linear(x, self.whole(), self.bias)

    def whole(self) -> Float[Tensor, "out inner"]:
        """Return the weight with its addition."""
        return self.weight + self.scale * (self.up @ self.down)


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
    for parent, name, layer in _linears(module):
        setattr(parent, name, LowRankLinear(layer, min(rank, *layer.weight.shape), scale))
    return count_trained(module)


def merge_low_rank(module: nn.Module) -> None:
    """Add the low-rank parts to the weights for good, so that names are the published ones again.

    Args:
        module: changed in place; one without parts stays as it is.
    """
    for parent, name, layer in _linears(module):
        if isinstance(layer, LowRankLinear):
            plain = nn.Linear(
                layer.in_features, layer.out_features, layer.bias is not None, device="meta"
            )
            plain.weight, plain.bias = nn.Parameter(layer.whole().detach()), layer.bias
            setattr(parent, name, plain)


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


def _linears(module: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return each linear layer with the module that it is a part of and its name there."""
    return [
        (parent, name, part)
        for parent in module.modules()
        for name, part in parent.named_children()
        if isinstance(part, nn.Linear)
    ]
