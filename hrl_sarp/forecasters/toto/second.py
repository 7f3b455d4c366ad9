"""Toto 2.0: nine quantiles of several next patches in one pass.

It forecasts only: how the published weights were trained is not known.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from hrl_sarp.config.market_schema import Section
from hrl_sarp.errors import CheckpointError
from hrl_sarp.forecasters.toto.layers import Rotation, attend, rotate
from hrl_sarp.forecasters.toto.scaler import SeriesBatch, at_patch_ends, running_statistics
from hrl_sarp.forecasters.weights import Count, load_into, read_sizes, read_weights, write_weights

KNOTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantiles that the head gives."""
_XPOS_BASE = 256.0
_LEAST_SCALE = 1e-6
_FIRST_OBSERVATIONS = 8
"""Patches with fewer values up to their end borrow the statistics of the first so many."""
_FARTHEST = 1e4
"""Scales beyond the range of the context at which a guarded quantile stops."""
_SILU_GAIN = math.exp(0.8 * math.log(math.sqrt(2.0 / (1.0 - 1.0 / math.pi))) + 0.2 * math.log(2.0))
"""Keeps the variance of hidden channels near 1 after SiLU."""
_NOBODY = -1
"""Group of patches without values; groups of series are 0 or more."""
_ONLY: dict[str, object] = {
    "qk_norm": False,
    "per_dim_scale": True,
    "use_xpos": True,
    "pre_norm": True,
    "norm_include_weight": False,
    "num_output_patches": 1,
    "heads_per_group": 1,
    "quantiles": list(KNOTS),
}
"""Switches of the published models, and the only value that is implemented."""
_IGNORED = ("dropout_p", "qk_norm_include_weight")
"""Switches without an effect on a forecast of these models."""


class Toto2Config(Section):
    """Sizes of Toto 2.0, by the names of its `config.json`.

    Examples:
        >>> Toto2Config.smallest().layer_axes
        ('time', 'time', 'time', 'space')
    """

    patch_size: Count
    """P, steps of a patch."""
    d_model: Count
    """D."""
    num_heads: Count
    num_layers: Count
    layer_group_size: Count
    """Layers of a group, which repeats."""
    num_variate_layers_per_group: int = Field(ge=0)
    """So many layers of a group attend across series."""
    variate_layer_first: bool
    """Whether they are the first of their group, else the last."""
    norm_eps: float = Field(gt=0)
    attn_bias: bool
    mlp_bias: bool
    d_ff: Count
    qk_dim: Count
    """Channels of a query, of one head."""
    v_dim: Count
    """Channels of a value, of one head."""
    residual_mult: float
    """Made, with the ratio, the shares of the residuals before training. Files hold the shares;
    both are kept because the makers' code asks for them."""
    residual_attn_ratio: float

    @model_validator(mode="after")
    def _halves_can_turn(self) -> "Toto2Config":
        if self.qk_dim % 4:
            raise ValueError(
                f"qk_dim {self.qk_dim} is no multiple of 4; half of it is rotated in pairs"
            )
        return self

    @classmethod
    def smallest(cls) -> "Toto2Config":
        """Return the sizes of the published model of 4 million weights.

        Returns:
            A configuration of 4.14 million parameters.
        """
        return cls(
            patch_size=32,
            d_model=256,
            num_heads=4,
            num_layers=4,
            layer_group_size=4,
            num_variate_layers_per_group=1,
            variate_layer_first=False,
            norm_eps=1e-4,
            attn_bias=True,
            mlp_bias=False,
            d_ff=688,
            qk_dim=64,
            v_dim=64,
            residual_mult=0.75,
            residual_attn_ratio=5.136,
        )

    @classmethod
    def from_published(cls, config: Mapping[str, Any], path: Path) -> "Toto2Config":
        """Read the constructor arguments of a published model.

        Args:
            config: content of `config.json`.
            path: file of it, for messages.

        Returns:
            The sizes.

        Raises:
            CheckpointError: names a value that is missing, impossible, or that asks for another
                computation than ours.
        """
        only = {**_ONLY, "num_groups": config.get("num_heads")}
        # their code fills a switch that is null with the value that is ours
        given = {name: value for name, value in config.items() if value is not None}
        return read_sizes(cls, given, path, only=only, ignored=_IGNORED)

    @property
    def layer_axes(self) -> tuple[str, ...]:
        """Along which axis each layer attends: "time" or "space"."""
        size, n_space = self.layer_group_size, self.num_variate_layers_per_group
        space = range(n_space) if self.variate_layer_first else range(size - n_space, size)
        return tuple(
            "space" if number % size in space else "time" for number in range(self.num_layers)
        )


