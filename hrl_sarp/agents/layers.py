"""Functions that the networks of both agents share."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def masked_mean(values: Float[Tensor, "B X D"], mask: Bool[Tensor, "B X"]) -> Float[Tensor, "B D"]:
    """Average over the masked entries; 0 where there is none.

    Entries outside the mask must be finite.
    """
    weight = mask.to(values.dtype)[..., None]
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def scale_layers(layers: Iterable[nn.Linear], factor: float) -> None:
    """Multiply weights and biases of linear layers, and so their outputs, in place."""
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)


def ignore_columns(layer: nn.Linear, columns: Sequence[int]) -> None:
    """Set the weights of some inputs to 0, where training of this layer leaves them.

    A copy of the layer, or one that is filled from a file, learns from these inputs again.
    """
    read = torch.ones_like(layer.weight)
    read[:, list(columns)] = 0.0
    with torch.no_grad():
        layer.weight.mul_(read)
    layer.weight.register_hook(lambda gradient: gradient * read)


def set_dropout(module: nn.Module, probability: float) -> None:
    """Set every dropout layer's probability."""
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = probability
