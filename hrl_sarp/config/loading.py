"""Reads the YAML configuration from config/*.yaml. No other module does."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, TypeVar, get_args

import yaml
from loguru import logger
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hrl_sarp.config.consistency import (
    RENAMED_KEYS,
    RETIRED_KEYS,
    find_contradictions,
    plain_number,
)
from hrl_sarp.config.encoder_schema import WindowedConfig
from hrl_sarp.config.market_schema import DATED, SHARED, Section
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import StudyConfig
from hrl_sarp.errors import ConfigError, OverwriteError

_IN_WHEEL = Path(__file__).resolve().parent / "defaults"
DEFAULT_CONFIG_DIR = _IN_WHEEL if _IN_WHEEL.is_dir() else _IN_WHEEL.parents[2] / "config"
"""`config/` of the repository, or its copy in an installed wheel."""
AS_WRITTEN = r"(?!.*:|[-+]?0[0-7_]+$)"
"""Keeps YAML from reading 010 as 8 and 1:30 as 90."""
UNREADABLE_YAML = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError),
    yaml.YAMLError,
)
"""PyYAML passes on what Python says of a value that only looks like one, such as 2024-13-01."""
_NUMBERS = (":int", ":float")
LONGEST_SHOWN_VALUE = 60
MOST_SHOWN_CHANGES = 4
SPANS = ("market_profile", "spans")
CHOICES = {"market": "markets", "experiment": "experiments", "study": "studies"}
"""Kind of file that is chosen by its name -> its folder below the configuration."""
TUNING, DAILY, FORECASTERS = APART = "tuning.yaml", "daily.yaml", "forecasters.yaml"
"""In the configuration folder: what `tune` tries, and how `decide` decides. No values of a run."""
COMMAND_LINE = "command line"
SchemaT = TypeVar("SchemaT", bound=Section)


def load_config(
    config_dir: Path = DEFAULT_CONFIG_DIR,
    market: str | None = None,
    experiment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    own_file: Path | None = None,
    usual_market: str | None = None,
    origin: str = COMMAND_LINE,
) -> RunConfig:
    """Merge the files of a configuration folder and check the result as a whole.

    Later layers win: `*.yaml`, `markets/<market>.yaml`, `experiments/<experiment>.yaml`,
    `own_file`, `overrides`. Mappings are merged key by key; lists and single values are replaced.
    Keys of earlier versions (`RETIRED_KEYS`) are left out with a warning.

    Args:
        config_dir: folder with the base files, `markets/` and `experiments/`.
        market: name of a market profile; None takes that of the own file, of the experiment, or of
            the base files, whichever there is first.
        experiment: name of an experiment, or path of a YAML file such as `tune` writes; None runs
            the base values.
        overrides: partial nested mapping, for example `{"seed": 3}`.
        own_file: a YAML file of the user's, with the top-level keys of the base files; other
            top-level keys (`window_length`, `splits`, ...) belong to the section `windowed`.
        usual_market: profile that is taken, instead of that of the base files, where nothing else
            names one.
        origin: where `overrides` come from, for messages.

    Returns:
        The checked configuration; its `market` names the profile that was read.

    Raises:
        ConfigError: listing every problem: unreadable files, duplicate, unknown and missing keys,
            wrong types, values that contradict each other.
    """
    layers = _Layers(config_dir)
    base_files = sorted(path for path in config_dir.glob("*.yaml") if path.name not in APART)
    if not base_files:
        raise ConfigError(
            f"cannot use {config_dir}: expected *.yaml files, found none; "
            "name the project's config folder"
        )
    for path in base_files:
        values = layers.read(path)
        layers.problems += [
            f"{path.name}: top-level key '{key}' already stands in {layers.origins[(key,)]}"
            for key in values
            if key in layers.values
        ]
        layers.lay(values, path.name)
    experiment_file = layers.choose("experiment", experiment) if experiment else None
    experiment_values = layers.read(experiment_file) if experiment_file else {}
    own_values = _with_sections(layers.read(own_file)) if own_file else {}
    given = overrides or {}
    usual = {"market": usual_market} if usual_market else {}
    given_layers = (given, own_values, experiment_values, usual, layers.values)
    named = [layer["market"] for layer in given_layers if "market" in layer]
    name = market or (named[0] if named else None)
    # what a run wrote holds its whole profile, which need not be one of this folder
    brings_profile = name == own_values.get("market") and "market_profile" in own_values
    is_known = name in list_choices(config_dir, "market")
    market_file = None
    if name and (is_known or not brings_profile):
        market_file = layers.choose("market", name)
    if market_file:
        layers.lay(layers.read(market_file), market_file.name)
    if experiment_file:
        layers.lay(experiment_values, experiment_file.name)
    if own_file:
        layers.lay(layers.without_repeats(own_values, own_file.name), own_file.name)
    layers.lay({**given, "market": name} if name else given, origin)
    chosen = [f"{path.parent.name}/{path.name}" for path in (market_file, experiment_file) if path]
    own = [str(own_file)] if own_file else []
    return _whole(layers, RunConfig, ", ".join([f"{config_dir.name}/*.yaml", *chosen, *own]))


def load_study(
    name: str, config_dir: Path = DEFAULT_CONFIG_DIR, overrides: Mapping[str, Any] | None = None
) -> StudyConfig:
    """Read the file of a study.

    Args:
        name: path of a file that ends with `.yaml`, or its name in `studies/` without the ending.
        config_dir: folder with `studies/`.
        overrides: values that replace those of the file; inside `markets` they are added to it.

    Returns:
        The checked study. Whether its values fit the configuration shows when one is loaded.

    Raises:
        ConfigError: listing every problem, as `load_config` does.
    """
    layers = _Layers(config_dir)
    file = layers.choose("study", name)
    if file:
        layers.lay(layers.read(file), file.name)
    layers.lay(overrides or {}, COMMAND_LINE)
    return _whole(layers, StudyConfig, f"the study {name}")


def load_apart(path: Path, schema: type[SchemaT], title: str, over: Path | None = None) -> SchemaT:
    """Read a file of `APART`, or one of the user's in its place.

    Args:
        path: of the file.
        schema: of its values.
        title: of the file, for messages.
        over: file whose values hold where the file says nothing; none, and it has to say all.

    Raises:
        ConfigError: listing every problem, as `load_config` does.
    """
    layers = _Layers(path.parent)
    for each in [path] if over is None else [over, path]:
        layers.lay(layers.read(each), each.name)
    return _whole(layers, schema, f"{title} {path}")


def overlaid(config: RunConfig, values: Mapping[str, Any], origin: str) -> RunConfig:
    """Lay values over a configuration and check the result as a whole.

    Args:
        config: that was merged and checked.
        values: dotted key -> value that replaces the one of the configuration.
        origin: where the values come from, for messages.

    Raises:
        ConfigError: listing every problem, as `load_config` does.
    """
    layers = _Layers(DEFAULT_CONFIG_DIR)
    layers.lay(config.model_dump(), "experiment")
    layers.lay(nested(values), origin)
    return _whole(layers, RunConfig, origin)


def copy_defaults(folder: Path, *, overwrite: bool) -> int:
    """Copy the default configuration for a user to edit, and return the number of files.

    A folder that is not empty is refused, unless `overwrite` replaces the files of the same names;
    others stay. `load_config` takes the folder as its `config_dir`.
    """
    if not overwrite and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise OverwriteError(
            f"{folder} exists and is not empty; name another folder, or add --overwrite to replace "
            "files of the same names"
        )
    files = [path for path in DEFAULT_CONFIG_DIR.rglob("*") if path.suffix in {".yaml", ".csv"}]
    for path in files:
        target = folder / path.relative_to(DEFAULT_CONFIG_DIR)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return len(files)


def dump_config(config: RunConfig | Mapping[str, Any]) -> str:
    """Write the merged configuration, or some of its values, as YAML that reads back equal."""
    values = config.model_dump() if isinstance(config, RunConfig) else dict(config)
    return yaml.safe_dump(values, sort_keys=False, width=100)


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 of the values, whatever the spelling of the files; trackers are none."""
    values = config.model_dump(mode="json", exclude={"trackers"})
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def find_changes(dumped: str, config: RunConfig) -> list[str]:
    """Return the first values in which a configuration differs from a dumped one.

    Each is a dotted key with both values. The list is empty if the dump is not YAML.
    """
    try:
        there = yaml.safe_load(dumped)
    except UNREADABLE_YAML:
        return []
    return name_changes(there, yaml.safe_load(dump_config(config)))


