"""The commands of forecasters: train them, ask them; registered by `hrl_sarp.cli`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    OUTPUT_OPTION,
    DataDir,
    Device,
    Experiment,
    MarketName,
    Overwrite,
    OwnConfig,
    Resume,
    read_config,
    running,
)
from hrl_sarp.errors import UsageError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.encoder_schema import ForecastersConfig
    from hrl_sarp.forecasters.training.sources import SplitSeries

MODELS = ("toto", "kronos", "kronos-tokenizer")
DEFAULT_DIR = Path("logs/forecasters")
DAY = "%Y-%m-%d"
TRAINING_LOG = "training.log"

Settings = Annotated[
    Path | None,
    typer.Option(help="YAML laid over config/forecasters.yaml.", show_default=False),
]
Root = Annotated[
    Path | None,
    typer.Option(help="File of bars (CSV, parquet), or a folder of them.", show_default=False),
]
Holdout = Annotated[
    str | None,
    typer.Option(
        help="Symbols that are left out of training and validation: how many, or their names with "
        "commas; default: holdout_symbols of forecasters.yaml.",
        show_default=False,
    ),
]
PretrainedUntil = Annotated[
    datetime | None,
    typer.Option(
        formats=[DAY],
        help="Last day of the data that --weights were fitted to; default: the end of the month "
        "of their release.",
        show_default=False,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of forecasters."""
    app.command("train-forecaster")(train_forecaster)


def train_forecaster(  # noqa: PLR0913 -- the parameters are the command's options
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "toto",
    train_root: Root = None,
    val_root: Annotated[
        Path | None,
        typer.Option(
            help="Bars after those of --train-root, or of other symbols; default: the last part "
            "of --train-root.",
            show_default=False,
        ),
    ] = None,
    panel: Annotated[  # noqa: FBT002 -- an option, given by name
        bool, typer.Option("--panel", help="On the daily bars of all stocks in DATA_DIR instead.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    market: MarketName = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the windows, at most.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows of an update.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, help="Highest, of AdamW.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Published or own weights to train further.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Of --model kronos; one is trained first without it.", show_default=False
        ),
    ] = None,
    freeze: Annotated[  # noqa: FBT002 -- an option, given by name
        bool, typer.Option("--freeze", help="Train the last layers of --weights alone.")
    ] = False,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Train additions of this rank to --weights.", show_default=False),
    ] = None,
    pretrained_until: PretrainedUntil = None,
    holdout: Holdout = None,
    output: Annotated[
        Path | None,
        typer.Option(help=f"Folder of the run; {DEFAULT_DIR}/MODEL.", show_default=False),
    ] = None,
    settings: Settings = None,
    own: OwnConfig = None,
    experiment: Experiment = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Train Toto or Kronos on bars: from scratch, or published weights further.

    Example: hrl-sarp train-forecaster --model toto --train-root prices/ --output logs/forecasters/a
    """
    if model not in MODELS:
        raise UsageError(f"--model must be one of {', '.join(MODELS)}, found '{model}'")
    if panel == (train_root is not None) or (panel and val_root is not None):
        raise UsageError(
            "train-forecaster needs either --train-root (and --val-root) or --panel with "
            f"--data-dir, found {'both' if panel else 'neither'}"
        )
    from hrl_sarp.forecasters.training import run
    from hrl_sarp.forecasters.training.sources import from_market, from_roots
    from hrl_sarp.run.earlier import require_free_output
    from hrl_sarp.run.session import StopFlag, configure_threads, resolve_device

    folder = output or DEFAULT_DIR / model
    kept = (run.DESCRIPTION, f"{run.CHECKPOINTS}/{run.RUNNING}")
    require_free_output(folder, kept, resume=resume, overwrite=overwrite)
    rate = {"learning_rate": learning_rate, "fine_tuning_rate": learning_rate}
    found = read_settings(settings, model, {"epochs": epochs, "batch_size": batch_size, **rate})
    config = read_config(market, experiment, own)
    configure_threads(config.threads)
    left_out = _holdout(holdout, found)
    # bad data are refused before the folder is made
    if train_root is not None:
        source = from_roots(train_root, val_root, found, left_out, seed)
    else:
        source = from_market(data_dir, config, found, left_out, seed)
    request = run.TrainingRequest(
        model=model,
        series=source.series,
        split=source.split,
        source=source.source,
        settings=found,
        output=folder,
        seed=seed,
        device=resolve_device(device),
        checkpoint_seconds=config.curriculum.checkpoint_seconds,
        weights=weights and run.weights_inside(weights),
        tokenizer=tokenizer,
        freeze=freeze,
        lora_rank=lora_rank,
        pretrained_until=_until(model, weights, pretrained_until),
        resume=resume,
    )
    with running(folder, OUTPUT_OPTION, TRAINING_LOG):
        with StopFlag() as stop:
            trained = run.train_forecaster(request, stop)
        loss = trained.description["validation_loss"]
        say(f"validation loss {loss:.4f}; wrote {folder / run.MODEL}")
        if model != "kronos-tokenizer":
            _measure(source, request.of_model.horizon, folder)


def _measure(source: "SplitSeries", horizon: int, folder: Path) -> None:
    """Measure a trained forecaster on validation and test, and print what it is worth."""
    from rich.console import Console

    from hrl_sarp.forecasters.api import load_forecaster
    from hrl_sarp.forecasters.final_metrics import FINAL, METRICS, measure_run

    metrics = measure_run(load_forecaster(folder), source.series, source.split, horizon, folder)
    Console().print(metrics.table())
    for sentence in metrics.test.sentences:
        say(sentence)
    say(f"wrote {folder / FINAL} and {folder / METRICS / 'report.html'}")


def read_settings(path: Path | None, model: str, changes: dict[str, Any]) -> "ForecastersConfig":
    """Read config/forecasters.yaml, or a file laid over it, with the values of options.

    Args:
        path: of the user's file; None takes the defaults.
        model: whose values the options change.
        changes: names and values; None was not given.

    Returns:
        The settings.
    """
    from hrl_sarp.config.encoder_schema import ForecastersConfig
    from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, FORECASTERS, load_apart

    usual = DEFAULT_CONFIG_DIR / FORECASTERS
    over = None if path is None else usual
    found = load_apart(path or usual, ForecastersConfig, "the settings of forecasters", over)
    given = {name: value for name, value in changes.items() if value is not None}
    plain = found.model_dump()
    plain["models"][model] |= given
    return ForecastersConfig(**plain)


def _holdout(given: str | None, settings: "ForecastersConfig") -> int | list[str]:
    if given is None:
        return settings.holdout_symbols
    return int(given) if given.isdigit() else [name.strip() for name in given.split(",")]


def _until(model: str, weights: Path | None, given: datetime | None) -> str | None:
    """Return the last day that weights have seen: told, of their run, or of their release."""
    if weights is None:
        if given is not None:
            raise UsageError("--pretrained-until belongs to --weights")
        return None
    if given is not None:
        return f"{given:{DAY}}"
    from hrl_sarp.forecasters.api import seen_until

    return str(seen_until(weights, model))
