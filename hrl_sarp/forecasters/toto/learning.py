"""What Toto 1.0 learns from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrl_sarp.forecasters.toto.mixture import TINY
from hrl_sarp.forecasters.toto.model import Toto
from hrl_sarp.forecasters.toto.scaler import SeriesBatch

NLL_WEIGHT = 0.575
"""Share of the likelihood in the loss; the rest is the robust distance of the mean."""
ROBUST_WIDTH = 0.1
"""Distance, in scaled units, beyond which the robust part grows slowly."""


def stepwise_losses(
    model: Toto, batch: SeriesBatch, targets: Float[Tensor, "B V T"]
) -> tuple[Float[Tensor, "B V T"], Float[Tensor, "B V T"]]:
    """Compute both parts of the loss at every step.

    Args:
        model: Toto 1.0.
        batch: inputs; T is a multiple of the patch size P.
        targets: values P steps later.

    Returns:
        Negative log-likelihood and robust distance of the mean, both in scaled units.

    Source:
        Barron (2019), "A general and adaptive robust loss function", with shape 0.
    """
    mixture, scaled = model(batch)
    size = model.config.patch_size
    loc, scale = (part.repeat_interleave(size, -1) for part in (scaled.loc, scaled.scale))
    aims = ((targets - loc) / (scale + TINY)).to(mixture.loc.dtype)
    distance = (mixture.mean - aims) / ROBUST_WIDTH
    return -mixture.log_prob(aims), torch.log1p(distance.square() / 2)


def toto_loss(
    model: Toto,
    batch: SeriesBatch,
    targets: Float[Tensor, "B V T"],
    observed: Bool[Tensor, "B V T"],
    nll_weight: float = NLL_WEIGHT,
) -> Float[Tensor, ""]:
    """Average the loss over observed targets.

    Args:
        model: Toto 1.0.
        batch: inputs; T is a multiple of the patch size P.
        targets: values P steps later; any number where they do not count.
        observed: which targets are values. Exogenous series never count: the model is not asked
            to forecast them.
        nll_weight: share of the likelihood.

    Returns:
        The loss; 0 if no target counts.
    """
    counts = observed.clone()
    counts[:, counts.shape[1] - batch.n_exogenous :] = False
    # an extreme value that does not count must not overflow, or its gradient would be NaN
    nll, robust = stepwise_losses(model, batch, torch.where(counts, targets, 0.0))
    each = nll_weight * nll + (1.0 - nll_weight) * robust
    return torch.where(counts, each, 0.0).sum() / (counts.sum() + TINY)
