"""Damage files of every kind at random: each must be refused by name, or read as it was written.

    python scripts/fuzz_artefacts.py --mutations 20000 --seed 0

A mutation flips bits, cuts a part out, inserts bytes, zeroes a block, or swaps two blocks of a
small file of the package. Then the reader of that kind opens it. Fine is an error of the package
that names the file, or the value as it was written. Everything else is a failure: another error, an
error without the file's name, a changed value. Draws depend on --seed, the kind and the number of
the mutation only, so the same command repeats a failure. Exit code 0 without failures, else 1.

The trial log is appended to: a file that ends early is what a killed writer leaves. Its last trials
are then missing, which counts as "shortened" and is shown.
"""

import argparse
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from loguru import logger  # noqa: E402 -- needs the path

from hrl_sarp.config.loading import dump_config, load_config  # noqa: E402
from hrl_sarp.contracts import DayRange, Market, Split  # noqa: E402
from hrl_sarp.daily.paper.account import PaperAccount, PaperDay, Terms  # noqa: E402
from hrl_sarp.daily.portfolio import Memory, Standing  # noqa: E402
from hrl_sarp.data import store  # noqa: E402
from hrl_sarp.data.exchange_calendar import sessions_between  # noqa: E402
from hrl_sarp.data.quality.validation import validate  # noqa: E402
from hrl_sarp.data.sources.files.folder import load  # noqa: E402
from hrl_sarp.encoders import (  # noqa: E402
    embedding_table,
    export_encoder,
    load_encoder,
    read_description,
)
from hrl_sarp.encoders.networks import build_encoder  # noqa: E402
from hrl_sarp.encoders.networks.projection import (  # noqa: E402
    Projection,
    load_projection,
    save_projection,
)
from hrl_sarp.errors import HrlSarpError  # noqa: E402
from hrl_sarp.fitting.resume import RunState  # noqa: E402
from hrl_sarp.known_markets.small_market import market_of_returns  # noqa: E402
from hrl_sarp.market.cache import read_market, write_market  # noqa: E402
from hrl_sarp.reporting.table import Table  # noqa: E402
from hrl_sarp.run.checkpoints import load_payload, save_payload  # noqa: E402
from hrl_sarp.run.damage import UNREADABLE_TABLE, sealed  # noqa: E402
from hrl_sarp.run.files import read_json, write_json, write_text  # noqa: E402
from hrl_sarp.run.phases import PHASES, config_of_run  # noqa: E402
from hrl_sarp.run.terminal import accept_any_console, phase_progress  # noqa: E402
from hrl_sarp.run.trials import Span, Trial, TrialLog  # noqa: E402
from hrl_sarp.studies.walk_forward.ledger import (  # noqa: E402
    EARLIER,
    NUMBERS,
    Ledger,
    read_ledger,
    write_ledger,
)

SHOWN_FAILURES = 5
REFUSED, UNCHANGED, SHORTENED = "refused", "unchanged", "shortened"
FINE = (REFUSED, UNCHANGED, SHORTENED)
COMMAND = "hrl-sarp train"

Read = Callable[[], Any]


@dataclass(frozen=True)
class Artefact:
    """A file that the package wrote, and how the package reads it."""

    path: Path
    read: Read
    is_log: bool = False
    """Its end may be missing."""
    is_input: bool = False
    """Written by a person: there is no checksum, and every readable value is meant."""


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    options = _options(arguments)
    torch.set_num_threads(1)
    logger.remove()
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            started = time.perf_counter()
            outcomes, failed = fuzz(kind, Path(folder) / kind, options.mutations, options.seed)
            rate = options.mutations / (time.perf_counter() - started)
            shown = [str(outcomes[name]) for name in FINE]
            rows.append((kind, *shown, str(len(failed)), f"{rate:,.0f}"))
            failures += failed
            sys.stdout.write(f"{kind}: {dict(outcomes)}, {rate:,.0f} a second\n")
            sys.stdout.flush()
    header = ("kind", "refused by name", "unchanged", "shortened", "failures", "a second")
    title = f"{options.mutations:,} mutations a kind, seed {options.seed}"
    sys.stdout.write(Table(title, header, rows).markdown() + "\n")
    sys.stdout.writelines(f"FAILED {line}\n" for line in failures[:SHOWN_FAILURES])
    return int(bool(failures))


