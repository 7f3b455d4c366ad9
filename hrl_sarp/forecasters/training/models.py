"""The models that can be trained: how each is made, read, frozen, trained and written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from hrl_sarp.config.encoder_schema import ForecasterModelConfig
from hrl_sarp.errors import ConfigError, UsageError
from hrl_sarp.fitting import Task
from hrl_sarp.forecasters.kronos.files import load_predictor, load_tokenizer
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sizes import (
    PREDICTORS,
    TOKENIZER_BASE,
    PredictorSize,
    TokenizerSize,
)
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer
from hrl_sarp.forecasters.toto.model import Toto, TotoConfig, load_toto, save_toto
from hrl_sarp.forecasters.training.tasks import PredictorTask, TokenizerTask, TotoTask
from hrl_sarp.forecasters.training.windows import ForecastWindows
from hrl_sarp.forecasters.weights import write_weights

TOTO, KRONOS, TOKENIZER = "toto", "kronos", "kronos-tokenizer"


@dataclass(frozen=True)
class Trainable:
    """How one model is trained."""

    make: Callable[[Mapping[str, Any], nn.Module | None], nn.Module]
    """From sizes of the configuration, and the tokenizer where it needs one."""
    load: Callable[[Path], nn.Module]
    save: Callable[[Path, Any], Any]
    """Writes weights under their published names, and `config.json`."""
    heads: tuple[str, ...]
    """Beginnings of the names of the last layers, which --freeze trains alone."""
    task: Callable[..., Task]
    """From model, windows, device and the setting that `setting` names."""
    setting: str
    """Setting of the task: `nll_weight` or `clip`."""


def make_task(
    model: str,
    module: nn.Module,
    tokenizer: nn.Module | None,
    windows: ForecastWindows,
    device: torch.device,
    settings: ForecasterModelConfig,
) -> Task:
    """Make the task of the training loop.

    Args:
        model: key of `TRAINABLE`.
        module: trained in place.
        tokenizer: of `kronos`; None for the others.
        windows: to train and validate on.
        device: of the training.
        settings: of the model.

    Returns:
        The task.

    Raises:
        UsageError: if the windows do not have the form that the module reads.
    """
    if isinstance(module, Toto):
        patch = module.config.patch_size
        if windows.horizon != patch or windows.context % patch:
            raise UsageError(
                f"Toto has patches of {patch} bars: expected a horizon of {patch} and a context of "
                f"a multiple of {patch} (models.toto in forecasters.yaml), found {windows.horizon} "
                f"and {windows.context}"
            )
    parts = (module,) if tokenizer is None else (module, tokenizer)
    kind = TRAINABLE[model]
    return kind.task(*parts, windows, device, getattr(settings, kind.setting))


def _make_toto(sizes: Mapping[str, Any], _tokenizer: nn.Module | None) -> Toto:
    return Toto(_sized(TotoConfig, TOTO, TotoConfig.base().model_dump(), sizes))


def _make_tokenizer(sizes: Mapping[str, Any], _tokenizer: nn.Module | None) -> KronosTokenizer:
    return KronosTokenizer(_sized(TokenizerSize, TOKENIZER, TOKENIZER_BASE.model_dump(), sizes))


def _make_predictor(sizes: Mapping[str, Any], tokenizer: nn.Module | None) -> KronosPredictor:
    if not isinstance(tokenizer, KronosTokenizer):
        raise UsageError("kronos needs a tokenizer: name one with --tokenizer")
    bits = {name: getattr(tokenizer.size, name) for name in ("s1_bits", "s2_bits")}
    base = PREDICTORS["mini"].model_dump() | bits
    return KronosPredictor(_sized(PredictorSize, KRONOS, base, sizes))


def _sized(kind: Any, model: str, base: dict[str, Any], sizes: Mapping[str, Any]) -> Any:
    try:
        return kind(**{**base, **sizes})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"models.{model}.sizes: {where}: {first['msg']}, found {first['input']!r}"
        ) from error


def _save_kronos_part(folder: Path, module: KronosTokenizer | KronosPredictor) -> Path:
    return write_weights(folder, module.state_dict(), module.size.model_dump())


TRAINABLE = {
    TOTO: Trainable(
        _make_toto,
        load_toto,
        save_toto,
        ("unembed", "output_distribution"),
        TotoTask,
        "nll_weight",
    ),
    TOKENIZER: Trainable(
        _make_tokenizer,
        load_tokenizer,
        _save_kronos_part,
        ("post_quant_embed", "head"),
        TokenizerTask,
        "clip",
    ),
    KRONOS: Trainable(
        _make_predictor,
        load_predictor,
        _save_kronos_part,
        ("dep_layer", "head"),
        PredictorTask,
        "clip",
    ),
}
"""Value of --model -> how it is trained."""
