"""What is pretraining worth? Pretrained and random encoders at growing numbers of labels.

    python scripts/label_expansions.py --data bars.parquet --output labelled.parquet
    python scripts/label_efficiency.py --data labelled.parquet --encoder artifacts/jade_pretrain \
        --output artifacts/label_efficiency

`random` and `frozen` train heads on an encoder that stays random or pretrained. `fine-tuned` and
`gentle` train the pretrained encoder, too: at the rate of the heads, or after them and more slowly.
`scratch` begins at random. `permuted` is a control: `scratch` on labels shuffled over the windows.
All arms read the columns of the pretrained encoder. Two rules need no network: the interval that is
best on the labels, and the bars of the largest move (price_action/expansions/rules.py).

A cell is one arm at one number of labels with one seed. The seed draws the labels from all windows
that the encoder's fitted span holds (larger draws contain the smaller ones), and a fifth of a draw,
by whole groups, chooses the epoch: n labels are all that a cell knows. Every cell is tested on the
same windows, which begin after that span. A cell has converged if its validation loss found no new
best within the patience before it had made all its updates; the table says how many have.

Each finished cell has a folder, so the same command goes on after Ctrl-C, and more --arms, --seeds
or --labels add cells. label_efficiency.json, a figure and a table in Markdown hold means and 95 %
intervals over seeds (Student's t) of all cells of the folder. Differences to `scratch` are paired
by seed. Labels say where an expansion is inside the window: this compares detectors, and forecasts
nothing.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Arm:
    """How an arm begins and what learns in it."""

    is_pretrained: bool = False
    is_frozen: bool = False
    is_gentle: bool = False
    is_permuted: bool = False


ARMS = {
    "random": Arm(is_frozen=True),
    "frozen": Arm(is_pretrained=True, is_frozen=True),
    "fine-tuned": Arm(is_pretrained=True),
    "gentle": Arm(is_pretrained=True, is_gentle=True),
    "scratch": Arm(),
    "permuted": Arm(is_permuted=True),
}
REFERENCE = "scratch"
SHOWN = {
    "span_f1": "span F1",
    "run_f1": "F1 of the likeliest run",
    "hit_at_3": "hit within 3 bars",
    "type_accuracy": "type accuracy",
}
APART = 0.05
"""By which arms stand beside each other in the figure, as a share of the labels."""
OF_CELLS = ("labels", "seeds", "arms", "jobs", "output")
"""Options that say which cells run and where."""
TEST_SEED, PERMUTATION = 0, 1
"""Draws the test windows, once for all cells; role of the seed that shuffles labels."""
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
    frozen_updates: int
    frozen_patience: int
    """The same for arms whose heads learn alone."""
    frozen_rate: float
    """Learning rate of these heads."""
    heads_first: int
    """Updates of the heads alone in the arm `gentle`."""
    encoder_share: float
    """Rate of the encoder after them, as a share of that of the heads."""
    test_windows: int
    config: Path | None
    facts: dict[str, Any] = field(default_factory=dict)
    """Data, columns and lengths that results depend on; `prepare` fills it."""
    of_encoder: dict[str, Any] = field(default_factory=dict)
    """The same of the pretrained weights."""
    title: str = "label efficiency"

    def run_config(self, changes: dict[str, Any]) -> "RunConfig":
        """Load the configuration with changes; variants read the encoder's columns."""
        from hrl_sarp.config.loading import load_config
        from hrl_sarp.encoders.transfer import read_description

        columns = list(read_description(self.encoder)["columns"])
        tuned = {"variants": {self.variant: {"features": columns}}, **changes.pop("finetuning", {})}
        overrides = {**changes, "encoders": {"finetuning": tuned}}
        return load_config(own_file=self.config, overrides=overrides)

    def prepare(self, most_labels: int) -> None:
        """Check that the data hold enough windows, and note what results depend on."""
        from hrl_sarp.encoders.transfer import read_description
        from hrl_sarp.errors import DataError
        from hrl_sarp.price_action.expansions.windows import input_columns

        config, description = self.run_config({}), read_description(self.encoder)
        columns = list(description["columns"])
        read = list(input_columns(columns, config.windowed.feature_config))
        if read != columns:
            raise DataError(
                f"{self.encoder}: expected an encoder of the columns {', '.join(read)}, which "
                f"windowed.feature_config makes, found {', '.join(columns)}; give the --config "
                "that it was pretrained with"
            )
        windows, (pool, test) = _windows(self, config)
        if len(pool) < most_labels or len(test) == 0:
            raise DataError(
                f"{self.data}: expected {most_labels} windows to draw labels from, before the end "
                f"of the encoder's fitted span, and some after it; found {len(pool)} and "
                f"{len(test)}"
            )
        self.facts.update(
            data=windows.content_hash,
            variant=self.variant,
            columns=columns,
            sizes=config.encoders.jade.model_dump(mode="json"),
            fitted_to=description["fitted_to"],
            finetuning=config.encoders.finetuning.model_dump(mode="json"),
            test_windows=len(test),
            test_groups=len(np.unique(windows.group[test])),
            pool_windows=len(pool),
        )
        named = ("data_hash", "sizes", "seed", "weights_sha256")
        self.of_encoder.update({key: description.get(key) for key in named})

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell's result depends on."""
        arm = ARMS[arm_of(cell)[0]]
        found = {**self.facts, "updates": self.updates, "patience_updates": self.patience}
        if arm.is_frozen:
            found |= {"updates": self.frozen_updates, "patience_updates": self.frozen_patience}
            found["rate"] = self.frozen_rate
        if arm.is_gentle:
            found |= {"heads_first": self.heads_first, "encoder_share": self.encoder_share}
        return {**found, "encoder": self.of_encoder} if arm.is_pretrained else found

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train one cell and measure it on the test windows."""
        from hrl_sarp.price_action.expansions.finetuning import new_fit
        from hrl_sarp.run.session import StopFlag, configure_threads

        configure_threads(1)
        job = make_job(self, cell)
        task = job.task()
        fitted = new_fit(job, task, StopFlag()).run()
        outcome = job.evaluate(task)
        settings = job.request.config.encoders.finetuning
        return {
            "test": outcome.model,
            "baselines": outcome.trivial,
            "rules": outcome.rules,
            "run_bars": outcome.run_bars,
            "windows": {name: len(rows) for name, rows in vars(job.split).items()},
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch + 1,
            "converged": fitted.epochs < settings.epochs,
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
    wanted = [
        cell_of(arm, labels, seed)
        for labels in options.labels
        for seed in range(options.seeds)
        for arm in options.arms
    ]
    there = [cell for cell in finished(options.output) if cell not in wanted]
    results = run_grid(study, [*there, *wanted], options.jobs, in_process=options.jobs == 1)
    for cell, reason in results.failed.items():
        sys.stderr.write(f"{cell.name} failed: {reason}\n")
    if results.failed:
        return 1
    report(study, results.found)
    return 0


def finished(folder: Path) -> list[Cell]:
    """Find the cells of a folder that have a result."""
    names = sorted(path.parent.name.rsplit("-", 1) for path in folder.glob("*/cell.json"))
    return [Cell(setting, int(seed)) for setting, seed in names]


def make_job(study: LabelStudy, cell: Cell) -> "Job":
    """Draw the labels of a cell, split them and say what is trained."""
    import torch

    from hrl_sarp.price_action.expansions.finetuning import FinetuneRequest, assemble
    from hrl_sarp.price_action.expansions.windows import GroupSplit, split_by_group

    name, labels = arm_of(cell)
    arm = ARMS[name]
    config = study.run_config({"seed": cell.seed})
    windows, (pool, test) = _windows(study, config)
    drawn = np.random.default_rng(cell.seed).permutation(pool)[:labels]
    some = windows.rows(np.concatenate([drawn, test]))
    if arm.is_permuted:
        some = _permuted(some, labels, cell.seed)
    share = config.encoders.finetuning.val_share
    inner = split_by_group(windows.group[drawn], share, 0.0, cell.seed)
    split = GroupSplit(inner.train, inner.validation, np.arange(labels, len(some)))
    batch = config.encoders.finetuning.variants[study.variant].batch_size
    each = math.ceil(len(split.train) / batch)
    changes = {"seed": cell.seed, "finetuning": _schedule(study, arm, each)}
    request = FinetuneRequest(
        variant=study.variant,
        data=study.data,
        output=study.folder / cell.name,
        pretrained=study.encoder if arm.is_pretrained else None,
        is_frozen=arm.is_frozen,
        device=torch.device("cpu"),
        config=study.run_config(changes),
        resume=False,
    )
    return assemble(request, some, split)


def _schedule(study: LabelStudy, arm: Arm, each: int) -> dict[str, Any]:
    """Return the settings of an arm, for epochs of `each` updates."""
    updates, patience = study.updates, study.patience
    if arm.is_frozen:
        updates, patience = study.frozen_updates, study.frozen_patience
    found = {"epochs": math.ceil(updates / each), "patience": math.ceil(patience / each)}
    if arm.is_frozen:
        return {**found, "learning_rate": study.frozen_rate}
    if not arm.is_gentle:
        return found
    alone = min(math.ceil(study.heads_first / each), found["patience"])
    return {**found, "heads_first_epochs": alone, "encoder_rate_share": study.encoder_share}


def _permuted(some: "LabelledWindows", labels: int, seed: int) -> "LabelledWindows":
    """Give the first `labels` windows each other's labels."""
    from hrl_sarp.run.session import derive_seed

    order = np.arange(len(some))
    order[:labels] = np.random.default_rng(derive_seed(seed, PERMUTATION)).permutation(labels)
    return replace(some, label=some.label[order], start=some.start[order], end=some.end[order])


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
    shared = {**study.facts, "encoder": study.of_encoder}
    write_json(study.folder / f"{REPORT}.json", {"study": shared, "rows": rows})
    table = as_markdown(rows)
    write_text(study.folder / f"{REPORT}.md", table)
    if rows:
        save_png(study.folder / f"{REPORT}.png", _drawn(rows))
    Console().print(table, soft_wrap=True)


