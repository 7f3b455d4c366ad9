"""A fine-tuning job: labelled windows, their split, the model and what scales its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int

from hrl_sarp.config.encoder_schema import FinetuneVariantConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import ConfigError, HrlSarpError
from hrl_sarp.price_action.expansions.losses import Targets, balanced_weight, make_targets
from hrl_sarp.price_action.expansions.measures import Truth, measures, trivial_measures
from hrl_sarp.price_action.expansions.model import JadeMultiTask
from hrl_sarp.price_action.expansions.pretrained import Pretrained, load_pretrained
from hrl_sarp.price_action.expansions.training import MultiTaskTrainer, Taught, TrainingRun
from hrl_sarp.price_action.expansions.windows import (
    GroupSplit,
    LabelledWindows,
    read_labelled,
    require_both_classes,
    split_by_group,
    window_features,
)
from hrl_sarp.run.session import StopFlag, derive_seed

FIRST_WEIGHTS, SPLIT, UPDATES = range(3)
"""Roles of the seed."""


@dataclass(frozen=True)
class FinetuneRequest:
    """What to fine-tune; how stands in the configuration."""

    variant: str
    data: Path
    output: Path
    pretrained: Path | None
    """An export of `pretrain-encoder`; None starts from random weights."""
    is_frozen: bool
    """The encoder keeps its pretrained weights."""
    device: torch.device
    config: RunConfig
    resume: bool


@dataclass(frozen=True)
class Outcome:
    """Measures on the test windows, and those of rules that never look at one."""

    model: dict[str, float]
    trivial: dict[str, float]


@dataclass(frozen=True)
class Job:
    """A model and its windows: everything that can be wrong with either is known."""

    request: FinetuneRequest
    windows: LabelledWindows
    split: GroupSplit
    model: JadeMultiTask
    inputs: Float32[np.ndarray, "W L F"]
    """Scaled, as the encoder reads them."""
    scaler: Scaler
    """What scaled them."""
    targets: Targets
    pretrained: Pretrained | None

    @property
    def variant(self) -> FinetuneVariantConfig:
        """Of the configuration."""
        return self.request.config.encoders.finetuning.variants[self.request.variant]

    @property
    def pos_weight(self) -> float:
        """Weight of bars inside, in the span loss."""
        given = self.variant.span_pos_weight
        inside = self.targets.inside[torch.from_numpy(self.split.train)]
        return balanced_weight(inside) if given is None else given

    def trainer(self, stop: StopFlag) -> MultiTaskTrainer:
        """Return what trains the model, on the device asked for."""
        device, config = self.request.device, self.request.config
        data = Taught(
            torch.from_numpy(self.inputs).to(device),
            self.targets.to(device),
            torch.from_numpy(self.split.train).to(device),
            torch.from_numpy(self.split.validation).to(device),
        )
        run = TrainingRun(
            config.encoders.finetuning,
            self.variant.batch_size,
            self.pos_weight,
            self.request.is_frozen,
            derive_seed(config.seed, UPDATES),
            stop,
        )
        return MultiTaskTrainer(self.model.to(device), data, run)

    def truth(self, rows: Int[np.ndarray, " W"]) -> Truth:
        """Return the targets of some windows as the measures read them."""
        some = self.targets.rows(torch.from_numpy(rows))
        pointers = some.pointers.double().numpy()
        return Truth(some.label.numpy(), pointers, some.inside.numpy() > 0)

    def judge(self, trainer: MultiTaskTrainer) -> Outcome:
        """Measure the model as it is on the test windows."""
        rows = torch.from_numpy(self.split.test).to(self.request.device)
        _, found = trainer.look_at(rows)
        truth = self.truth(self.split.test)
        model = measures(found, truth)
        trivial = trivial_measures(self.truth(self.split.train), truth)
        return Outcome(model, {name: trivial[name] for name in model})


def prepare(request: FinetuneRequest) -> Job:
    """Read the windows, split them by groups and make the model; writes nothing.

    Raises:
        ConfigError: if there is no such variant.
        HrlSarpError: if an encoder is to be frozen that nothing was loaded into.
        MissingArtifactError: if a file is not there.
        DataError: if the labelled windows cannot be used.
        CheckpointError: if the pretrained encoder does not fit.
    """
    config = request.config
    _require_possible(request)
    windows = read_labelled(request.data, config.windowed.window_length)
    settings = config.encoders.finetuning
    seed = derive_seed(config.seed, SPLIT)
    split = split_by_group(windows.group, settings.val_share, settings.test_share, seed)
    return assemble(request, windows, split)


def assemble(request: FinetuneRequest, windows: LabelledWindows, split: GroupSplit) -> Job:
    """Make the model and its inputs for a split that is given.

    Raises:
        DataError: if training has windows of one class only.
        CheckpointError: if the pretrained encoder does not fit.
    """
    require_both_classes(windows.label[split.train], "training windows")
    config = request.config
    variant = config.encoders.finetuning.variants[request.variant]
    torch.manual_seed(derive_seed(config.seed, FIRST_WEIGHTS))
    dropout, jade = config.encoders.finetuning.dropout, config.encoders.jade
    model = JadeMultiTask(len(variant.features), jade, variant.tasks, dropout)
    pretrained = None
    if request.pretrained is not None:
        pretrained = load_pretrained(request.pretrained, model.encoder, variant.features, jade)
    table = window_features(windows.ohlc, variant.features, config.windowed.feature_config)
    scaler = _scaler(table[split.train], variant.features, pretrained)
    return Job(
        request,
        windows,
        split,
        model,
        scaler.apply(table),
        scaler,
        make_targets(windows, config.encoders.finetuning.countdown_bars),
        pretrained,
    )


def _require_possible(request: FinetuneRequest) -> None:
    variants = request.config.encoders.finetuning.variants
    if request.variant not in variants:
        raise ConfigError(
            f"no variant '{request.variant}': expected one of {', '.join(variants)}; see "
            "encoders.finetuning.variants in encoder_config.yaml"
        )
    if request.is_frozen and request.pretrained is None:
        raise HrlSarpError(
            "--freeze-encoder keeps the encoder's weights, and random ones are no use: name a "
            "pretrained encoder with --pretrained-encoder"
        )


def _scaler(
    training: Float32[np.ndarray, "W L F"], columns: Sequence[str], pretrained: Pretrained | None
) -> Scaler:
    """Return the scaling of pretraining for the columns it had, that of training for the others."""
    scaler = Scaler.fit(training)
    for place, name in enumerate(columns):
        if pretrained is not None and name in pretrained.scaling:
            scaler.mean[place], scaler.std[place] = pretrained.scaling[name]
    return scaler
