"""What is pretraining worth? Frozen, fine-tuned and from scratch at growing numbers of labels.

The fourth arm freezes random weights: what the heads can do alone.

    python scripts/label_expansions.py --data bars.parquet --output labelled.parquet
    python scripts/label_efficiency.py --data labelled.parquet --encoder artifacts/jade_pretrain \
        --output artifacts/label_efficiency

A cell is one arm at one number of labels with one seed. The seed draws the labels from all windows
that the encoder's fitted span holds (larger draws contain the smaller ones), and a fifth of a draw,
by whole groups, chooses the epoch: n labels are all that a cell knows. Every cell is tested on the
same windows, which begin after that span. All arms make at most --updates updates.

Each finished cell has a folder, so the same command goes on after Ctrl-C, and more --seeds or
--labels add cells. label_efficiency.json, a figure and a table in Markdown hold means and 95 %
intervals over seeds (Student's t). Differences to `scratch` are paired by seed. Labels say where an
expansion is inside the window: this compares detectors, and forecasts nothing.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path
from hrl_sarp.studies import Cell, moments, run_grid  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.price_action.expansions.finetuning import Job
    from hrl_sarp.price_action.expansions.windows import LabelledWindows

ARMS = ("random", "frozen", "fine-tuned", "scratch")
FROZEN, PRETRAINED = ("random", "frozen"), ("frozen", "fine-tuned")
SHOWN = {"span_f1": "span F1", "hit_at_3": "hit within 3 bars", "type_accuracy": "type accuracy"}
APART = 0.05
"""By which arms stand beside each other in the figure, as a share of the labels."""
OF_CELLS = ("labels", "seeds", "jobs", "output")
"""Options that say which cells run and where."""
TEST_SEED = 0
"""Draws the test windows, once for all cells."""
REPORT = "label_efficiency"
FEWEST_SEEDS = 2
"""That have an interval."""


def cell_of(arm: str, labels: int, seed: int) -> Cell:
    """Name the cell of one arm at one number of labels with one seed."""
    return Cell(f"{arm}_{labels:05d}", seed)


def arm_of(cell: Cell) -> tuple[str, int]:
    """Read arm and number of labels from a cell."""
    arm, labels = cell.setting.rsplit("_", 1)
    return arm, int(labels)


@dataclass(frozen=True)
class LabelStudy:
    """What all cells share."""

    data: Path
    encoder: Path
    folder: Path
    variant: str
    updates: int
    patience: int
    """Updates without a better validation loss after which a cell ends."""
    test_windows: int
    config: Path | None
    facts: dict[str, Any] = field(default_factory=dict)
    """Data, encoder and lengths that results depend on; `prepare` fills it."""
    title: str = "label efficiency"

    def run_config(self, changes: dict[str, Any]) -> "RunConfig":
        """Load the configuration with changes."""
        from hrl_sarp.config.loading import load_config

        return load_config(own_file=self.config, overrides=changes)

    def prepare(self, most_labels: int) -> None:
        """Check that the data hold enough windows, and note what results depend on."""
        from hrl_sarp.encoders.transfer import read_description
        from hrl_sarp.errors import DataError

        config = self.run_config({})
        windows, (pool, test) = _windows(self, config)
        if len(pool) < most_labels or len(test) == 0:
            raise DataError(
                f"{self.data}: expected {most_labels} windows to draw labels from, before the end "
                f"of the encoder's fitted span, and some after it; found {len(pool)} and "
                f"{len(test)}"
            )
        description = read_description(self.encoder)
        named = ("data_hash", "sizes", "seed", "fitted_to")
        self.facts.update(
            data=windows.content_hash,
            encoder={key: description[key] for key in named},
            encoder_weights=description.get("weights_sha256"),
            variant=self.variant,
            finetuning=config.encoders.finetuning.model_dump(mode="json"),
            updates=self.updates,
            patience_updates=self.patience,
            test_windows=len(test),
            test_groups=len(np.unique(windows.group[test])),
            pool_windows=len(pool),
        )

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell's result depends on."""
        return self.facts

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train one cell and measure it on the test windows."""
        from hrl_sarp.price_action.expansions.finetuning import new_fit
        from hrl_sarp.run.session import StopFlag, configure_threads

        configure_threads(1)
        job = make_job(self, cell)
        task = job.task()
        fitted = new_fit(job, task, StopFlag()).run()
        outcome = job.evaluate(task)
        return {
            "test": outcome.model,
            "baselines": outcome.trivial,
            "windows": {name: len(rows) for name, rows in vars(job.split).items()},
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch + 1,
        }


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    from rich.console import Console

    from hrl_sarp.errors import HrlSarpError

    options = _options(arguments)
    try:
        return study(options)
    except HrlSarpError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on with the cell under way")
        return 130


def study(options: argparse.Namespace) -> int:
    """Run the cells that are missing and report all of them."""
    shared = {name: getattr(options, name) for name in vars(options) if name not in OF_CELLS}
    study = LabelStudy(folder=options.output, **shared)
    study.prepare(max(options.labels))
    cells = [
        cell_of(arm, labels, seed)
        for seed in range(options.seeds)
        for labels in options.labels
        for arm in ARMS
    ]
    results = run_grid(study, cells, options.jobs, in_process=options.jobs == 1)
    for cell, reason in results.failed.items():
        sys.stderr.write(f"{cell.name} failed: {reason}\n")
    if results.failed:
        return 1
    report(study, results.found)
    return 0


def make_job(study: LabelStudy, cell: Cell) -> "Job":
    """Draw the labels of a cell, split them and say what is trained."""
    import torch

    from hrl_sarp.price_action.expansions.finetuning import FinetuneRequest, assemble
    from hrl_sarp.price_action.expansions.windows import GroupSplit, split_by_group

    arm, labels = arm_of(cell)
    changes: dict[str, Any] = {"seed": cell.seed}
    config = study.run_config(changes)
    windows, (pool, test) = _windows(study, config)
    drawn = np.random.default_rng(cell.seed).permutation(pool)[:labels]
    some = windows.rows(np.concatenate([drawn, test]))
    share = config.encoders.finetuning.val_share
    inner = split_by_group(windows.group[drawn], share, 0.0, cell.seed)
    split = GroupSplit(inner.train, inner.validation, np.arange(labels, len(some)))
    batch = config.encoders.finetuning.variants[study.variant].batch_size
    each = math.ceil(len(split.train) / batch)
    schedule = {
        "epochs": math.ceil(study.updates / each),
        "patience": math.ceil(study.patience / each),
    }
    config = study.run_config({**changes, "encoders": {"finetuning": schedule}})
    source = study.encoder if arm in PRETRAINED else None
    request = FinetuneRequest(
        variant=study.variant,
        data=study.data,
        output=study.folder / cell.name,
        pretrained=source,
        is_frozen=arm in FROZEN,
        device=torch.device("cpu"),
        config=config,
        resume=False,
    )
    return assemble(request, some, split)


def _windows(
    study: LabelStudy, config: "RunConfig"
) -> tuple["LabelledWindows", tuple[np.ndarray, np.ndarray]]:
    """Return all windows, and the rows of the pool and of the test."""
    import polars as pl

    from hrl_sarp.encoders.transfer import read_description
    from hrl_sarp.errors import DataError
    from hrl_sarp.price_action.expansions.windows import read_labelled

    windows = read_labelled(study.data, config.windowed.window_length)
    fitted_to = np.datetime64(read_description(study.encoder)["fitted_to"])
    columns = pl.read_parquet_schema(study.data)
    if "time" not in columns:
        raise DataError(
            f"{study.data}: expected a column `time` (of the first bar), found "
            f"{', '.join(columns)}; label bars with scripts/label_expansions.py"
        )
    time_of = pl.read_parquet(study.data, columns=["time"])["time"].to_numpy()
    later = np.flatnonzero(time_of > fitted_to)
    # a group that the pool has begun stays out of the test
    pool = np.flatnonzero(time_of <= fitted_to)
    later = later[~np.isin(windows.group[later], windows.group[pool])]
    order = np.random.default_rng(TEST_SEED).permutation(later)
    return windows, (pool, np.sort(order[: study.test_windows]))


def report(study: LabelStudy, found: Mapping[Cell, dict[str, Any]]) -> None:
    """Write the table, the figure and all numbers, and print the table."""
    from rich.console import Console

    from hrl_sarp.reporting.figure import save_png
    from hrl_sarp.run.files import write_json, write_text

    rows = summarise(found)
    write_json(study.folder / f"{REPORT}.json", {"study": study.facts, "rows": rows})
    table = as_markdown(rows)
    write_text(study.folder / f"{REPORT}.md", table)
    save_png(study.folder / f"{REPORT}.png", _drawn(rows))
    Console().print(table, soft_wrap=True)


def summarise(found: Mapping[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean, interval and paired difference of each measure, by labels and arm."""
    rows = []
    for labels in sorted({arm_of(cell)[1] for cell in found}):
        seeds = sorted({cell.seed for cell in found if arm_of(cell)[1] == labels})
        for arm in ARMS:
            cells = {seed: found[cell_of(arm, labels, seed)] for seed in seeds}
            scratch = {seed: found[cell_of("scratch", labels, seed)] for seed in seeds}
            for measure in cells[seeds[0]]["test"]:
                values = [cells[seed]["test"][measure] for seed in seeds]
                reference = [scratch[seed]["test"][measure] for seed in seeds]
                own = moments(values)
                paired = moments([a - b for a, b in zip(values, reference, strict=True)])
                trivial = np.mean([cell["baselines"][measure] for cell in cells.values()])
                rows.append(
                    {
                        "labels": labels,
                        "arm": arm,
                        "measure": measure,
                        "seeds": len(seeds),
                        "mean": own.mean,
                        "half_width": own.half_width,
                        "over_scratch": paired.mean,
                        "over_scratch_half_width": paired.half_width,
                        "baseline": float(trivial),
                    }
                )
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table with a row per number of labels and arm."""
    names = list(SHOWN)
    chosen = [row for row in rows if row["measure"] in names]
    lines = [
        f"| labels | arm | {' | '.join(SHOWN.values())} | span F1 over scratch |",
        f"| ---: | --- |{' ---: |' * (len(names) + 1)}",
    ]
    for labels in sorted({row["labels"] for row in chosen}):
        here = [row for row in chosen if row["labels"] == labels]
        for arm in ARMS:
            found = {row["measure"]: row for row in here if row["arm"] == arm}
            values = [f"{found[m]['mean']:.3f} ± {found[m]['half_width']:.3f}" for m in names]
            first = found[names[0]]
            gain = f"{first['over_scratch']:+.3f} ± {first['over_scratch_half_width']:.3f}"
            shown = "-" if arm == "scratch" else gain
            lines.append(f"| {labels:,} | {arm} | {' | '.join(values)} | {shown} |")
        trivial = [next(r["baseline"] for r in here if r["measure"] == m) for m in names]
        values = [f"{value:.3f}" for value in trivial]
        lines.append(f"| {labels:,} | no model | {' | '.join(values)} | - |")
    return "\n".join(lines) + "\n"


def _drawn(rows: list[dict[str, Any]]) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from hrl_sarp.reporting.figure import STYLE

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 3.8), layout="constrained")
        panels = zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True)
        for axes, (measure, title) in panels:
            _draw_measure(axes, [row for row in rows if row["measure"] == measure])
            axes.set(title=title, xlabel="labels")
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(ARMS) + 1)
    return figure


def _draw_measure(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    from hrl_sarp.reporting.figure import BLUE, GREEN, INK, PURPLE, VERMILION

    axes.set_xscale("log")
    colours = zip(ARMS, (PURPLE, GREEN, BLUE, VERMILION), strict=True)
    for place, (arm, colour) in enumerate(colours):
        mine = [row for row in rows if row["arm"] == arm]
        x = [row["labels"] * (1 + APART * (place - len(ARMS) / 2)) for row in mine]
        y, bar = ([row[key] for row in mine] for key in ("mean", "half_width"))
        axes.errorbar(x, y, bar, color=colour, marker="o", markersize=4, capsize=3, label=arm)
    trivial = [row for row in rows if row["arm"] == ARMS[0]]
    x, y = ([row[key] for row in trivial] for key in ("labels", "baseline"))
    axes.plot(x, y, color=INK, linestyle="--", label="no model")
    axes.set_xticks(x, [f"{labels:,}" for labels in x])
    axes.minorticks_off()


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="file that scripts/label_expansions.py wrote")
    add("--encoder", type=Path, required=True, help="encoder that pretrain-encoder wrote")
    add("--output", type=Path, required=True, help="folder of cells and report")
    add("--variant", default="position", help="baseline, stones or position (the default)")
    add("--labels", type=int, nargs="+", default=[50, 174, 500, 2000])
    add("--seeds", type=int, default=5, help="cells of each arm and size (default 5)")
    add("--updates", type=int, default=200, help="of each cell, at most (default 200)")
    add("--patience", type=int, default=60, help="updates without gain that end it (default 60)")
    add("--test-windows", type=int, default=500, help="evaluated, at most (default 500)")
    add("--jobs", type=int, default=1, help="processes of one thread each (default 1)")
    add("--config", type=Path, help="YAML of your own, laid over config/*.yaml")
    options = parser.parse_args(arguments)
    if options.seeds < FEWEST_SEEDS:
        parser.error(f"--seeds: an interval needs at least {FEWEST_SEEDS}, found {options.seeds}")
    return options


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