class UnitLinear(nn.Linear):
    """A linear layer whose whole result, bias included, is divided by a power of its inputs."""

    def __init__(
        self, n_inputs: int, n_outputs: int, *, bias: bool = True, is_last: bool = False
    ) -> None:
        super().__init__(n_inputs, n_outputs, bias=bias)
        self.divisor = float(n_inputs) if is_last else math.sqrt(n_inputs)

    def forward(self, x: Float[Tensor, "*axes N"]) -> Float[Tensor, "*axes M"]:
        """Return (W x + b) / divisor."""
        return super().forward(x) / self.divisor


class ResidualMlp(nn.Module):
    """Two layers with SiLU between them, beside one that skips them."""

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int, *, is_last: bool) -> None:
        super().__init__()
        self.linear1 = UnitLinear(n_inputs, hidden)
        self.linear2 = UnitLinear(hidden, n_outputs, is_last=is_last)
        self.skip_proj = UnitLinear(n_inputs, n_outputs, is_last=is_last)

    def forward(self, x: Float[Tensor, "*axes N"]) -> Float[Tensor, "*axes M"]:
        """Return the mean of both ways, with the variance of one."""
        deep = self.linear2(_SILU_GAIN * functional.silu(self.linear1(x)))
        return (deep + self.skip_proj(x)) / math.sqrt(2.0)


