"""What a trial of `tune-forecaster` tries, as settings of a training; the best ones as a file."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.config.loading import (
    DEFAULT_CONFIG_DIR,
    FORECASTERS,
    dump_config,
    flattened,
    load_apart,
    nested,
)
from hrl_sarp.config.study_schema import SearchSpace
from hrl_sarp.errors import ConfigError
from hrl_sarp.forecasters.training.models import TOTO
from hrl_sarp.forecasters.training.run import Pretrained
from hrl_sarp.studies.tuning.space import ends_of

CONTEXT_PATCHES, WAY = "context_patches", "way"
"""Keys that stand for others: the context of Toto in patches, and what is trained of --weights."""
ALL, FREEZE = "all", "freeze"
PATCH = "sizes.patch_size"
FIXED = {
    "epochs": "all trials have those of --epochs, which Hyperband cuts short",
    "sampling.temperature": "`tuning.temperatures` are tried after the best trial",
    "sampling.top_p": "`tuning.top_ps` are tried after the best trial",
}
"""Keys that no trial may change -> why."""
OF_PATCHES = ("context", "horizon")
"""Settings of Toto that follow from its patches."""


def space_of(settings: ForecastersConfig, model: str, start: Pretrained) -> SearchSpace:
    """Return what is tried.

    Args:
        settings: with the spaces of all models.
        model: value of --model.
        start: what trainings begin with.

    Returns:
        The space of trainings from scratch, or of --weights.
    """
    found = settings.tuning.spaces[model]  # type: ignore[index]  # checked by the command
    return found.scratch if start.weights is None else found.weights


def tried_settings(
    settings: ForecastersConfig, model: str, values: Mapping[str, Any]
) -> ForecastersConfig:
    """Lay the values of a trial over the settings.

    Args:
        settings: that all trials share.
        model: value of --model.
        values: key -> value. Toto forecasts one patch, so its horizon and context follow.

    Returns:
        The settings of the trial.

    Raises:
        ConfigError: if a value has the wrong type or is out of range.
    """
    plain = settings.model_dump()
    own = plain["models"][model]
    for key, value in values.items():
        if key in (CONTEXT_PATCHES, WAY):
            continue
        *sections, last = key.split(".")
        inner = own
        for section in sections:
            inner = inner[section]
        inner[last] = value
    if model == TOTO:
        patch = values.get(PATCH, own["horizon"])
        patches = values.get(CONTEXT_PATCHES, max(own["context"] // patch, 1))
        own |= {"horizon": patch, "context": patches * patch}
    try:
        return ForecastersConfig(**plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {first['msg']}, found {first['input']!r}") from error


def tried_start(start: Pretrained, values: Mapping[str, Any]) -> Pretrained:
    """Lay the way of a trial over what all trials begin with.

    Args:
        start: that all trials share.
        values: key -> value.

    Returns:
        The same weights, with what is trained of them.

    Examples:
        >>> tried_start(Pretrained(), {"way": 4}).lora_rank
        4
    """
    way = values.get(WAY, ALL)
    rank = way if isinstance(way, int) else None
    return replace(start, freeze=way == FREEZE, lora_rank=rank)


def require_forecaster_space(settings: ForecastersConfig, model: str, start: Pretrained) -> None:
    """Refuse a space that does not fit the settings, before the first trial.

    Args:
        settings: with the space.
        model: value of --model.
        start: what trainings begin with.

    Raises:
        ConfigError: naming every key that is no setting, every one that trials share, and every
            value that the settings do not take.
    """
    space = space_of(settings, model, start)
    keys = [*space.floats, *space.ints, *space.choices]
    problems = [told for key in keys for told in _problems_of_key(key, settings, model, start)]
    problems = problems or [
        told for end in ends_of(space) for told in _problems_of_value(*end, settings, model)
    ]
    if problems:
        name = "scratch" if start.weights is None else "weights"
        raise ConfigError("\n  ".join([f"cannot use tuning.spaces.{model}.{name}:", *problems]))


def _problems_of_key(
    key: str, settings: ForecastersConfig, model: str, start: Pretrained
) -> Iterator[str]:
    known = flattened(settings.models[model].model_dump())  # type: ignore[index]
    stand_ins = {CONTEXT_PATCHES: model == TOTO, WAY: start.weights is not None}
    if key in FIXED:
        yield f"{key}: {FIXED[key]}"
    elif model == TOTO and key in OF_PATCHES:
        yield f"{key}: it follows from {CONTEXT_PATCHES} and {PATCH}, which may be tried"
    elif start.weights is not None and key.startswith("sizes."):
        yield f"{key}: --weights have their own sizes; leave it out"
    elif not stand_ins.get(key, key in known):
        allowed = [name for name, is_allowed in stand_ins.items() if is_allowed]
        yield f"{key}: expected a key of models.{model}{''.join(f' or {a}' for a in allowed)}"


def _problems_of_value(
    key: str, value: Any, settings: ForecastersConfig, model: str
) -> Iterator[str]:
    is_rank = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if key == WAY and not (is_rank or value in (ALL, FREEZE)):
        yield f"{key}: expected {ALL}, {FREEZE} or a rank from 1, found {value!r}"
    elif key == CONTEXT_PATCHES and not is_rank:
        yield f"{key}: expected a number of patches from 1, found {value!r}"
    elif key != WAY:
        try:
            tried_settings(settings, model, {key: value})
        except ConfigError as error:
            yield f"{key}: {error}"


def settings_file(settings: ForecastersConfig, heading: str) -> str:
    """Write settings as a file of `train-forecaster --settings`.

    Args:
        settings: of a trial.
        heading: comment lines before the values.

    Returns:
        YAML of the values that differ from `config/forecasters.yaml`; what is tried is left out.
    """
    path = DEFAULT_CONFIG_DIR / FORECASTERS
    usual = load_apart(path, ForecastersConfig, "the settings of forecasters")
    there, here = (
        flattened(each.model_dump(mode="json", exclude={"tuning"})) for each in (usual, settings)
    )
    changed = {key: value for key, value in here.items() if key not in there or there[key] != value}
    return heading + dump_config(nested(changed))
