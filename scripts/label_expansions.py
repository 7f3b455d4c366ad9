"""Label windows of bars for `finetune-encoder` by a rule: where is the expansion?

    python scripts/label_expansions.py --data bars.parquet --output labelled.parquet

An expansion is the shortest run of bars that moves far in one direction with little retrace;
`encoders.expansion` in config/encoder_config.yaml holds the numbers, docs/encoders.md the rule.
Windows with exactly one are written, with what came before it (consolidation or retracement) as
label; LABELLED.json beside the file says how many were looked at and what was found. The label
is a function of the window's own bars: it serves detection, and is no forecast.
"""

import argparse
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    from rich.console import Console

    from hrl_sarp.errors import HrlSarpError

    options = _options(arguments)
    try:
        label(options)
    except HrlSarpError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def label(options: argparse.Namespace) -> None:
    """Label the bars of all files and write them with their base rates."""
    import polars as pl
    from rich.console import Console

    from hrl_sarp.config.loading import load_config
    from hrl_sarp.data.bars import read_bars
    from hrl_sarp.price_action.expansions.windows import between, draw, label_bars
    from hrl_sarp.reporting.table import Table
    from hrl_sarp.run.files import write_json, write_table

    changes = {} if options.stride is None else {"stride": options.stride}
    config = load_config(own_file=options.config, overrides={"windowed": changes})
    rule = config.encoders.expansion
    frames, found, facts = [], {}, {}
    for path in options.data:
        bars = between(read_bars(path, options.symbol), options.start, options.end)
        frame, rates = label_bars(bars, config.windowed, rule)
        frames.append(frame)
        found[str(path)] = rates
        facts[str(path)] = {"data_hash": bars.content_hash, **rates}
    rows = [(name, *(_shown(values[name]) for values in found.values())) for name in rates]
    header = ("measure", *(path.stem for path in options.data))
    written = pl.concat(frames)
    if options.max_windows is not None:
        written = draw(written, options.max_windows, options.seed)
    write_table(options.output, written)
    settings = {"stride": config.windowed.stride, "seed": options.seed}
    report = {"written": written.height, "files": facts, "rule": rule.model_dump(), **settings}
    write_json(options.output.with_suffix(".json"), report)
    Console().print(Table("windows of bars, by what the rule finds in them", header, rows))
    Console().print(f"wrote {written.height} windows to {options.output}", soft_wrap=True)


def _shown(value: int | float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="CSV or parquet of bars (time, OHLC)")
    add("--output", type=Path, required=True, help="parquet file to write")
    add("--symbol", help="only this instrument of the files")
    add("--start", type=date.fromisoformat, help="first day of bars, such as 2018-01-01")
    add("--end", type=date.fromisoformat, help="last day of bars")
    add("--stride", type=int, help="bars between two windows (default: that of windowed.yaml)")
    add("--max-windows", type=int, help="keep this many of the labelled windows, drawn by the seed")
    add("--seed", type=int, default=0, help="of that draw (default 0)")
    add("--config", type=Path, help="YAML of your own, laid over config/*.yaml")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
