"""The commands of forecasters: train, evaluate and ask them; registered by `hrl_sarp.cli`."""

from dataclasses import replace
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
from hrl_sarp.errors import OverwriteError, UsageError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.encoder_schema import ForecastersConfig
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.forecasters.api import LoadedForecaster
    from hrl_sarp.forecasters.training.run import Pretrained, TrainingRequest
    from hrl_sarp.forecasters.training.sources import SplitSeries

MODELS = ("toto", "kronos", "kronos-tokenizer")
DEFAULT_DIR = Path("logs/forecasters")
DAY = "%Y-%m-%d"
TRAINING_LOG = "training.log"
NINE = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"

Model = Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")]
Root = Annotated[
    Path | None,
    typer.Option(help="File of bars (CSV, parquet), or a folder of them.", show_default=False),
]
ValRoot = Annotated[
    Path | None,
    typer.Option(
        help="Bars after those of --train-root, or of other symbols; default: the last part of "
        "--train-root.",
        show_default=False,
    ),
]
Panel = Annotated[
    bool, typer.Option("--panel", help="On the daily bars of all stocks in DATA_DIR instead.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Passes over the windows, at most.", show_default=False)
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Windows of an update.", show_default=False)
]
LearningRate = Annotated[
    float | None, typer.Option(min=1e-12, help="Highest, of AdamW.", show_default=False)
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Published or own weights to train further.", show_default=False),
]
Freeze = Annotated[bool, typer.Option("--freeze", help="Train the last layers of --weights alone.")]
LoraRank = Annotated[
    int | None,
    typer.Option(min=1, help="Train additions of this rank to --weights.", show_default=False),
]
PretrainedUntil = Annotated[
    datetime | None,
    typer.Option(
        formats=[DAY],
        help="Last day of the data that weights were fitted to; default: that of their run, else "
        "the end of the month of their release.",
        show_default=False,
    ),
]
Holdout = Annotated[
    str | None,
    typer.Option(
        help="Symbols that are left out of training and validation: how many, or their names with "
        "commas; default: holdout_symbols of forecasters.yaml.",
        show_default=False,
    ),
]
RunOutput = Annotated[
    Path | None,
    typer.Option(help=f"Folder of the run; {DEFAULT_DIR}/MODEL.", show_default=False),
]
Settings = Annotated[
    Path | None,
    typer.Option(help="YAML laid over config/forecasters.yaml.", show_default=False),
]
RunSeed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Data = Annotated[Path, typer.Option(help="File of bars (CSV, parquet), or a folder of them.")]
Tested = Annotated[
    list[str] | None,
    typer.Option(
        help="Folder of a run or of weights; NAME=FOLDER names it in tables. May be repeated; "
        "without any, the baselines are compared.",
        show_default=False,
    ),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        help="Tokenizer of Kronos; train-forecaster trains one first without it.",
        show_default=False,
    ),
]
Symbols = Annotated[
    str | None,
    typer.Option(
        help="Symbols with commas, or `unseen`: those that all runs have left out; default: all "
        "of DATA.",
        show_default=False,
    ),
]
Horizon = Annotated[int, typer.Option(min=1, help="Bars to forecast.")]
Every = Annotated[
    int | None,
    typer.Option(min=1, help="Bars between origins; default: HORIZON.", show_default=False),
]
Start = Annotated[
    datetime | None,
    typer.Option(
        formats=[DAY],
        help="First day of origins; default: after all that the models have seen, without models "
        "the last fifth of the bars.",
        show_default=False,
    ),
]
End = Annotated[datetime | None, typer.Option(formats=[DAY], help="Last day.", show_default=False)]
Season = Annotated[int, typer.Option(min=1, help="Bars of a season: 5, 24, ...")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Leave out AutoETS, AutoTheta and AutoARIMA (0.1 s each).")
]
Context = Annotated[
    int | None,
    typer.Option(min=1, help="Bars that a model reads; default: as trained.", show_default=False),
]
Paths = Annotated[int, typer.Option(min=2, help="Paths that Kronos draws.")]
AllowContaminated = Annotated[
    bool,
    typer.Option(
        "--allow-contaminated", help="Test a model on what it may have seen; all is stamped."
    ),
]
Evaluated = Annotated[Path, typer.Option(help="Folder of forecasts, measures and page.")]
Levels = Annotated[str, typer.Option(help="Quantile levels with commas.")]
TableFile = Annotated[Path, typer.Option(help="CSV or parquet to write.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of forecasters."""
    app.command("train-forecaster")(train_forecaster)
    app.command("evaluate-forecaster")(evaluate_forecaster)
    app.command("forecast")(forecast)


def train_forecaster(  # noqa: PLR0913 -- the parameters are the command's options
    model: Model = "toto",
    train_root: Root = None,
    val_root: ValRoot = None,
    panel: Panel = False,  # noqa: FBT002 -- an option, given by name
    data_dir: DataDir = DEFAULT_DATA_DIR,
    market: MarketName = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    freeze: Freeze = False,  # noqa: FBT002 -- an option, given by name
    lora_rank: LoraRank = None,
    pretrained_until: PretrainedUntil = None,
    holdout: Holdout = None,
    output: RunOutput = None,
    settings: Settings = None,
    own: OwnConfig = None,
    experiment: Experiment = None,
    seed: RunSeed = 0,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Train Toto or Kronos on bars: from scratch, or published weights further.

    Example: hrl-sarp train-forecaster --model toto --train-root prices/ --output logs/forecasters/a
    """
    require_source("train-forecaster", model, train_root, val_root, is_panel=panel)
    from hrl_sarp.forecasters.training import run
    from hrl_sarp.run.earlier import require_free_output
    from hrl_sarp.run.session import configure_threads, resolve_device

    folder = output or DEFAULT_DIR / model
    require_free_output(folder, run.KEPT, resume=resume, overwrite=overwrite)
    changes: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size}
    changes |= {"learning_rate": learning_rate, "fine_tuning_rate": learning_rate}
    found = read_settings(settings, model, changes)
    config, chosen = read_config(market, experiment, own), resolve_device(device)
    configure_threads(config.threads)
    # bad data are refused before the folder is made
    source = read_source(train_root, val_root, data_dir, config, found, holdout)
    further = pretrained(model, weights, tokenizer, pretrained_until)
    further = replace(further, freeze=freeze, lora_rank=lora_rank)
    where = folder, seed, chosen, config.curriculum.checkpoint_seconds
    _train(run.TrainingRequest(model, source, found, *where, further, resume))


def read_source(
    train_root: Path | None,
    val_root: Path | None,
    data_dir: Path,
    config: "RunConfig",
    settings: "ForecastersConfig",
    holdout: str | None,
) -> "SplitSeries":
    """Read the bars of a training, of files or of a market, and split them.

    Args:
        train_root: file or folder; None takes the market.
        val_root: file or folder, if it is another one.
        data_dir: folder of the market's data.
        config: of the market.
        settings: shares of the spans, seed of the holdout.
        holdout: value of --holdout.

    Returns:
        The series and their split.
    """
    from hrl_sarp.forecasters.training.sources import from_market, from_roots

    wanted = settings, _holdout(holdout, settings)
    if train_root is not None:
        return from_roots(train_root, val_root, *wanted)
    return from_market(data_dir, config, *wanted)


def require_source(
    command: str,
    model: str,
    train_root: Path | None,
    val_root: Path | None,
    *,
    is_panel: bool,
    models: tuple[str, ...] = MODELS,
) -> None:
    """Refuse a model that a command does not have, and no source of bars or two.

    Args:
        command: for messages.
        model: value of --model.
        train_root: file or folder.
        val_root: file or folder.
        is_panel: whether --panel was given.
        models: that the command has.
    """
    if model not in models:
        raise UsageError(f"--model must be one of {', '.join(models)}, found '{model}'")
    if is_panel == (train_root is not None) or (is_panel and val_root is not None):
        raise UsageError(
            f"{command} needs either --train-root (and --val-root) or --panel with "
            f"--data-dir, found {'both' if is_panel else 'neither'}"
        )


def _train(request: "TrainingRequest") -> None:
    """Train, then measure on validation and test, and print what the forecaster is worth."""
    from rich.console import Console

    from hrl_sarp.forecasters.api import load_forecaster
    from hrl_sarp.forecasters.final_metrics import FINAL, METRICS, measure_run
    from hrl_sarp.forecasters.training.run import MODEL, train_forecaster
    from hrl_sarp.run.session import StopFlag

    folder, source = request.output, request.source
    with running(folder, OUTPUT_OPTION, TRAINING_LOG):
        with StopFlag() as stop:
            trained = train_forecaster(request, stop)
        loss = trained.description["validation_loss"]
        say(f"validation loss {loss:.4f}; wrote {folder / MODEL}")
        if request.model == "kronos-tokenizer":
            return
        horizon = request.of_model.horizon
        loaded = load_forecaster(folder)
        metrics = measure_run(loaded, source.series, source.split, horizon, folder)
    Console().print(metrics.table())
    say(f"wrote {folder / FINAL} and {folder / METRICS / 'report.html'}")


def evaluate_forecaster(  # noqa: PLR0913 -- the parameters are the command's options
    data: Data,
    model: Tested = None,
    tokenizer: Tokenizer = None,
    symbols: Symbols = None,
    horizon: Horizon = 5,
    every: Every = None,
    start: Start = None,
    end: End = None,
    season: Season = 5,
    quick: Quick = False,  # noqa: FBT002 -- an option, given by name
    context: Context = None,
    paths: Paths = 100,
    pretrained_until: PretrainedUntil = None,
    allow_contaminated: AllowContaminated = False,  # noqa: FBT002 -- an option, given by name
    output: Evaluated = DEFAULT_DIR / "evaluation",
    seed: RunSeed = 0,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Forecast from rolling origins, and say whether models beat repeating the last price.

    Writes forecasts.parquet, evaluation.json and report.html. The same command goes on after a
    stop.

    Example: hrl-sarp evaluate-forecaster --model logs/forecasters/toto --data prices/
    """
    import numpy as np

    from hrl_sarp.forecasters.api import first_unseen, pick_symbols
    from hrl_sarp.forecasters.evaluation.baselines.statistical import usual_baselines
    from hrl_sarp.forecasters.evaluation.plan import RollingPlan
    from hrl_sarp.forecasters.evaluation.run import PAGE, evaluate
    from hrl_sarp.forecasters.seen import end_of_day
    from hrl_sarp.forecasters.series import read_series

    loaded = [
        _named(given, tokenizer, context, paths, pretrained_until, allowed=allow_contaminated)
        for given in model or []
    ]
    series = pick_symbols(read_series(data), symbols, [one.holdout for one in loaded])
    vintages = [one.vintage for one in loaded]
    begin = first_unseen(series, vintages) if start is None else np.datetime64(start, "us")
    until = None if end is None else end_of_day(end.date())
    plan = RollingPlan(horizon, begin, until, every, season, seed=seed)
    baselines = usual_baselines(season, None if quick else 1)
    with running(output, OUTPUT_OPTION):
        models = [(one.forecaster, one.vintage) for one in loaded]
        evaluate(models, series, plan, output, baselines=baselines, overwrite=overwrite)
    say(f"wrote {output / PAGE}")


def forecast(
    model: Annotated[Path, typer.Option(help="Folder of a run or of weights.")],
    data: Data,
    prediction_length: Horizon = 5,
    levels: Levels = NINE,
    tokenizer: Tokenizer = None,
    context: Context = None,
    paths: Paths = 100,
    output: TableFile = Path("forecasts.csv"),
    seed: RunSeed = 0,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Forecast the next bars of every series of DATA.

    The table has the columns of chronos: item_id, timestamp, target_name, predictions, and one for
    each level.

    Example: hrl-sarp forecast --model logs/forecasters/toto --data prices/AAPL.csv
    """
    from hrl_sarp.forecasters.api import load_forecaster
    from hrl_sarp.forecasters.series import read_series
    from hrl_sarp.run.files import write_table, write_text

    if output.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"--output: expected a name that ends with .csv or .parquet, found {output}"
        )
    if output.exists() and not overwrite:
        raise OverwriteError(f"{output} exists: name another --output, or add --overwrite")
    wanted = _levels(levels)
    loaded = load_forecaster(model, tokenizer=tokenizer, context=context, n_paths=paths)
    table = loaded.predict_series(read_series(data), prediction_length, wanted, seed=seed)
    if output.suffix == ".parquet":
        write_table(output, table)
    else:
        write_text(output, table.write_csv())
    say(f"{loaded.vintage.model}, {loaded.vintage.stamp}: wrote {len(table)} rows to {output}")


def read_settings(path: Path | None, model: str, changes: dict[str, Any]) -> "ForecastersConfig":
    """Read config/forecasters.yaml, or a file laid over it, with the values of options.

    Args:
        path: of the user's file; None takes the defaults.
        model: whose values the options change; epochs are also those of the tokenizer that is
            trained before `kronos`.
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
    if model == "kronos" and "epochs" in given:
        plain["models"]["kronos-tokenizer"]["epochs"] = given["epochs"]
    return ForecastersConfig(**plain)


def _levels(text: str) -> list[float]:
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--levels: expected numbers such as 0.1,0.5,0.9, found '{text}'"
        ) from error


def _named(
    given: str,
    tokenizer: Path | None,
    context: int | None,
    paths: int,
    until: datetime | None,
    *,
    allowed: bool,
) -> "LoadedForecaster":
    """Load a model under the name that the option gives it, or that of its folder."""
    from hrl_sarp.forecasters.api import load_forecaster

    name, _, folder = ("", "", given) if Path(given).exists() else given.partition("=")
    if not folder:
        name, folder = "", given
    loaded = load_forecaster(
        Path(folder),
        tokenizer=tokenizer,
        context=context,
        n_paths=paths,
        pretrained_until=until and until.date(),
    )
    vintage = replace(
        loaded.vintage, model=name or Path(folder).absolute().name, is_allowed=allowed
    )
    return replace(loaded, vintage=vintage)


def _holdout(given: str | None, settings: "ForecastersConfig") -> int | list[str]:
    if given is None:
        return settings.holdout_symbols
    return int(given) if given.isdigit() else [name.strip() for name in given.split(",")]


def pretrained(
    model: str, weights: Path | None, tokenizer: Path | None, told: datetime | None
) -> "Pretrained":
    """Say what a training begins with, and what that has seen: told, of its run, or its release.

    Args:
        model: value of --model.
        weights: value of --weights.
        tokenizer: value of --tokenizer.
        told: value of --pretrained-until.

    Returns:
        What all of its weights are trained of.
    """
    from hrl_sarp.forecasters.seen import seen_by_all
    from hrl_sarp.forecasters.training.run import Pretrained, tokenizer_inside, weights_inside

    inside = weights and weights_inside(weights), tokenizer and tokenizer_inside(tokenizer)
    start = Pretrained(*inside)
    given = [part for part in (start.weights, start.tokenizer) if part and part.exists()]
    if given:
        seen = seen_by_all(given, model, told and told.date())
        return replace(start, until=str(seen.until), symbols=seen.symbols)
    if told is not None:
        raise UsageError("--pretrained-until belongs to --weights or --tokenizer, found neither")
    return start
