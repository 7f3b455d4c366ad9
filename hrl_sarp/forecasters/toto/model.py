"""Toto 1.0: patches of many series in, the distribution of their next patches out.

Source: Cohen et al. (2025), "This time is different: an observability perspective on time series
foundation models", and the published weights Toto-Open-Base-1.0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from hrl_sarp.config.market_schema import Section
from hrl_sarp.errors import CheckpointError
from hrl_sarp.forecasters.toto.layers import (
    XPOS_BASE,
    Cache,
    Layer,
    Surroundings,
    rotate,
    same_group,
    visible,
)
from hrl_sarp.forecasters.toto.mixture import MixtureHead, StudentTMixture
from hrl_sarp.forecasters.toto.scaler import Scaled, SeriesBatch, measure
from hrl_sarp.forecasters.weights import Count, load_into, read_sizes, read_weights, write_weights

_CLASSES = {
    "scaler_cls": ["CausalPatchStdMeanScaler"],
    "output_distribution_classes": ["MixtureOfStudentTsOutput"],
}
"""The only classes that are implemented."""
_IGNORED = (
    *("use_memory_efficient_attention", "stabilize_with_global", "scale_factor_exponent"),
    "output_distribution_kwargs",
)
"""Arguments that are looked at elsewhere, or change nothing that is computed."""
LEAST_EXPONENT = 10.0
"""From here on the scaler's clamp by the statistics of the whole series never acts."""
_PREFIX = "model."
_FUSED = ((".mlp.0.w12.", ".mlp.0."), (".mlp.0.w3.", ".mlp.2."))
"""Names of the gated layers in files of a fused kernel, and ours."""
_LABELS = ("target_variate_label", "exogenous_variate_label")


class TotoConfig(Section):
    """Sizes of Toto 1.0, by the names of its `config.json`.

    Examples:
        >>> TotoConfig.base().embed_dim
        768
        >>> TotoConfig.base().layer_axes[-2:]
        ('time', 'space')
    """

    patch_size: Count
    """P, steps of a patch."""
    embed_dim: Count
    """D."""
    num_layers: Count
    num_heads: Count
    mlp_hidden_dim: Count
    """F."""
    dropout: float = Field(ge=0, lt=1)
    spacewise_every_n_layers: int = Field(ge=-1)
    """Every so many layers one attends across series; -1 for none."""
    spacewise_first: bool
    """Whether that is the first of them, else the last."""
    k_components: Count
    """K, components of a mixture."""

    @model_validator(mode="after")
    def _layers_can_be_built(self) -> "TotoConfig":
        if self.embed_dim % (2 * self.num_heads):
            raise ValueError(
                f"embed_dim {self.embed_dim} is no multiple of twice its {self.num_heads} heads"
            )
        if self.spacewise_every_n_layers == 0:
            raise ValueError("spacewise_every_n_layers is 0")
        return self

    @classmethod
    def base(cls) -> "TotoConfig":
        """Return the sizes of Toto-Open-Base-1.0.

        Returns:
            A configuration of 151,306,080 parameters.
        """
        return cls(
            patch_size=64,
            embed_dim=768,
            num_layers=12,
            num_heads=12,
            mlp_hidden_dim=3072,
            dropout=0.1,
            spacewise_every_n_layers=12,
            spacewise_first=False,
            k_components=24,
        )

    @classmethod
    def from_published(cls, config: Mapping[str, Any], path: Path) -> "TotoConfig":
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
        plain = {**config, **_of_mixture(config, path)}
        plain |= {name: _class_names(plain[name]) for name in _CLASSES if name in plain}
        only = {**_CLASSES, "stride": config.get("patch_size", config.get("stride"))}
        clamp = config.get("scale_factor_exponent", LEAST_EXPONENT)
        if config.get("stabilize_with_global") and clamp < LEAST_EXPONENT:
            raise CheckpointError(
                f"{path}: scale_factor_exponent: expected at least {LEAST_EXPONENT:g}, found "
                f"{clamp}; the clamp that it then sets is not implemented"
            )
        return read_sizes(cls, plain, path, only=only, ignored=_IGNORED)

    def published(self) -> dict[str, Any]:
        """Return the constructor arguments that the makers' code takes.

        Returns:
            Content of `config.json`.
        """
        sizes = self.model_dump()
        return {
            "stride": self.patch_size,
            "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
            "output_distribution_classes": [
                "<class 'model.distribution.MixtureOfStudentTsOutput'>"
            ],
            "output_distribution_kwargs": {"k_components": sizes.pop("k_components")},
            "use_memory_efficient_attention": False,
            "stabilize_with_global": True,
            "scale_factor_exponent": LEAST_EXPONENT,
            **sizes,
        }

    @property
    def layer_axes(self) -> tuple[str, ...]:
        """Along which axis each layer attends: "time" or "space"."""
        every = self.spacewise_every_n_layers
        if every == -1:
            return ("time",) * self.num_layers
        place = 0 if self.spacewise_first else every - 1
        return tuple(
            "space" if number % every == place else "time" for number in range(self.num_layers)
        )


