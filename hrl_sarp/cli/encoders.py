"""The commands of the price-action encoders; registered by `hrl_sarp.cli`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
    Seed,
    read_config,
    running,
)
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.encoders.networks import EncoderKind
    from hrl_sarp.encoders.pretrain.task import PretrainingResult
    from hrl_sarp.fitting.distributed import World
    from hrl_sarp.price_action.expansions.finetuning import Job

ENCODERS = {"bars": ("jade",), "panel": ("jade", "transformer")}
"""Encoders by their data: a file of bars, or (panel) the daily bars of a market's stocks."""
DEFAULT_PRETRAIN_DIR = Path("artifacts/jade_pretrain")
DEFAULT_FINETUNE_DIR = Path("artifacts/finetune")
PRICE_ACTION, BUYS = "price-action", "buys"
DEFAULT_PRICE_ACTION_DIR = Path("data/checkpoints")

Panel = Annotated[
    bool, typer.Option("--panel", help="On the daily bars of all stocks in DATA_DIR instead.")
]
Freeze = Annotated[
    bool, typer.Option("--freeze-encoder", help="Keep its weights, train the heads alone.")
]

Target = Annotated[
    str | None,
    typer.Option(
        help=f"What {PRICE_ACTION} forecasts: buys (the default), volatility or range.",
        show_default=False,
    ),
]
FinetuneOutput = Annotated[
    Path | None,
    typer.Option(
        help=f"Folder of model, tables and figure; {DEFAULT_FINETUNE_DIR}/VARIANT, "
        f"{PRICE_ACTION}: {DEFAULT_PRICE_ACTION_DIR}.",
        show_default=False,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of the encoders."""
    app.command("pretrain-encoder")(pretrain_encoder)
    app.command("finetune-encoder")(finetune_encoder)


def pretrain_encoder(  # noqa: PLR0913 -- the parameters are the command's options
    data: Annotated[
        Path | None, typer.Option(help="CSV or parquet of bars (time, OHLC).", show_default=False)
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="jade; with --panel also transformer, masked by patches.")
    ] = "jade",
    panel: Panel = False,  # noqa: FBT002 -- an option, given by name
    data_dir: DataDir = DEFAULT_DATA_DIR,
    market: MarketName = None,
    symbol: Annotated[str | None, typer.Option(help="Only this instrument of the file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the windows, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows of an update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest, of AdamW.")] = None,
    mask_strategy: Annotated[str | None, typer.Option(help="random, block or patch.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder of checkpoints, results and encoder; {DEFAULT_PRETRAIN_DIR}, with "
            "--panel DATA_DIR/../encoders, where `train` looks for it.",
            show_default=False,
        ),
    ] = None,
    own: OwnConfig = None,
    experiment: Experiment = None,
    seed: Seed = None,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Pretrain an encoder on unlabelled bars: it learns to rebuild bars that it cannot see.

    Several processes: torchrun --nproc-per-node 2 main.py pretrain-encoder ...

    Example: hrl-sarp pretrain-encoder --encoder jade --data bars.parquet
    """
    from hrl_sarp.encoders.pretrain import run
    from hrl_sarp.encoders.pretrain.prepare import prepare_bars, prepare_panel
    from hrl_sarp.encoders.stock_embeddings import encoder_folder
    from hrl_sarp.run.earlier import require_free_output
    from hrl_sarp.run.session import StopFlag, configure_threads, require_bfloat16

    kind = _encoder_kind(encoder, data, mask_strategy, is_panel=panel)
    schedule = {"epochs": epochs, "batch_size": batch_size}
    settings = {"learning_rate": learning_rate, "mask_strategy": mask_strategy}
    sections: dict[str, dict[str, Any]] = {"pretraining": settings, "panel": schedule}
    if data is not None:
        sections = {"pretraining": {**schedule, **settings}}
    config = read_config(market, experiment, own, seed, {"encoders": sections})
    usual = DEFAULT_PRETRAIN_DIR if data else encoder_folder(data_dir, config.market, kind)
    folder = output or usual
    require_free_output(folder, run.FILES, resume=resume, overwrite=overwrite)
    configure_threads(config.threads)
    with _processes(device) as world:
        if config.encoders.pretraining.cpu_bfloat16:
            require_bfloat16("encoders.pretraining.cpu_bfloat16", world.device)
        # bad data are refused before the folder is made
        if data is not None:
            prepared = prepare_bars(data, symbol, folder, config, resume=resume)
        else:
            prepared = prepare_panel(kind, data_dir, folder, config, resume=resume)
        held = running(folder, OUTPUT_OPTION) if world.is_first else nullcontext()
        with held, StopFlag() as stop:
            result = run.pretrain_encoder(prepared, world, stop)
        if world.is_first:
            _print_result(result, folder)


def _encoder_kind(
    encoder: str, data: Path | None, mask_strategy: str | None, *, is_panel: bool
) -> "EncoderKind":
    """Check the options that choose the encoder and its data."""
    choices = ENCODERS["panel" if is_panel else "bars"]
    if encoder not in choices:
        raise HrlSarpError(
            f"--encoder must be one of {', '.join(choices)} {'with' if is_panel else 'without'} "
            f"--panel, found '{encoder}'"
        )
    if is_panel == (data is not None):
        raise HrlSarpError(
            "pretrain-encoder needs either --data FILE or --panel with --data-dir, found "
            + ("both" if is_panel else "neither")
        )
    if encoder == "transformer" and mask_strategy not in (None, "patch"):
        raise HrlSarpError(
            f"--encoder transformer is masked by patches, found --mask-strategy {mask_strategy}: "
            "beside a single hidden candle its neighbours nearly tell it"
        )
    return "transformer" if encoder == "transformer" else "jade"


def finetune_encoder(  # noqa: PLR0913 -- the parameters are the command's options
    variant: Annotated[str, typer.Option(help="baseline, stones, position or price-action.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Labelled windows (scripts/label_expansions.py makes some); "
            f"{PRICE_ACTION}: candles (time, OHLC, volume)."
        ),
    ],
    symbol: Annotated[
        str | None, typer.Option(help=f"Only this instrument ({PRICE_ACTION}).", show_default=False)
    ] = None,
    target: Target = None,
    pretrained_encoder: Annotated[
        Path | None, typer.Option(help="Encoder that pretrain-encoder wrote.", show_default=False)
    ] = None,
    freeze_encoder: Freeze = False,  # noqa: FBT002 -- an option, given by name
    epochs: Annotated[int | None, typer.Option(help="Passes over the windows, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows of an update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    output: FinetuneOutput = None,
    own: OwnConfig = None,
    experiment: Experiment = None,
    seed: Seed = None,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Teach an encoder to find expansions in labelled windows, and compare it with baselines.

    Variant price-action teaches the transformer to tell from candles whether a buy is worth it, or
    how far price moves next.

    Example: hrl-sarp finetune-encoder --variant baseline --data labelled.parquet
    """
    from hrl_sarp.price_action.buys import training as buys
    from hrl_sarp.price_action.expansions import finetuning
    from hrl_sarp.price_action.risk import training as risk
    from hrl_sarp.run.earlier import require_free_output
    from hrl_sarp.run.session import configure_threads, resolve_device

    settings: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate}
    _require_options_of(variant, symbol, pretrained_encoder, is_frozen=freeze_encoder)
    forecast = _target_of(variant, target)
    usual = DEFAULT_FINETUNE_DIR / variant
    folder = output or (DEFAULT_PRICE_ACTION_DIR if variant == PRICE_ACTION else usual)
    of_candles = buys.FILES if forecast == BUYS else risk.FILES
    files = of_candles if variant == PRICE_ACTION else finetuning.FILES
    require_free_output(folder, files, resume=resume, overwrite=overwrite)
    if variant == PRICE_ACTION:
        settings["batch_size"] = batch_size
        config = read_config(None, experiment, own, seed, {"encoders": {"price_action": settings}})
        _price_action(data, symbol, forecast, folder, config, device, resume)
        return
    config = read_config(None, experiment, own, seed, {"encoders": {"finetuning": settings}})
    # an unknown variant is for `prepare` to refuse: a batch size alone would begin a new one
    if batch_size is not None and variant in config.encoders.finetuning.variants:
        settings["variants"] = {variant: {"batch_size": batch_size}}
        config = read_config(None, experiment, own, seed, {"encoders": {"finetuning": settings}})
    configure_threads(config.threads)
    inputs = variant, data, folder, pretrained_encoder, freeze_encoder
    request = finetuning.FinetuneRequest(*inputs, resolve_device(device), config, resume)
    _finetune(finetuning.prepare(request))  # bad data are refused before the folder is made


def _finetune(job: "Job") -> None:
    from rich.console import Console

    from hrl_sarp.price_action.expansions.finetuning import finetune
    from hrl_sarp.price_action.expansions.tables import measure_table
    from hrl_sarp.run.session import StopFlag

    request = job.request
    with running(request.output, OUTPUT_OPTION), StopFlag() as stop:
        outcome = finetune(job, stop)
    title = f"{request.variant}: {len(job.split.test)} test windows"
    Console().print(measure_table(title, outcome.model, outcome.trivial, outcome.rules))
    say(f"wrote {request.output / 'best_model.pt'}")


def _require_options_of(
    variant: str, symbol: str | None, pretrained: Path | None, *, is_frozen: bool
) -> None:
    if variant == PRICE_ACTION and (pretrained is not None or is_frozen):
        raise HrlSarpError(
            f"--variant {PRICE_ACTION} trains its transformer from random weights, found "
            "--pretrained-encoder or --freeze-encoder; leave them out"
        )
    if variant != PRICE_ACTION and symbol is not None:
        raise HrlSarpError(
            f"--symbol picks an instrument of a file of candles (--variant {PRICE_ACTION}), found "
            f"it beside --variant {variant}; leave it out"
        )


def _target_of(variant: str, target: str | None) -> str:
    """Check what price-action is to forecast."""
    from hrl_sarp.price_action.risk.targets import RISKS

    if target is not None and variant != PRICE_ACTION:
        raise HrlSarpError(
            f"--target says what --variant {PRICE_ACTION} forecasts, found it beside --variant "
            f"{variant}; leave it out"
        )
    if target not in (None, BUYS, *RISKS):
        raise HrlSarpError(f"--target must be one of {', '.join((BUYS, *RISKS))}, found '{target}'")
    return target or BUYS


def _price_action(
    data: Path,
    symbol: str | None,
    target: str,
    output: Path,
    config: "RunConfig",
    device: str,
    resume: bool,  # noqa: FBT001 -- the option as it was given
) -> None:
    from rich.console import Console

    from hrl_sarp.data.bars import read_bars
    from hrl_sarp.price_action.buys.report import results_table
    from hrl_sarp.price_action.buys.training import FIGURE, MODEL, train_price_action
    from hrl_sarp.price_action.buys.windows import OWN_COLUMNS, cut_candle_windows
    from hrl_sarp.price_action.risk import training as risk
    from hrl_sarp.price_action.risk.targets import RISKS
    from hrl_sarp.run.session import StopFlag, configure_threads, resolve_device

    configure_threads(config.threads)
    chosen = resolve_device(device)
    # bad candles are refused before the folder is made
    windows = cut_candle_windows(read_bars(data, symbol, OWN_COLUMNS), config.encoders)
    with running(output, OUTPUT_OPTION), StopFlag() as stop:
        if target != BUYS:
            kind = next(kind for kind in RISKS if kind == target)
            found = risk.train_risk(windows, config, kind, output, chosen, stop, resume=resume)
            shown, model, figure = risk.results_table(found), risk.MODEL, risk.FIGURE
        else:
            found = train_price_action(windows, config, output, chosen, stop, resume=resume)
            shown, model, figure = results_table(found["spans"], found["threshold"]), MODEL, FIGURE
    Console().print(shown)
    say(found["verdict"])
    say(f"wrote {output / model} and {output / figure}")


@contextmanager
def _processes(device: str) -> Iterator["World"]:
    """Join the processes that torchrun started; only the first one logs."""
    from loguru import logger

    from hrl_sarp.fitting.distributed import join_world
    from hrl_sarp.run.session import resolve_device

    with join_world(resolve_device(device)) as world:
        if not world.is_first:
            logger.remove()
        yield world


def _print_result(result: "PretrainingResult", output: Path) -> None:
    from hrl_sarp.encoders.pretrain.reconstruction import BASELINES, best_baseline
    from hrl_sarp.encoders.pretrain.task import MODEL

    scores = result.evaluated
    losses = ", ".join(f"{name} {scores[name].loss:.4f}" for name in (MODEL, *BASELINES))
    verb = "beats" if result.beats_baselines else "does not beat"
    split = "test" if result.test else "validation"
    say(f"{split} loss: {losses}; the model {verb} {best_baseline(scores)}")
    say(f"wrote {output / 'encoder.safetensors'}")