class QueryScale(nn.Module):
    """A positive factor for each channel of the queries; 1 where the weight is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.per_dim_scale = nn.Parameter(torch.zeros(width))

    def forward(self, queries: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes d"]:
        """Scale the last axis."""
        return queries * functional.softplus(self.per_dim_scale) / math.log(2.0)


class Attention2(nn.Module):
    """Attention of Toto 2.0, over the patches of a series or over the series of a patch."""

    def __init__(self, config: Toto2Config, *, over_time: bool) -> None:
        super().__init__()
        heads, self.over_time = config.num_heads, over_time
        self.sizes = [config.qk_dim, config.qk_dim, config.v_dim]
        self.heads = heads
        n_projected = heads * sum(self.sizes)
        self.in_proj = UnitLinear(config.d_model, n_projected, bias=config.attn_bias)
        self.out_proj = UnitLinear(heads * config.v_dim, config.d_model, bias=config.attn_bias)
        self._pds = QueryScale(config.qk_dim)

    def forward(
        self, x: Float[Tensor, "B V S D"], rotation: Rotation, mask: Bool[Tensor, "B M 1 N N"]
    ) -> Float[Tensor, "B V S D"]:
        """Mix tokens; `mask` is that of the axis, and M the other axis."""
        parts = self.in_proj(x).split([self.heads * size for size in self.sizes], dim=-1)
        heads = (part.unflatten(-1, (self.heads, -1)).transpose(2, 3) for part in parts)
        queries, keys, values = heads
        queries = self._pds(queries)
        if self.over_time:
            queries = _turn_half(queries, rotation.of_queries)
            keys = _turn_half(keys, rotation.of_keys)
            mixed = attend(queries, keys, values, mask, scale=1.0 / queries.shape[-1])
        else:
            queries, keys, values = (part.transpose(1, 3) for part in (queries, keys, values))
            mixed = attend(queries, keys, values, mask, scale=1.0 / queries.shape[-1])
            mixed = mixed.transpose(1, 3)
        return self.out_proj(mixed.transpose(2, 3).flatten(-2))


def _turn_half(
    x: Float[Tensor, "*axes d"], turn: Callable[[Tensor], Tensor]
) -> Float[Tensor, "*axes d"]:
    """Rotate the first half of the channels; the second knows no position."""
    turned, kept = x.chunk(2, dim=-1)
    return torch.cat([turn(turned), kept], dim=-1)


class GatedLayers(nn.Module):
    """SwiGLU with the halves the other way round than in Toto 1.0: the second is the gate."""

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.fc1 = UnitLinear(config.d_model, 2 * config.d_ff, bias=config.mlp_bias)
        self.fc2 = UnitLinear(config.d_ff, config.d_model, bias=config.mlp_bias)

    def forward(self, x: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes D"]:
        """Return fc2 of what the gate lets pass."""
        passed, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(passed * functional.silu(gate))


class Layer2(nn.Module):
    """One block of Toto 2.0; the file says how much each part counts beside the token itself."""

    def __init__(self, config: Toto2Config, *, over_time: bool) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn, self.ffn = Attention2(config, over_time=over_time), GatedLayers(config)
        self.register_buffer("attn_tau", torch.ones(()))
        self.register_buffer("mlp_tau", torch.ones(()))

    def forward(
        self, x: Float[Tensor, "B V S D"], rotation: Rotation, mask: Bool[Tensor, "B M 1 N N"]
    ) -> Float[Tensor, "B V S D"]:
        """Mix what attention and the gated layers say with the token, at the same variance."""
        x = _blend(x, self.attn(_normal(x, self.eps), rotation, mask), self.get_buffer("attn_tau"))
        return _blend(x, self.ffn(_normal(x, self.eps)), self.get_buffer("mlp_tau"))


def _normal(x: Float[Tensor, "*axes D"], eps: float) -> Float[Tensor, "*axes D"]:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def _blend(x: Tensor, added: Tensor, share: Tensor) -> Tensor:
    return (share * added + x) / (1.0 + share.square()).sqrt()


class Toto2(nn.Module):
    """Toto 2.0, for inference.

    Args:
        config: sizes.

    Examples:
        >>> small = {"patch_size": 4, "d_model": 8, "d_ff": 8, "qk_dim": 4, "v_dim": 4}
        >>> config = Toto2Config.smallest().model_copy(update=small)
        >>> batch = SeriesBatch.alone(torch.arange(12.0).unsqueeze(0))
        >>> tuple(Toto2(config).forecast(batch, 6).shape)
        (1, 1, 6, 9)
    """

    def __init__(self, config: Toto2Config) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.patch_proj = ResidualMlp(2 * config.patch_size, 4 * width, width, is_last=False)
        layers = [Layer2(config, over_time=axis == "time") for axis in config.layer_axes]
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        head = ResidualMlp(width, 4 * width, config.patch_size * len(KNOTS), is_last=True)
        self.output_head = nn.ModuleDict({"param_projection": nn.ModuleDict({"proj": head})})

    def forward(
        self,
        values: Float[Tensor, "B V T"],
        observed: Bool[Tensor, "B V T"],
        groups: Int[Tensor, "B V"],
        patches: Bool[Tensor, "B V S"],
    ) -> Float[Tensor, "B V S P 9"]:
        """Return the quantiles that each patch expects of the next one.

        Args:
            values: scaled, through asinh; 0 where not observed.
            observed: True = a value.
            groups: series of one row with the same number see each other.
            patches: patches that others of their series may read.

        Returns:
            Quantiles at `KNOTS` of asinh of the scaled values; those of patch i are about i + 1.
        """
        size = self.config.patch_size
        shown = (values.unflatten(-1, (-1, size)), (~observed).to(values).unflatten(-1, (-1, size)))
        tokens = self.patch_proj(torch.cat(shown, dim=-1))
        positions = torch.arange(tokens.shape[2], dtype=tokens.dtype, device=tokens.device)
        rotation = rotate(
            positions,
            self.config.qk_dim // 2,
            tokens.shape[2] / 2,
            xpos_base=_XPOS_BASE,
            interleaved=True,
        )
        masks = _seen(groups, patches)
        layers = self.transformer.get_submodule("layers").children()
        for axis, layer in zip(self.config.layer_axes, layers, strict=True):
            tokens = layer(tokens, rotation, masks[axis])
        tokens = _normal(tokens, self.config.norm_eps)
        found = self.output_head.get_submodule("param_projection.proj")(tokens)
        return found.unflatten(-1, (size, -1))

    @torch.no_grad()
    def forecast(
        self, batch: SeriesBatch, horizon: int, *, guarded: bool = False
    ) -> Float[Tensor, "B V h 9"]:
        """Forecast all steps in one pass: patches without values stand for the future.

        Args:
            batch: T is a multiple of the patch size.
            horizon: h.
            guarded: whether early patches with few values borrow statistics, and quantiles stop
                far outside the range of the context, as the makers do when they evaluate.

        Returns:
            Quantiles at `KNOTS`, ascending, in the unit of the values.
        """
        size = self.config.patch_size
        n_new = math.ceil(horizon / size)
        to_come = (0, n_new * size)
        longer = replace(
            batch,
            values=functional.pad(batch.values, to_come),
            observed=functional.pad(batch.observed, to_come),
        )
        scaled, loc, scale = self.scale(longer, borrow=guarded)
        patches = longer.observed.unflatten(-1, (-1, size)).any(dim=-1)
        # what is to come must see the newest patch, whether it holds values or not
        patches[..., -n_new - 1 :] = True
        knots = self(scaled, longer.observed, batch.groups, patches)[:, :, -n_new - 1 : -1]
        at = slice(-n_new - 1, -1)
        found = torch.sinh(knots) * scale[..., at, None, None] + loc[..., at, None, None]
        found = found.flatten(2, 3)[:, :, :horizon].sort(dim=-1).values
        return _within_reach(found, batch, scale[..., -1]) if guarded else found

    def scale(
        self, batch: SeriesBatch, *, borrow: bool = False
    ) -> tuple[Float[Tensor, "B V T"], Float[Tensor, "B V S"], Float[Tensor, "B V S"]]:
        """Measure every patch by the statistics up to its own end, then press extremes together.

        Args:
            batch: T is a multiple of the patch size.
            borrow: whether patches with fewer than 8 values up to their end take the statistics of
                the first 8. They then know later values of the context.

        Returns:
            asinh of the scaled values, 0 where not observed; mean and scale of each patch.
        """
        size, dtype = self.config.patch_size, self.patch_proj.linear1.weight.dtype
        counts, means, variances = running_statistics(batch.values, batch.observed)
        loc, variance = at_patch_ends(means, size), at_patch_ends(variances, size)
        if borrow:
            is_few = counts < _FIRST_OBSERVATIONS
            at = is_few.sum(dim=-1, keepdim=True).clamp(max=counts.shape[-1] - 1)
            is_few = at_patch_ends(is_few, size)
            loc = torch.where(is_few, means.gather(-1, at), loc)
            variance = torch.where(is_few, variances.gather(-1, at), variance)
        scale = variance.sqrt().clamp(min=_LEAST_SCALE)
        steps = [part.repeat_interleave(size, -1) for part in (loc, scale)]
        scaled = (batch.values.double() - steps[0]) / steps[1]
        scaled = torch.where(batch.observed, scaled, 0.0).asinh()
        return scaled.to(dtype), loc.to(dtype), scale.to(dtype)


def _seen(groups: Int[Tensor, "B V"], patches: Bool[Tensor, "B V S"]) -> dict[str, Tensor]:
    """Say who sees whom: over time what came before, at one time the series of the same group.

    Patches without values are a group of their own.
    """
    groups = torch.where(patches, groups[..., None], _NOBODY)
    over_time = (groups[..., :, None] == groups[..., None, :]).tril()
    by_patch = groups.transpose(1, 2)
    at_one_time = by_patch[..., :, None] == by_patch[..., None, :]
    return {"time": over_time.unsqueeze(2), "space": at_one_time.unsqueeze(2)}


def _within_reach(
    quantiles: Float[Tensor, "B V h 9"], batch: SeriesBatch, scale: Float[Tensor, "B V"]
) -> Float[Tensor, "B V h 9"]:
    """Stop quantiles far outside the range of the context."""
    reach = _FARTHEST * scale[..., None, None]
    inf = float("inf")
    lowest = torch.where(batch.observed, batch.values, inf).amin(dim=-1)[..., None, None] - reach
    highest = torch.where(batch.observed, batch.values, -inf).amax(dim=-1)[..., None, None] + reach
    return torch.minimum(torch.maximum(quantiles, lowest), highest)


def load_toto2(path: Path) -> Toto2:
    """Load Toto 2.0 from published files or from ours.

    Args:
        path: folder of the weights, whole or in parts, and `config.json`.

    Returns:
        The model in float32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: names the tensor or the switch, what was expected and what was found.
        MissingArtifactError: if there is no such file.
    """
    found = read_weights(path)
    if found.config is None:
        raise CheckpointError(
            f"{path}: expected a config.json beside the weights of Toto 2.0, found none; the number"
            " of heads cannot be seen in the weights"
        )
    model = Toto2(Toto2Config.from_published(found.config, path))
    load_into(model, found.state, path)
    return model.eval()


def save_toto2(folder: Path, model: Toto2) -> Path:
    """Write a model under its published names.

    Args:
        folder: gets `model.safetensors` and `config.json`.
        model: Toto 2.0.

    Returns:
        The file of the weights.
    """
    sizes = model.config.model_dump()
    switches = {name: value for name, value in _ONLY.items() if name != "quantiles"}
    config = {**sizes, **switches, "num_groups": model.config.num_heads}
    return write_weights(folder, model.state_dict(), config)