def name_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the first values in which plain values here differ from others there.

    Each is a dotted key with both values.
    """
    there, here = flattened(first), flattened(second)
    changes = [
        f"{key} {_shown(there.get(key))} there, {_shown(here.get(key))} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    shown, left = changes[:MOST_SHOWN_CHANGES], len(changes) - MOST_SHOWN_CHANGES
    return [*shown, f"and {left} more"] if left > 0 else shown


def list_choices(config_dir: Path, kind: str) -> list[str]:
    """List the files of one of the kinds of `CHOICES` in a folder, sorted."""
    return sorted(path.stem for path in (config_dir / CHOICES[kind]).glob("*.yaml"))


class _StrictLoader(yaml.CSafeLoader):
    """Safe YAML loader that notes duplicate keys, and keys that YAML does not read as text.

    Numbers that are not read as they are written, 010 as 8 and 1:30 as 90, stay text.
    """

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # the stubs call it a variable of objects
        sign: [
            (
                tag,
                re.compile(AS_WRITTEN + form.pattern, form.flags)
                if tag.endswith(_NUMBERS)
                else form,
            )
            for tag, form in forms
        ]
        for sign, forms in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.complaints: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if name in first_lines:
                first = first_lines[name]
                self.complaints.append(f"line {line}: key '{name}' already stands on line {first}")
            first_lines.setdefault(name, line)
        mapping = super().construct_mapping(node, deep)
        line = node.start_mark.line + 1
        self.complaints.extend(
            f"line {line}: YAML reads key {key!r} as no text, write it in quotes"
            for key in mapping
            if not isinstance(key, str)
        )
        return {str(key): value for key, value in mapping.items()}


@dataclass
class _Layers:
    """Values merged so far, the file of each, and the problems found."""

    config_dir: Path
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    is_complete: bool = True
    """False if a file could not be read. Missing keys are then not reported."""

    def read(self, path: Path) -> dict[str, Any]:
        name = path.name
        try:
            loader = _StrictLoader(path.read_text(encoding="utf-8"))
            values = loader.get_single_data()
        except UNREADABLE_YAML as error:
            reason = " ".join(str(error).split())
            self.problems.append(f"{name}: not readable as YAML: {reason}")
            self.is_complete = False
            return {}
        self.problems.extend(f"{name} {complaint}" for complaint in loader.complaints)
        if values is None:
            return {}
        if not isinstance(values, dict):
            self.problems.append(
                f"{name}: expected a mapping of keys to values, found {_shown(values)}"
            )
            self.is_complete = False
            return {}
        return values

    def choose(self, kind: str, name: str) -> Path | None:
        if kind != "market" and name.endswith((".yaml", ".yml")) and Path(name).is_file():
            return Path(name)
        choices = list_choices(self.config_dir, kind)
        if name in choices:
            return self.config_dir / CHOICES[kind] / f"{name}.yaml"
        hint = _did_you_mean(str(name), choices)
        self.problems.append(
            f"{kind}: no {CHOICES[kind]}/{name.removesuffix('.yaml')}.yaml{hint}; choose one of: "
            f"{', '.join(choices) or '(none)'}"
        )
        self.is_complete = False
        return None

    def lay(self, values: Mapping[str, Any], origin: str) -> None:
        self.values = self._merge(self.values, values, origin, ())

    def _merge(
        self, below: Any, above: Mapping[str, Any], origin: str, path: tuple[str, ...]
    ) -> dict[str, Any]:
        merged = dict(below) if isinstance(below, Mapping) else {}
        if path == SPANS and not merged.keys() <= above.keys():
            # days replace shares and shares replace days, because a span has one form
            merged = {} if ("shares" in above) != ("shares" in merged) else merged
        for key, value in above.items():
            here = (*path, str(key))
            if here in RETIRED_KEYS:
                name = ".".join(here)
                logger.warning("{}: '{}' is left out: {}", origin, name, RETIRED_KEYS[here])
                continue
            self.origins[here] = origin
            is_section = isinstance(value, Mapping)
            merged[key] = self._merge(merged.get(key), value, origin, here) if is_section else value
        return merged

    def without_repeats(self, values: dict[str, Any], name: str) -> dict[str, Any]:
        """Leave out what `windowed.feature_config` may repeat, if it says what `windowed` says.

        Files of other systems repeat the window's length there, and its stride as an overlap.
        """
        windowed = values.get("windowed")
        if not isinstance(windowed, dict) or not isinstance(windowed.get("feature_config"), dict):
            return values
        features = windowed["feature_config"]
        merged = {**self.values.get("windowed", {}), **windowed}
        length, stride = merged.get("window_length"), merged.get("stride")
        if not _is_count(length) or not _is_count(stride):
            return values  # which is reported as it stands
        expected = {"window_length": float(length), "window_overlap": 1.0 - stride / length}
        slack = {"window_length": 0.0, "window_overlap": 1.0 / length}  # a stride is a whole number
        for key in expected.keys() & features.keys():
            found = features[key]
            is_number = isinstance(found, int | float) and not isinstance(found, bool)
            if not is_number or abs(found - expected[key]) > slack[key]:
                self.problems.append(
                    f"{name}: windowed.feature_config.{key} is {_shown(found)}, but window_length "
                    f"{length} and stride {stride} of windowed make it {expected[key]:g}; leave it "
                    "out"
                )
        kept = {key: value for key, value in features.items() if key not in expected}
        return {**values, "windowed": {**windowed, "feature_config": kept}}

    def origin(self, location: tuple[int | str, ...]) -> str:
        """Return where the value at `location`, or the closest section around it, was set."""
        path = tuple(str(part) for part in location)
        candidates = (self.origins.get(path[:end]) for end in range(len(path), 0, -1))
        return next((origin for origin in candidates if origin), self.config_dir.name)


def _with_sections(values: dict[str, Any]) -> dict[str, Any]:
    """Put top-level keys that are no section into `windowed`, for files that hold only these."""
    sections = {key: value for key, value in values.items() if key in RunConfig.model_fields}
    rest = {key: value for key, value in values.items() if key not in sections}
    is_of_windows = not rest.keys().isdisjoint(WindowedConfig.model_fields)
    if not is_of_windows or "windowed" in sections:  # an unknown key is then reported as it stands
        return values
    return {**sections, "windowed": rest}


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value > 0


def flattened(value: Any, where: str = "") -> dict[str, Any]:
    """Return the single values of nested mappings by their dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {where: value}
    parts = (flattened(item, f"{where}.{key}".lstrip(".")) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings of single values by their dotted keys; undoes `flattened`."""
    whole: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        inner = whole
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return whole


def _whole(layers: _Layers, schema: type[SchemaT], title: str) -> SchemaT:
    found = _validated(layers, schema)
    layers.problems += find_contradictions(found) if isinstance(found, RunConfig) else []
    if found is None or layers.problems:
        raise ConfigError("\n  ".join([f"cannot use {title}:", *layers.problems]))
    return found


def _validated(layers: _Layers, schema: type[SchemaT]) -> SchemaT | None:
    """Read the merged values as a schema; None where they do not fit, with a problem for each."""
    try:
        return schema.model_validate(layers.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        layers.problems += [
            f"{_dotted(detail['loc'])}: {_reason(detail, schema)} [{layers.origin(detail['loc'])}]"
            for detail in map(_without_marks, details)
            if detail["type"] != "missing" or layers.is_complete
        ]
    return None


def _without_marks(detail: ErrorDetails) -> ErrorDetails:
    """Take out of the location which form of a value was tried."""
    loc = tuple(part for part in detail["loc"] if part not in (DATED, SHARED))
    return {**detail, "loc": loc}


def _reason(detail: ErrorDetails, schema: type[BaseModel]) -> str:
    if detail["type"] == "missing":
        return "required key is missing"
    if detail["type"] == "extra_forbidden":
        *section, key = detail["loc"]
        path = tuple(str(part) for part in detail["loc"])
        if path in RENAMED_KEYS:
            inner = detail["input"] if isinstance(detail["input"], dict) else {}
            cures = [RENAMED_KEYS.get((*path, str(name))) for name in inner]
            told = [cure for cure in cures if cure] or [RENAMED_KEYS[path]]
            return f"unknown key; {', '.join(told)}"
        return f"unknown key{_did_you_mean(str(key), _keys_of(section, schema))}"
    value = detail["input"]
    plain = plain_number(value) if isinstance(value, str) else ""
    hint = f"; YAML reads this as text, write {plain}" if plain else ""
    reason = detail["msg"].removeprefix("Value error, ")  # pydantic's words for a check of ours
    return f"{reason} (was {_shown(value)}){hint}"


def _keys_of(location: list[int | str], schema: type[BaseModel]) -> list[str]:
    section = schema
    for part in location:
        if isinstance(part, int) or part not in section.model_fields:
            continue  # a place in a list, or a key of a mapping of sections
        annotation = section.model_fields[part].annotation
        forms = [*get_args(annotation), annotation]
        section = next(
            candidate
            for candidate in (*forms, *(part for form in forms for part in get_args(form)))
            if isinstance(candidate, type) and issubclass(candidate, BaseModel)
        )
    return list(section.model_fields)


def _did_you_mean(name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN_VALUE else f"{text[:LONGEST_SHOWN_VALUE]}..."