def summarise(found: Mapping[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean, interval and paired difference of each measure, by labels and arm or rule.

    Arms with fewer than `FEWEST_SEEDS` seeds are left out.
    """
    rows = []
    for labels in sorted({arm_of(cell)[1] for cell in found}):
        reference = _of_arm(found, REFERENCE, labels)
        rules = {rule for cell in reference.values() for rule in cell["rules"]}
        parts = {
            arm: {s: c["test"] for s, c in _of_arm(found, arm, labels).items()} for arm in ARMS
        }
        for rule in sorted(rules):
            parts[rule] = {s: _of_rule(cell, rule) for s, cell in reference.items()}
        scratch = parts[REFERENCE]
        for name, values in parts.items():
            if len(values) < FEWEST_SEEDS:
                continue
            ended = [c["converged"] for c in _of_arm(found, name, labels).values()]
            for measure in next(iter(values.values())):
                own = moments([value[measure] for value in values.values()])
                gains = [values[s][measure] - scratch[s][measure] for s in values if s in scratch]
                paired = moments(gains) if len(gains) >= FEWEST_SEEDS else None
                rows.append(
                    {
                        "labels": labels,
                        "arm": name,
                        "measure": measure,
                        "seeds": len(values),
                        "converged": sum(ended),
                        "mean": own.mean,
                        "half_width": own.half_width,
                        "over_scratch": paired and paired.mean,
                        "over_scratch_half_width": paired and paired.half_width,
                    }
                )
    return rows


def _of_arm(
    found: Mapping[Cell, dict[str, Any]], arm: str, labels: int
) -> dict[int, dict[str, Any]]:
    """Return seed -> result of the cells of an arm."""
    return {c.seed: found[c] for c in sorted(found) if arm_of(c) == (arm, labels)}


def _of_rule(cell: dict[str, Any], rule: str) -> dict[str, float]:
    """Return a rule's measures; of the type all rules say the class most frequent in training."""
    return {**cell["rules"][rule], "type_accuracy": cell["baselines"]["type_accuracy"]}


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Return a table with a row per number of labels and arm or rule."""
    names = list(SHOWN)
    lines = [
        f"| labels | arm | seeds (converged) | {' | '.join(SHOWN.values())} "
        "| span F1 over scratch |",
        f"| ---: | --- | ---: |{' ---: |' * (len(names) + 1)}",
    ]
    for labels, arm in dict.fromkeys((row["labels"], row["arm"]) for row in rows):
        here = [row for row in rows if (row["labels"], row["arm"]) == (labels, arm)]
        found = {row["measure"]: row for row in here}
        values = [f"{found[m]['mean']:.3f} ± {found[m]['half_width']:.3f}" for m in names]
        first = found[names[0]]
        seeds = f"{first['seeds']} ({first['converged']})" if arm in ARMS else f"{first['seeds']}"
        gain = "-"
        if first["over_scratch"] is not None and arm != REFERENCE:
            gain = f"{first['over_scratch']:+.3f} ± {first['over_scratch_half_width']:.3f}"
        lines.append(f"| {labels:,} | {arm} | {seeds} | {' | '.join(values)} | {gain} |")
    return "\n".join(lines) + "\n"


def _drawn(rows: list[dict[str, Any]]) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from hrl_sarp.reporting.figure import STYLE

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 4.0), layout="constrained")
        panels = zip(figure.subplots(1, len(SHOWN)), SHOWN.items(), strict=True)
        for axes, (measure, title) in panels:
            _draw_measure(axes, [row for row in rows if row["measure"] == measure])
            axes.set(title=title, xlabel="labels")
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside lower center", ncols=len(ARMS) + 2)
    return figure


def _draw_measure(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    from hrl_sarp.reporting.figure import BLUE, FADED, GREEN, INK, ORANGE, PURPLE, VERMILION

    axes.set_xscale("log")
    colours = dict(zip(ARMS, (PURPLE, GREEN, BLUE, ORANGE, VERMILION, FADED), strict=True))
    names = list(dict.fromkeys(row["arm"] for row in rows))
    for place, name in enumerate(names):
        mine = [row for row in rows if row["arm"] == name]
        aside = APART * (place - len(names) / 2) if name in ARMS else 0.0
        x = [row["labels"] * (1 + aside) for row in mine]
        y, bar = ([row[key] for row in mine] for key in ("mean", "half_width"))
        if name in ARMS:
            colour = colours[name]
            axes.errorbar(x, y, bar, color=colour, marker="o", markersize=4, capsize=3, label=name)
        else:
            axes.plot(x, y, color=INK, linestyle="--" if "move" in name else ":", label=name)
    sizes = sorted({row["labels"] for row in rows})
    axes.set_xticks(sizes, [f"{labels:,}" for labels in sizes])
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
    add("--arms", nargs="+", default=list(ARMS), choices=ARMS, help="all are the default")
    add("--labels", type=int, nargs="+", default=[50, 174, 500, 2000])
    add("--seeds", type=int, default=5, help="cells of each arm and size (default 5)")
    add("--updates", type=int, default=200, help="of each cell, at most (default 200)")
    add("--patience", type=int, default=60, help="updates without gain that end it (default 60)")
    add("--frozen-updates", type=int, default=4000, help="of heads that learn alone (4000)")
    add("--frozen-patience", type=int, default=500, help="their patience (500)")
    add("--frozen-rate", type=float, default=0.01, help="their learning rate (0.01)")
    add("--heads-first", type=int, default=60, help="updates of the heads alone in gentle (60)")
    add("--encoder-share", type=float, default=0.1, help="encoder's rate in gentle (0.1)")
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
