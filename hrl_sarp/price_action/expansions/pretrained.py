"""A pretrained Jade under other input columns: weights go by the names of the columns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.encoders.transfer import WRITER, LoadReport, load_encoder, read_description
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError

KIND = "jade"
INPUT_WEIGHTS = ("lstm.weight_ih_l0", "lstm.weight_ih_l0_reverse")
"""Weights with a column for each input."""


@dataclass(frozen=True)
class Pretrained:
    """What an encoder brought along."""

    report: LoadReport
    """Input columns are listed as `input <name>`; those that are missing start at weight 0."""
    scaling: dict[str, tuple[float, float]]
    """Mean and deviation by which each of its columns was scaled; 0 and 1 if it was not."""
    fitted_to: str
    """Last bar that it was fitted to; labelled windows before it are not new to it."""
    weights_hash: str
    """SHA-256 of its weights, by name."""


def load_pretrained(
    path: Path, encoder: JadeEncoder, columns: Sequence[str], config: JadeConfig
) -> Pretrained:
    """Fill an encoder from one that was pretrained on other columns, in any order.

    Weights of a column that both have are copied, those of a new one set to 0: before fine-tuning
    the encoder says what it said in pretraining.
    """
    description = read_description(path)
    there = tuple(str(name) for name in description["columns"])
    if description["kind"] != KIND or not set(there) & set(columns):
        raise CheckpointError(
            f"{path}: expected a {KIND} encoder with some of the columns {', '.join(columns)}; "
            f"found kind {description['kind']} with {', '.join(there)}; pretrain one on these"
        )
    scaling = dict.fromkeys(there, (0.0, 1.0))
    if description["scaler"] is not None:
        scaler = Scaler.from_plain(description["scaler"], len(there), str(path), WRITER)
        moments = zip(scaler.mean.tolist(), scaler.std.tolist(), strict=True)
        scaling = dict(zip(there, moments, strict=True))
    source = JadeEncoder(len(there), config)
    inputs = {name: source.state_dict()[name] for name in INPUT_WEIGHTS}
    source.load_state_dict(encoder.state_dict() | inputs)  # what the file lacks stays
    report = load_encoder(path, source)
    state = source.state_dict()
    for name in INPUT_WEIGHTS:
        state[name] = rearranged(state[name], there, columns)
    encoder.load_state_dict(state)
    new, unused = (
        tuple(f"input {name}" for name in first if name not in second)
        for first, second in ((columns, there), (there, columns))
    )
    report = LoadReport(report.missing + new, report.unexpected + unused)
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return Pretrained(report, scaling, str(description["fitted_to"]), digest.hexdigest())


def rearranged(
    weights: Float[Tensor, "G N"], there: Sequence[str], here: Sequence[str]
) -> Float[Tensor, "G M"]:
    """Put input weights in the order of other columns."""
    result = torch.zeros(len(weights), len(here))
    for place, name in enumerate(here):
        if name in there:
            result[:, place] = weights[:, there.index(name)]
    return result