def fuzz(kind: str, folder: Path, mutations: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage one kind of file again and again.

    Returns:
        How often each outcome was seen, and one line for each failure.
    """
    folder.mkdir(parents=True)
    artefact = KINDS[kind](folder)
    original, expected = artefact.path.read_bytes(), artefact.read()
    outcomes: Counter[str] = Counter()
    failures = []
    with phase_progress(kind, mutations) as bar:
        for number in range(mutations):
            rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
            how, damaged = mutate(original, rng)
            artefact.path.write_bytes(damaged)
            outcome = outcome_of(artefact, expected)
            outcomes[outcome if outcome in FINE else "failed"] += 1
            if outcome not in FINE:
                failures.append(f"{kind}, mutation {number} ({how}): {outcome}")
            bar.update(number + 1)
    return outcomes, failures


def outcome_of(artefact: Artefact, expected: Any) -> str:
    """Read a damaged file and say what happened."""
    try:
        found = artefact.read()
    except HrlSarpError as error:
        is_named = artefact.path.name in str(error)
        return REFUSED if is_named else f"refused without the file's name: {error}"
    except UNREADABLE_TABLE as error:  # any other error ends the script, which shows it
        return f"{type(error).__name__}: {error}"
    if artefact.is_input or is_same(found, expected):
        return UNCHANGED
    if artefact.is_log and _is_part(found, expected):
        return SHORTENED
    return "read with another value"


def _is_part(found: Any, expected: Any) -> bool:
    """Say whether every line of a log is one of those before the damage, none of them twice.

    Whole lines may have changed places: each says its own time.
    """
    places = [
        next((i for i, other in enumerate(expected) if is_same(line, other)), None)
        for line in found
    ]
    return None not in places and len(set(places)) == len(places)


def mutate(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Change a file in one of five ways, and say in which; the result differs from the file."""
    changes = (_flip, _cut, _insert, _zero, _swap)
    while True:
        change = changes[rng.integers(len(changes))]
        damaged = change(content, rng)
        if damaged != content:
            return change.__name__.lstrip("_"), damaged


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:start] if rng.random() < 0.5 else content[:start] + content[stop:]


