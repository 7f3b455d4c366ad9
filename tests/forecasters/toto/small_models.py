"""Small models of random weights, and batches for them."""

import torch
from torch import nn

from hrl_sarp.forecasters.toto import SeriesBatch, Toto, Toto2, Toto2Config, TotoConfig

SMALL = TotoConfig(
    patch_size=4,
    embed_dim=16,
    num_layers=3,
    num_heads=2,
    mlp_hidden_dim=24,
    dropout=0.1,
    spacewise_every_n_layers=3,
    spacewise_first=False,
    k_components=3,
)
SMALL2 = Toto2Config.smallest().model_copy(
    update={"patch_size": 4, "d_model": 16, "num_heads": 2, "d_ff": 24, "qk_dim": 8, "v_dim": 8}
)


def toto(seed: int = 0, *, labels: bool = False, **sizes: object) -> Toto:
    """Return Toto 1.0 in float64, so that rounding is no excuse."""
    torch.manual_seed(seed)
    config = TotoConfig.model_validate(SMALL.model_dump() | sizes)
    return Toto(config, labels=labels).double().eval()


def toto2(seed: int = 0, **sizes: object) -> Toto2:
    """Return Toto 2.0 in float64; its weights are near 1, as its layers expect."""
    torch.manual_seed(seed)
    model = Toto2(Toto2Config.model_validate(SMALL2.model_dump() | sizes)).double().eval()
    for part in model.parameters():
        nn.init.normal_(part)
    return model


def walks(n_rows: int, n_series: int, n_steps: int, seed: int = 0) -> torch.Tensor:
    """Return random walks, (B, V, T)."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn((n_rows, n_series, n_steps), generator=generator, dtype=torch.float64)
    return steps.cumsum(dim=-1)


def batch_of(values: torch.Tensor, n_exogenous: int = 0) -> SeriesBatch:
    """Return a batch in which the series of a row see each other."""
    groups = torch.zeros(values.shape[:2], dtype=torch.long)
    return SeriesBatch(values, torch.ones_like(values, dtype=torch.bool), groups, n_exogenous)
