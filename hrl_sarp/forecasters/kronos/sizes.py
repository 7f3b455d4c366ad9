"""Sizes of Kronos networks: the published ones, those of a `config.json`, those of bare tensors.

Field names are the constructor names of the published models, so `config.json` serves both.
"""

import re
from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor

from hrl_sarp.config.market_schema import Section
from hrl_sarp.errors import CheckpointError
from hrl_sarp.forecasters.weights import CONFIG, Count, WeightFile, read_sizes

DEPENDENCY_HEADS = 4
"""Heads of the layer that leads from s1 to s2, in every size."""
N_COLUMNS = 6
"""Open, high, low, close, volume, amount."""
DEFAULT_CONTEXT = 512
"""Rows that all published predictors but mini were trained to read at most."""

Bits = Annotated[int, Field(ge=1, le=20)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _require_even_heads(d_model: int, n_heads: int) -> None:
    if d_model % (2 * n_heads):
        raise ValueError(f"d_model {d_model} is no multiple of twice its {n_heads} heads")


class TokenizerSize(Section):
    """Size and loss of a tokenizer.

    Examples:
        >>> TOKENIZER_BASE.d_model, TOKENIZER_BASE.s1_bits
        (256, 10)
    """

    d_in: Count
    """Columns of a bar."""
    d_model: Count
    n_heads: Count
    ff_dim: Count
    n_enc_layers: Count
    """One more than there are blocks."""
    n_dec_layers: Count
    """One more than there are blocks."""
    ffn_dropout_p: Share
    attn_dropout_p: Share
    resid_dropout_p: Share
    s1_bits: Bits
    """Bits of s1, the coarse half of a token."""
    s2_bits: Bits
    """Bits of s2, the fine half of a token."""
    beta: float
    """Weight of the distance to the code in the loss."""
    gamma0: float
    """Weight of the entropy of each bar's bits: bits that are sure cost less."""
    gamma: float
    """Weight of the entropy of the mean bits: codes that are used evenly cost less."""
    zeta: float
    """Weight of both entropies."""
    group_size: Count
    """Length of a buffer of the file. It changes no output and no loss."""

    @model_validator(mode="after")
    def _heads_can_turn(self) -> "TokenizerSize":
        _require_even_heads(self.d_model, self.n_heads)
        return self


class PredictorSize(Section):
    """Size of a predictor.

    Examples:
        >>> PREDICTORS["mini"].d_model
        256
    """

    s1_bits: Bits
    s2_bits: Bits
    n_layers: Count
    d_model: Count
    n_heads: Count
    ff_dim: Count
    ffn_dropout_p: Share
    attn_dropout_p: Share
    resid_dropout_p: Share
    token_dropout_p: Share
    learn_te: bool
    """Whether the tables of the time are learned; otherwise they are sines that stay."""

    @model_validator(mode="after")
    def _heads_can_turn(self) -> "PredictorSize":
        _require_even_heads(self.d_model, self.n_heads)
        _require_even_heads(self.d_model, DEPENDENCY_HEADS)
        return self


TOKENIZER_BASE = TokenizerSize(
    d_in=N_COLUMNS,
    d_model=256,
    n_heads=4,
    ff_dim=512,
    n_enc_layers=4,
    n_dec_layers=4,
    ffn_dropout_p=0.0,
    attn_dropout_p=0.0,
    resid_dropout_p=0.0,
    s1_bits=10,
    s2_bits=10,
    beta=0.05,
    gamma0=1.0,
    gamma=1.1,
    zeta=0.05,
    group_size=4,
)
TOKENIZER_2K = TOKENIZER_BASE.model_copy(update={"group_size": 5})
_SMALL = PredictorSize(
    s1_bits=10,
    s2_bits=10,
    n_layers=8,
    d_model=512,
    n_heads=8,
    ff_dim=1024,
    ffn_dropout_p=0.25,
    attn_dropout_p=0.1,
    resid_dropout_p=0.25,
    token_dropout_p=0.1,
    learn_te=True,
)
_LIGHT_DROPOUT = {
    "ffn_dropout_p": 0.2,
    "attn_dropout_p": 0.0,
    "resid_dropout_p": 0.2,
    "token_dropout_p": 0.0,
}
PREDICTORS = {
    "mini": _SMALL.model_copy(
        update={"n_layers": 4, "d_model": 256, "n_heads": 4, "ff_dim": 512} | _LIGHT_DROPOUT
    ),
    "small": _SMALL,
    "base": _SMALL.model_copy(
        update={"n_layers": 12, "d_model": 832, "n_heads": 16, "ff_dim": 2048} | _LIGHT_DROPOUT
    ),
}
"""The published predictors. Mini belongs to `TOKENIZER_2K`, the others to `TOKENIZER_BASE`."""
CONTEXTS = {"mini": 2048}
"""Rows that a published predictor reads at most, where these are not `DEFAULT_CONTEXT`."""


def published_name(size: PredictorSize) -> str | None:
    """Return the name of a published size.

    Args:
        size: of a predictor; its dropouts do not matter.

    Returns:
        The key of `PREDICTORS`, or None.
    """
    shape = {"s1_bits", "s2_bits", "n_layers", "d_model", "n_heads", "ff_dim", "learn_te"}
    wanted = size.model_dump(include=shape)
    names = [
        name for name, known in PREDICTORS.items() if known.model_dump(include=shape) == wanted
    ]
    return names[0] if names else None


def tokenizer_size(weights: WeightFile) -> TokenizerSize:
    """Return the size of a tokenizer's file.

    Args:
        weights: with `config.json`, or the tensors alone. Dropouts and the weights of the loss are
            in no tensor, so they are then those of `TOKENIZER_BASE`.

    Returns:
        The size.

    Raises:
        CheckpointError: if the size is incomplete, impossible or not that of a tokenizer.
    """
    if weights.config is not None:
        return read_sizes(TokenizerSize, weights.config, weights.path)
    tensors = _Tensors(weights)
    found = {
        "d_in": tensors.length("embed.weight", 1),
        "d_model": tensors.length("embed.weight", 0),
        "n_heads": tensors.heads("embed.weight", "decoder.0.", "encoder.0."),
        "ff_dim": tensors.feed_forward("decoder.0.", "encoder.0."),
        "n_enc_layers": tensors.blocks("encoder") + 1,
        "n_dec_layers": tensors.blocks("decoder") + 1,
        "s1_bits": tensors.length("post_quant_embed_pre.weight", 1),
        "s2_bits": tensors.length("quant_embed.weight", 0)
        - tensors.length("post_quant_embed_pre.weight", 1),
        "group_size": tensors.length("tokenizer.bsq.group_basis", 0),
    }
    return read_sizes(TokenizerSize, TOKENIZER_BASE.model_dump() | found, weights.path)


def predictor_size(weights: WeightFile) -> PredictorSize:
    """Return the size of a predictor's file.

    Args:
        weights: with `config.json`, or the tensors alone. Dropouts are in no tensor, so they are
            then 0.

    Returns:
        The size.

    Raises:
        CheckpointError: if the size is incomplete, impossible or not that of a predictor.
    """
    if weights.config is not None:
        return read_sizes(PredictorSize, weights.config, weights.path)
    tensors = _Tensors(weights)
    dropouts = ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p", "token_dropout_p")
    found = {
        "s1_bits": tensors.bits("embedding.emb_s1.weight"),
        "s2_bits": tensors.bits("embedding.emb_s2.weight"),
        "n_layers": tensors.blocks("transformer"),
        "d_model": tensors.length("norm.weight", 0),
        "n_heads": tensors.heads("norm.weight", "transformer.0."),
        "ff_dim": tensors.feed_forward("transformer.0."),
        "learn_te": "time_emb.minute_embed.emb.weight" not in weights.state,
    }
    return read_sizes(PredictorSize, found | dict.fromkeys(dropouts, 0.0), weights.path)


class _Tensors:
    """Tells sizes from the shapes of tensors; a tensor that is not there is an error."""

    def __init__(self, weights: WeightFile) -> None:
        self.path, self.state = weights.path, weights.state

    def length(self, name: str, axis: int) -> int:
        tensor = self._tensor(name)
        if axis >= tensor.ndim:
            raise CheckpointError(
                f"{self.path}: {name}: expected at least {axis + 1} axes, found shape "
                f"{tuple(tensor.shape)}; name the file of the other network?"
            )
        return tensor.shape[axis]

    def bits(self, name: str) -> int:
        """Return n for a table of 2**n rows."""
        rows = self.length(name, 0)
        if rows < 1 or rows & (rows - 1):
            raise CheckpointError(
                f"{self.path}: {name}: expected a power of two of rows, found {rows}; restore the "
                "file"
            )
        return rows.bit_length() - 1

    def blocks(self, stack: str) -> int:
        numbers = [re.match(rf"{stack}\.(\d+)\.", name) for name in self.state]
        return 1 + max((int(number[1]) for number in numbers if number), default=-1)

    def heads(self, width: str, *blocks: str) -> int:
        """Return how many heads there are: each has one frequency for two columns."""
        frequencies = self.length(self._in_first(blocks, "self_attn.rotary.inv_freq"), 0)
        return max(self.length(width, 0) // max(2 * frequencies, 1), 1)

    def feed_forward(self, *blocks: str) -> int:
        return self.length(self._in_first(blocks, "ffn.w1.weight"), 0)

    def _in_first(self, blocks: tuple[str, ...], name: str) -> str:
        there = [block + name for block in blocks if block + name in self.state]
        return there[0] if there else blocks[0] + name

    def _tensor(self, name: str) -> Tensor:
        if name not in self.state:
            raise CheckpointError(
                f"{self.path}: expected the tensor {name}, found {len(self.state)} others and no "
                f"{CONFIG}; name the folder of a Kronos tokenizer or predictor"
            )
        return self.state[name]