def _insert(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    added = content[start:stop] if rng.random() < 0.5 else rng.bytes(stop - start)
    return content[:start] + added + content[start:]


def _zero(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    if rng.random() < 0.25:  # the end, as after a crash of the machine
        stop = len(content)
    return content[:start] + bytes(stop - start) + content[stop:]


def _swap(content: bytes, rng: np.random.Generator) -> bytes:
    half = len(content) // 2
    size = int(rng.integers(1, half + 1))
    first = int(rng.integers(0, half - size + 1))
    second = int(rng.integers(half, len(content) - size + 1))
    one, other = content[first : first + size], content[second : second + size]
    middle = content[first + size : second]
    return content[:first] + other + middle + one + content[second + size :]


def _span(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a part of a file: short parts are as frequent as long ones."""
    start = int(rng.integers(len(content)))
    size = int(np.exp(rng.uniform(0.0, np.log(len(content)))))
    return start, min(start + size, len(content))


def is_same(first: Any, second: Any) -> bool:
    """Say whether two values are equal bit for bit, also inside containers."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        return all(is_same(getattr(first, name), getattr(second, name)) for name in names)
    if isinstance(first, torch.Tensor):
        return is_same(first.numpy(), second.numpy())
    if isinstance(first, np.ndarray):
        is_alike = first.shape == second.shape and first.dtype == second.dtype
        return is_alike and first.tobytes() == second.tobytes()
    if isinstance(first, pl.DataFrame):
        return first.equals(second)
    return bool(first == second)


def _market() -> Market:
    rng = np.random.default_rng(0)
    rows = DayRange(0, 20)
    returns = rng.normal(0.0, 0.02, (20, 4))
    return market_of_returns("tiny", returns, np.repeat([0, 1], 2), Split(rows, rows, rows))


def _payload() -> dict[str, Any]:
    weights = build_encoder("jade", 3, _small_encoders()).state_dict()
    return {"kind": "phase 1", "weights": weights, "epoch": 3, "loss": [0.5, 0.25], "name": "a run"}


def _small_encoders() -> Any:
    small = {"encoders": {"jade": {"hidden": 4, "layers": 1}, "panel": {"embedding_size": 2}}}
    return load_config(overrides=small).encoders


def _checkpoint(folder: Path) -> Artefact:
    path = save_payload(folder / "best_macro.pt", _payload())
    return Artefact(path, lambda: load_payload(path))


def _run_state(folder: Path) -> Artefact:
    state = RunState(folder, "phase 1", {"seed": 1, "data_hash": "c0ffee"}, resume=True)
    state.save(_payload())
    return Artefact(state.path, state.load)


def _market_cache(folder: Path) -> Artefact:
    path = folder / "tiny.npz"
    write_market(_market(), path)
    return Artefact(path, lambda: read_market(path))


def _raw(folder: Path) -> Path:
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(30)]
    rng = np.random.default_rng(1)
    names = store.BARS_SCHEMA.names()
    numbers = {name: rng.uniform(1.0, 2.0, 60) for name in names if name not in ("date", "symbol")}
    bars = {"date": days * 2, "symbol": ["A"] * 30 + ["B"] * 30, **numbers}
    raw = store.RawData(
        bars=pl.DataFrame(bars, schema=store.BARS_SCHEMA),
        sectors=pl.DataFrame({"symbol": ["A", "B"], "sector": ["x", "y"]}, store.SECTORS_SCHEMA),
        macro=pl.DataFrame(schema=store.MACRO_SCHEMA),
        index=pl.DataFrame(schema=store.INDEX_SCHEMA),
        source="files",
        adjustment="closes are as traded",
        survivorship="two stocks that a test made up",
    )
    return store.write_raw(raw, folder).parent


def _manifest(folder: Path) -> Artefact:
    _raw(folder)
    return Artefact(folder / store.MANIFEST_NAME, lambda: store.read_manifest(folder))


def _raw_table(folder: Path) -> Artefact:
    _raw(folder)
    return Artefact(folder / "market" / "bars.parquet", lambda: store.read_raw(folder))


def _encoder(folder: Path) -> Path:
    columns = ["a", "b", "c"]
    texts = dict.fromkeys(
        ("fitted_from", "fitted_to", "data_hash", "config_hash", "code_version"), "2024-01-01"
    )
    description: dict[str, Any] = {
        "kind": "jade",
        "n_features": 3,
        "columns": columns,
        "window_length": 8,
        "sizes": {"hidden": 4},
        "scaler": None,
        "seed": 0,
        **texts,
    }
    return export_encoder(folder, build_encoder("jade", 3, _small_encoders()), description)


def _encoder_weights(folder: Path) -> Artefact:
    path, module = _encoder(folder), build_encoder("jade", 3, _small_encoders())

    def read() -> Any:
        load_encoder(path, module)
        return {name: weights.clone() for name, weights in module.state_dict().items()}

    return Artefact(path, read)


def _encoder_description(folder: Path) -> Artefact:
    path = _encoder(folder).with_name("encoder.json")
    return Artefact(path, lambda: read_description(path))


def _projection(folder: Path) -> Artefact:
    path, drawn = folder / "projection.safetensors", torch.Generator().manual_seed(0)
    facts = dict.fromkeys(("encoder_hash", "fitted_from", "fitted_to"), "2024-01-01")
    components = torch.randn(8, 2, generator=drawn)
    save_projection(path, Projection(torch.zeros(8), components, 0.5), facts)
    return Artefact(path, lambda: load_projection(path, COMMAND))


def _embedding_table(folder: Path) -> Artefact:
    path = folder / "tiny-jade.npy"
    drawn = np.random.default_rng(2).normal(size=(20, 3, 4)).astype(np.float32)
    embedding_table.write_blocks(
        path, drawn.shape, drawn.dtype, 8, lambda days: drawn[days], "drawn"
    )

    def read() -> np.ndarray:
        if embedding_table.finished_hash(path) is None:  # the package makes the table again
            raise HrlSarpError(f"{path.name} is damaged")
        return np.array(embedding_table.read_table(path))

    return Artefact(path, read)


def _run_config(folder: Path) -> Artefact:
    path = folder / PHASES[0].folder / "config.yaml"
    path.parent.mkdir()
    write_text(path, sealed(dump_config(load_config(market="sample"))))
    return Artefact(path, lambda: config_of_run(folder))


def _own_config(folder: Path) -> Artefact:
    path = folder / "own.yaml"
    write_text(path, "seed: 3\nthreads: 1\nencoders:\n  jade: {hidden: 64, layers: 1}\n")
    return Artefact(path, lambda: load_config(own_file=path), is_input=True)


def _own_prices(name: str) -> Callable[[Path], Artefact]:
    """Make the kind of a user's file of prices, read as `collect-data` and `validate-data` do."""

    def make(folder: Path) -> Artefact:
        days = sessions_between("XNYS", date(2019, 1, 2), date(2019, 3, 29))
        close = 100.0 + np.arange(len(days)) % 7
        prices = {"open": close, "high": close + 1, "low": close - 1, "close": close}
        bars = pl.DataFrame({"date": days, "symbol": "AAA", **prices, "volume": 900.0 + close})
        both = pl.concat([bars, bars.with_columns(symbol=pl.lit("BBB"))])
        write_text(folder / "sectors.csv", "symbol,sector\nAAA,Energy\nBBB,Energy\n")
        path = folder / name
        if name.endswith(".parquet"):
            both.write_parquet(path)
        else:
            (both if path.stem == "prices" else bars.drop("symbol")).write_csv(path)
        thresholds = load_config().data.validation

        def read() -> pl.DataFrame:
            raw = load(folder, calendar="XNYS")
            validate(raw, thresholds, "XNYS")
            return raw.bars

        return Artefact(path, read, is_input=True)

    return make


def _json_report(folder: Path) -> Artefact:
    path = folder / "validation.json"
    write_json(path, {"has_failed": False, "rules": [{"rule": "gap", "count": 3, "value": 0.25}]})
    return Artefact(path, lambda: read_json(path, COMMAND))


def _walk_forward_series(folder: Path) -> Artefact:
    drawn = np.random.default_rng(3).normal(0.0, 0.01, (3, 40, 2))
    days = np.arange(40) + np.datetime64("2024-01-01")
    names = ("prior", "agent")
    numbers: dict[str, Any] = dict.fromkeys(NUMBERS, drawn)
    parts: dict[str, Any] = {"objective": {"premium": drawn}, "distance": {"prior": drawn[0]}}
    series = Ledger(names, days, drawn[0, :, 0], **numbers, frictions=EARLIER, **parts)
    write_ledger(series, folder)
    return Artefact(folder / "series.npz", lambda: read_ledger(folder))


def _trial_log(folder: Path) -> Artefact:
    log = TrialLog(folder / "trials.jsonl")
    span = Span("test", "2019-01-02", "2019-12-31")
    for i in range(8):
        log.add(Trial("tuning", f"rate {i}", f"c{i}", "da7a", span, "growth", 0.01 * i, seed=i))
    return Artefact(log.path, log.trials, is_log=True)


def _paper_account(folder: Path) -> Artefact:
    path, start = folder / "paper.sqlite", date(2024, 1, 2)
    first = _paper_day(start, 1000.0)
    terms = Terms(("/runs/a",), "c0ffee", "us", 1000.0, None, 10, start)
    PaperAccount.create(path, terms, first)
    with PaperAccount.open(path) as account:
        account.append(_paper_day(start + timedelta(days=1), 1012.5))

    def read() -> Any:
        with PaperAccount.open(path) as account:
            return account.terms, account.days

    return Artefact(path, read)


def _paper_day(day: date, wealth: float) -> PaperDay:
    memory = Memory(goal=(0.25, 0.75, 0.1), goal_day=day, traded={"A": 0.5})
    return PaperDay(
        day=day,
        net_return=0.0125,
        gross_return=0.013,
        cost=0.0005,
        turnover=0.25,
        wealth=wealth,
        cash=0.5 * wealth,
        benchmark_return=0.01,
        standing=Standing(day, wealth, {"A": 0.5}, memory),
        holdings={"A": {"shares": 5.0, "close": wealth / 10, "value": wealth / 2}},
        fills=({"symbol": "A", "side": "buy", "shares": 5.0, "price": 100.0, "value": 500.0},),
        events=({"kind": "split", "symbol": "A", "text": "2 for 1"},),
        decision={"policy": "mine", "targets": {"A": 0.5}, "orders": []},
    )


KINDS: dict[str, Callable[[Path], Artefact]] = {
    "checkpoint": _checkpoint,
    "state of a run": _run_state,
    "market cache": _market_cache,
    "manifest": _manifest,
    "raw table": _raw_table,
    "encoder weights": _encoder_weights,
    "encoder description": _encoder_description,
    "projection": _projection,
    "embedding table": _embedding_table,
    "configuration of a run": _run_config,
    "configuration of a user": _own_config,
    "prices of a user": _own_prices("prices.csv"),
    "download of a user": _own_prices("AAA.csv"),
    "typed prices of a user": _own_prices("prices.parquet"),
    "validation report": _json_report,
    "walk-forward series": _walk_forward_series,
    "trial log": _trial_log,
    "paper account": _paper_account,
}


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=2000, help="of each kind (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
