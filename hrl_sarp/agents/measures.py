"""What training logs about networks and gradients: plain measures, taken rarely and in one go."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook

from hrl_sarp.agents.ppo.networks import SectorDirichlet
from hrl_sarp.contracts import Regime

SATURATED = 0.95
"""Beyond it tanh passes less than a tenth of the gradient: 1 - 0.95^2 = 0.0975."""


class GradientNorms:
    """Notes the gradient norm of each group at every backward pass, before anything clips it.

    A context manager, for algorithms that run their backward passes themselves.

    Args:
        groups: name -> parameters; those that need no gradient now are left out.
    """

    def __init__(self, groups: Mapping[str, Iterable[nn.Parameter]]) -> None:
        self._groups = {name: [p for p in g if p.requires_grad] for name, g in groups.items()}
        self._norms: dict[str, list[Tensor]] = {name: [] for name in self._groups}

    def __enter__(self) -> "GradientNorms":
        self._handles = [
            register_multi_grad_hook(parameters, self._note_into(name))
            for name, parameters in self._groups.items()
            if parameters
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _note_into(self, name: str) -> Callable[[Sequence[Tensor | None]], None]:
        def note(gradients: Sequence[Tensor | None]) -> None:
            given = [gradient for gradient in gradients if gradient is not None]
            self._norms[name].append(nn.utils.get_total_norm(given))

        return note

    def summary(self, limit: float) -> dict[str, float]:
        """Return `<group>_grad_norm`, the mean norms, and `clipped`, the share above `limit`.

        `clipped` refers to the norm over all groups together.
        """
        noted = {name: torch.stack(norms) for name, norms in self._norms.items() if norms}
        means = {f"{name}_grad_norm": float(norms.mean()) for name, norms in noted.items()}
        if not noted:
            return {}
        total = torch.stack(list(noted.values())).square().sum(dim=0).sqrt()
        return {**means, "clipped": float((total > limit).float().mean())}


def spread(name: str, values: Float[np.ndarray, "..."]) -> dict[str, float]:
    """Return mean, deviation and range of `values` under `<name>_mean`, ..., `<name>_max`."""
    kinds = {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}
    return {f"{name}_{kind}": float(value) for kind, value in kinds.items()}


def goal_measures(
    shares: Float[Tensor, "B S"], regime: Float[Tensor, "B R"]
) -> dict[str, Float[Tensor, ""]]:
    """Measure deterministic goals over many dates: concentration, and whether they ever change.

    Args:
        shares: sector shares of each date.
        regime: regime probabilities of each date.
    """
    bear = regime[:, Regime.BEAR]
    return {
        "goal_hhi": shares.square().sum(dim=1).mean(),
        "goal_std": shares.std(dim=0, correction=0).mean(),
        "p_bear": bear.mean(),
        "p_bear_std": bear.std(correction=0),
    }


def dirichlet_measures(distribution: SectorDirichlet) -> dict[str, Float[Tensor, ""]]:
    """Measure how much a macro policy explores: its entropy and its concentration kappa."""
    kappa = (distribution.alpha - 1).sum(dim=1)
    return {"entropy": distribution.entropy().mean(), "kappa": kappa.mean()}


def score_measures(
    scores: Float[Tensor, "B N"], tradable: Bool[Tensor, "B N"]
) -> dict[str, Float[Tensor, ""]]:
    """Measure scores of tradable slots: deviation, and share at the end of the range."""
    given = scores[tradable]
    saturated = (given.abs() > SATURATED).to(scores.dtype)
    return {"score_std": given.std(correction=0), "score_saturation": saturated.mean()}


def critic_measures(
    values: tuple[Float[Tensor, " B"], Float[Tensor, " B"]], target: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, ""]]:
    """Measure a twin critic beside its targets on one batch."""
    first, second = values
    return {
        "q1_mean": first.mean(),
        "q2_mean": second.mean(),
        "q_std": first.std(correction=0),
        "q_min": first.min(),
        "q_max": first.max(),
        "target_mean": target.mean(),
        "td_error": (first - target).abs().mean(),
        "twin_gap": (first - second).abs().mean(),
    }


def as_numbers(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """Read many one-number tensors with one wait for the device."""
    if not measures:
        return {}
    stacked = torch.stack([measure.detach() for measure in measures.values()])
    return dict(zip(measures, stacked.tolist(), strict=True))
