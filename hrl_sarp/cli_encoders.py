"""The commands of the price-action encoders; registered by `hrl_sarp.cli`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrl_sarp.cli_options import OUTPUT_OPTION, Device, Experiment, Resume, Seed, running
from hrl_sarp.errors import HrlSarpError

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.encoders.distributed import World
    from hrl_sarp.encoders.pretraining_run import PretrainingResult

ENCODERS = ("jade",)
DEFAULT_PRETRAIN_DIR = Path("artifacts/jade_pretrain")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of your own, laid over config/*.yaml.", show_default=False),
]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of the encoders."""
    app.command("pretrain-encoder")(pretrain_encoder)


def pretrain_encoder(  # noqa: PLR0913 -- the parameters are the command's options
    data: Annotated[Path, typer.Option(help="CSV or parquet of bars (time, OHLC).")],
    encoder: Annotated[str, typer.Option(help="jade.")] = "jade",
    symbol: Annotated[str | None, typer.Option(help="Only this instrument of the file.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the windows, at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows of an update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest, of AdamW.")] = None,
    mask_strategy: Annotated[str | None, typer.Option(help="random, block or patch.")] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of checkpoints, results and encoder.")
    ] = DEFAULT_PRETRAIN_DIR,
    config_file: ConfigFile = None,
    experiment: Experiment = None,
    seed: Seed = None,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Pretrain an encoder on unlabelled bars: it learns to rebuild bars that it cannot see.

    Several processes: torchrun --nproc-per-node 2 main.py pretrain-encoder ...
    """
    from hrl_sarp.encoders.bar_pretraining import BarPretraining, prepare, pretrain_jade
    from hrl_sarp.runtime import StopFlag, configure_threads

    if encoder not in ENCODERS:
        raise HrlSarpError(f"--encoder must be one of {', '.join(ENCODERS)}, found '{encoder}'")
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "mask_strategy": mask_strategy,
    }
    config = encoder_config(experiment, config_file, {"pretraining": settings}, seed)
    configure_threads(config.threads)
    with _processes(device) as world:
        request = BarPretraining(data, symbol, output, config, resume)
        prepared = prepare(request)  # what is wrong with the data is said before anything is made
        with _folder_of(world, output), StopFlag() as stop:
            result = pretrain_jade(prepared, world, stop)
        if world.is_first:
            _print_result(result, output)


def encoder_config(
    experiment: str | None,
    config_file: Path | None,
    encoders: dict[str, dict[str, Any]],
    seed: int | None,
) -> "RunConfig":
    """Load the configuration with the options of an encoder's command; None is not given."""
    from hrl_sarp.config.loading import load_config

    given = {
        section: {key: value for key, value in options.items() if value is not None}
        for section, options in encoders.items()
    }
    changes: dict[str, Any] = {"encoders": given}
    if seed is not None:
        changes["seed"] = seed
    return load_config(experiment=experiment, overrides=changes, own_file=config_file)


@contextmanager
def _processes(device: str) -> Iterator["World"]:
    """Join the processes that torchrun started; only the first one speaks."""
    from loguru import logger

    from hrl_sarp.encoders.distributed import join_world
    from hrl_sarp.runtime import resolve_device

    with join_world(resolve_device(device)) as world:
        if not world.is_first:
            logger.remove()
        yield world


@contextmanager
def _folder_of(world: "World", output: Path) -> Iterator[None]:
    """Hold the folder in the first process."""
    with running(output, OUTPUT_OPTION) if world.is_first else nullcontext():
        yield


def _print_result(result: "PretrainingResult", output: Path) -> None:
    from hrl_sarp.encoders.pretraining_run import MODEL
    from hrl_sarp.encoders.reconstruction import BASELINES, best_baseline

    judged = result.judged
    losses = ", ".join(f"{name} {judged[name].loss:.4f}" for name in (MODEL, *BASELINES))
    verb = "beats" if result.beats_baselines else "does not beat"
    split = "test" if result.test else "validation"
    typer.echo(f"{split} loss: {losses}; the model {verb} {best_baseline(judged)}")
    typer.echo(f"wrote {output / 'encoder.safetensors'}")