def _of_mixture(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments of the head, which the file keeps one level deeper."""
    found = config.get("output_distribution_kwargs")
    if not isinstance(found, dict) or set(found) != {"k_components"}:
        raise CheckpointError(
            f"{path}: output_distribution_kwargs: expected k_components alone, found {found!r}"
        )
    return found


def _class_names(shown: object) -> list[str]:
    """Return `[C]` of `<class 'a.b.C'>`, of `a.b.C`, and of a list of it."""
    entries = shown if isinstance(shown, list) else [shown]
    return [str(entry).removesuffix("'>").rsplit(".", 1)[-1] for entry in entries]


class Toto(nn.Module):
    """Toto 1.0.

    Args:
        config: sizes.
        labels: whether series begin with a token that says whether they are targets or exogenous.

    Examples:
        >>> small = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, "mlp_hidden_dim": 8}
        >>> config = TotoConfig.base().model_copy(update=small)
        >>> batch = SeriesBatch.alone(torch.arange(12.0).unsqueeze(0))
        >>> mixture, scaled = Toto(config)(batch)
        >>> tuple(mixture.mean.shape), tuple(scaled.loc.shape)
        ((1, 1, 12), (1, 1, 3))
    """

    def __init__(self, config: TotoConfig, *, labels: bool = False) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        if labels:
            for name in _LABELS:
                self.register_parameter(name, nn.Parameter(torch.randn(width)))
        self.has_labels = labels
        self.patch_embed = nn.ModuleDict({"projection": nn.Linear(config.patch_size, width)})
        layers = [
            Layer(
                width,
                config.num_heads,
                config.mlp_hidden_dim,
                config.dropout,
                over_time=axis == "time",
            )
            for axis in config.layer_axes
        ]
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.unembed = nn.Linear(width, width * config.patch_size)
        self.output_distribution = MixtureHead(width, config.k_components)

    def scale(self, batch: SeriesBatch) -> Scaled:
        """Measure every patch by the mean and deviation up to its own end.

        Args:
            batch: T is a multiple of the patch size.

        Returns:
            Scaled values in the precision of the weights, and the statistics.
        """
        return measure(batch, self.config.patch_size, self.unembed.weight.dtype)

    def embed(self, scaled: Float[Tensor, "B V T"]) -> Float[Tensor, "B V S D"]:
        """Project patches.

        Args:
            scaled: values of `Scaled`.

        Returns:
            One vector per patch.
        """
        patches = scaled.unflatten(-1, (-1, self.config.patch_size))
        return self.patch_embed.get_submodule("projection")(patches)

    def hidden(
        self, batch: SeriesBatch, patches: Float[Tensor, "B V Q D"], cache: Cache | None = None
    ) -> Float[Tensor, "B V Q D"]:
        """Pass patches through all layers.

        Args:
            batch: whom they belong to.
            patches: embedded; with a cache, only those that it has not seen.
            cache: takes the new patches in.

        Returns:
            One vector per patch; it depends on the patches up to it.
        """
        n_before = 0 if cache is None else cache.n_tokens
        n_labels = int(self.has_labels)
        tokens = patches
        if self.has_labels and not n_before:
            tokens = torch.cat([self._label_tokens(batch).to(patches.dtype), patches], dim=2)
        around = self._surroundings(batch, tokens, n_before, cache)
        for number, layer in enumerate(self.transformer.get_submodule("layers").children()):
            tokens = layer(tokens, around, number)
        if cache is not None:
            cache.n_tokens += tokens.shape[2]
        return tokens if n_before else tokens[:, :, n_labels:]

    def distribution(
        self, hidden: Float[Tensor, "B V Q D"], n_steps: int | None = None
    ) -> StudentTMixture:
        """Read the distributions of the steps one patch later.

        Args:
            hidden: of `hidden`.
            n_steps: first steps of each patch to read, at most P; None for all. It saves the time
                of reading the others.

        Returns:
            Mixtures (B, V, Q * n, K) of scaled values: that of step i is about the value at i + P,
            in the mean and deviation of step i.
        """
        size = self.config.patch_size
        n_steps = size if n_steps is None else n_steps
        rows = n_steps * self.config.embed_dim
        if n_steps == size:  # in training, the layer may be more than its weight
            opened = self.unembed(hidden)
        else:
            opened = functional.linear(hidden, self.unembed.weight[:rows], self.unembed.bias[:rows])
        return self.output_distribution(opened.unflatten(-1, (n_steps, -1)).flatten(2, 3))

    def forward(self, batch: SeriesBatch) -> tuple[StudentTMixture, Scaled]:
        """Return the distribution at every step, and the scale that it is in.

        Args:
            batch: T is a multiple of the patch size.

        Returns:
            Mixtures as in `distribution`, and the scaled batch.
        """
        scaled = self.scale(batch)
        return self.distribution(self.hidden(batch, self.embed(scaled.values))), scaled

    def next_patch(
        self, batch: SeriesBatch, cache: Cache | None = None, n_steps: int | None = None
    ) -> StudentTMixture:
        """Return the distribution of the steps after the last one, in the unit of the values.

        Args:
            batch: T is a multiple of the patch size.
            cache: of the patches before; new ones are computed and taken in.
            n_steps: n, at most P; None for P.

        Returns:
            Mixtures (B, V, n, K).
        """
        scaled, size = self.scale(batch), self.config.patch_size
        n_seen = 0 if cache is None else max(cache.n_tokens - int(self.has_labels), 0)
        patches = self.embed(scaled.values[..., n_seen * size :])
        mixture = self.distribution(self.hidden(batch, patches, cache)[:, :, -1:], n_steps)
        shape = mixture.loc.shape[:-1]
        return mixture.moved(
            scaled.loc[..., -1:].expand(shape), scaled.scale[..., -1:].expand(shape)
        )

    def _label_tokens(self, batch: SeriesBatch) -> Float[Tensor, "B V 1 D"]:
        target, exogenous = (functional.normalize(getattr(self, name), dim=0) for name in _LABELS)
        n_series = batch.values.shape[1]
        is_exogenous = torch.arange(n_series, device=target.device) >= n_series - batch.n_exogenous
        labels = torch.where(is_exogenous[:, None], exogenous, target)
        return labels.expand(batch.values.shape[0], -1, -1).unsqueeze(2)

    def _surroundings(
        self, batch: SeriesBatch, tokens: Tensor, n_before: int, cache: Cache | None
    ) -> Surroundings:
        n_new, n_labels = tokens.shape[2], int(self.has_labels)
        starts = torch.zeros_like(batch.groups) if batch.starts is None else batch.starts
        numbers = torch.arange(n_before, n_before + n_new, device=tokens.device)
        positions = numbers.to(tokens.dtype)
        is_padded = batch.starts is not None
        if is_padded:
            # a padded series has the positions that it would have without padding
            shifted = positions - starts[..., None, None].to(tokens.dtype)
            positions = torch.where(numbers < n_labels, positions, shifted.clamp(min=0.0))
        # with one token to come and no padding, and in a first pass, no mask is faster
        needs_mask = is_padded or (n_before > 0 and n_new > 1)
        rotation = rotate(
            positions,
            self.config.embed_dim // self.config.num_heads,
            cache.centre if cache is not None else n_new / 2,
            xpos_base=XPOS_BASE,
            interleaved=False,
        )
        return Surroundings(
            rotation,
            visible(starts, n_before, n_new, n_labels) if needs_mask else None,
            same_group(batch.groups, starts, numbers - n_labels),
            cache,
        )


def load_toto(path: Path) -> Toto:
    """Load Toto 1.0 from published files or from ours.

    Args:
        path: folder of `model.safetensors` and `config.json`, or a file of weights. Without a
            configuration the weights must be those of Toto-Open-Base-1.0, because the number of
            heads cannot be seen in them.

    Returns:
        The model in float32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: names the tensor or the switch, what was expected and what was found.
        MissingArtifactError: if there is no such file.
    """
    found = read_weights(path)
    state = {
        _our_name(name): part for name, part in found.state.items() if "rotary_emb" not in name
    }
    is_base = found.config is None
    config = TotoConfig.base() if is_base else TotoConfig.from_published(found.config or {}, path)
    model = Toto(config, labels=any(name in state for name in _LABELS))
    try:
        load_into(model, state, path)
    except CheckpointError as error:
        if not is_base:
            raise
        raise CheckpointError(
            f"{error}. Without a config.json the sizes of Toto-Open-Base-1.0 are expected"
        ) from error
    return model.eval()


def save_toto(folder: Path, model: Toto) -> Path:
    """Write a model under its published names, so that the makers' code loads it, too.

    Args:
        folder: gets `model.safetensors` and `config.json`.
        model: Toto 1.0.

    Returns:
        The file of the weights.
    """
    state = {_PREFIX + name: part for name, part in model.state_dict().items()}
    return write_weights(folder, state, model.config.published())


def _our_name(name: str) -> str:
    name = name.removeprefix(_PREFIX)
    for published, ours in _FUSED:
        name = name.replace(published, ours)
    return name
