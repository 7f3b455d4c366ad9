"""Bad input at the command line: one clear line, an exit code, and nothing written.

Each case damages a whole, tiny installation (configuration, data, market cache, logs with two
finished phases and a stopped third), runs one command and compares every file before and after.
"""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest
import torch

from hrl_sarp.data.store import write_raw
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.files import sha256_file
from hrl_sarp.run.session import LOCK_FILE, RunFolder
from tests import raw_data
from tests.command_line import Command, assert_refused
from tests.end_to_end import tiny_site
from tests.end_to_end.tiny_site import EXPERIMENT, Site
from tests.limits import largest_file

Prepare = Callable[[Site], object]

BARS = "market/bars.parquet"
MACRO_1 = "pretrain_macro/best_pretrain_macro.pt"
TABLE_1 = "pretrain_macro/sector_graph.pt"
MICRO_2 = "pretrain_micro/best_pretrain_micro.pt"
RUNNING_3 = "phase3_macro/running.pt"
USAGE_ERROR = 2
TOUCHED = "touched_by_a_checkpoint"
LOG = "logs/train_*.log"
"""What `train` said; a refusal after the first line leaves it."""
MARKET_LINES = 3
"""That `train` says of the market before it looks at its folder: spans, what cut one, the index."""


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, the command that meets it and the facts its message must hold.

    A second line is the log's: what was begun when the problem was met.
    """

    name: str
    prepare: Prepare
    command: str
    says: tuple[str, ...]
    code: int = 1
    n_lines: int = 1
    experiment: str = EXPERIMENT


def ids(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def run(case: Case, site: Site, command: Command) -> None:
    case.prepare(site)
    before = site.content()
    name, *options = case.command.split("|")
    folders = site.folders if name in ("train", "backtest") else site.folders[:2]
    anew = ["--overwrite"] if name == "train" and "--resume" not in options else []
    code, out, err = command(name, *options, *anew, *folders, "--experiment", case.experiment)
    assert code == case.code, err
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) == case.n_lines, err
    for fact in case.says:
        assert fact in err
    assert site.content().items() ^ before.items() <= {
        (path, content) for path, content in site.content().items() if fnmatch(path, LOG)
    }


def nothing(_: Site) -> None:
    """Leave the site whole."""


# Raw data


def remove_raw(site: Site) -> None:
    shutil.rmtree(site.raw)


def empty_raw(site: Site) -> None:
    remove_raw(site)
    site.raw.mkdir()


def truncate_bars(site: Site) -> None:
    forget_market(site)
    path = site.raw / BARS
    path.write_bytes(path.read_bytes()[:1000])


def flip_bars(site: Site) -> None:
    forget_market(site)
    flip(site.raw / BARS)


def flip(path: Path) -> None:
    """Invert one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def remove_bars(site: Site) -> None:
    forget_market(site)
    (site.raw / BARS).unlink()


def truncate_bars_and_its_hash(site: Site) -> None:
    truncate_bars(site)
    rehash(site)


def drop_close(site: Site) -> None:
    forget_market(site)
    path = site.raw / BARS
    pl.read_parquet(path).drop("close").write_parquet(path)
    rehash(site)


def rehash(site: Site) -> None:
    """Let the manifest agree with the damaged file, as a careless tool would."""
    path = site.raw / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"]
    manifest["files"][BARS]["sha256"] = sha256_file(site.raw / BARS)
    path.write_text(json.dumps(manifest))


def forget_market(site: Site) -> None:
    """Remove the assembled market, so that the raw files are read."""
    shutil.rmtree(site.root / "data" / "market")


def damage_manifest(text: str) -> Prepare:
    return lambda site: (site.raw / "manifest.json").write_text(text)


COLLECT = "collect-data"


def closes_with_required_features(site: Site) -> None:
    """Collect closes alone, and require features that they cannot serve."""
    tiny_site.collect_closes_only(site)
    names = ["volume_ratio_20d", "implied_volatility"]
    site.experiment("strict", {"market_profile": {"required_features": names}})


DATA = [
    Case("missing folder", remove_raw, "train", ("raw", "does not exist", COLLECT)),
    Case("missing folder, validate", remove_raw, "validate-data", ("does not exist", COLLECT)),
    Case("missing folder, backtest", remove_raw, "backtest", ("does not exist", COLLECT)),
    Case("empty folder", empty_raw, "train", ("manifest.json", "does not exist", COLLECT)),
    Case("empty folder, validate", empty_raw, "validate-data", ("manifest.json", COLLECT)),
    Case("truncated", truncate_bars, "train", (BARS, "expected sha256", "found", COLLECT)),
    Case("truncated, validate", truncate_bars, "validate-data", (BARS, "sha256", COLLECT)),
    Case("flipped", flip_bars, "train", (BARS, "expected sha256", "found", COLLECT)),
    Case("flipped, validate", flip_bars, "validate-data", (BARS, "sha256", COLLECT)),
    Case("lost table", remove_bars, "train", (BARS, "does not exist", COLLECT)),
    Case(
        "truncated with its hash",
        truncate_bars_and_its_hash,
        "train",
        (BARS, "expected a Parquet file", COLLECT),
    ),
    Case("column gone", drop_close, "train", (BARS, "expected columns", "close Float64", COLLECT)),
    Case(
        "half a manifest",
        damage_manifest('{"files": '),
        "train",
        ("manifest.json", "expected JSON", COLLECT),
    ),
    Case(
        "manifest of nothing",
        damage_manifest("[]"),
        "train",
        ("manifest.json", "expected a manifest with `files`", COLLECT),
    ),
    Case(
        "columns of features missing",
        closes_with_required_features,
        "train",
        (
            "market profile us does not fit the data of source sample",
            "'volume_ratio_20d' needs volume",
            "'implied_volatility' needs the series VIX",
            "take it out of the market profile or collect that series",
        ),
        n_lines=3,  # a heading, a feature of stocks and one of the macro series
        experiment="strict",
    ),
    Case(
        "symbol without sector",
        tiny_site.collect_without_sector,
        "train",
        ("symbol_without_sector", "A0", "2005-01-03", "validate-data"),
    ),
]


@ids(DATA)
def test_damaged_data_are_refused(case: Case, site: Site, command: Command) -> None:
    run(case, site, command)


# The user's own files


@dataclass(frozen=True)
class Files:
    """How one of the user's files is broken, and what must be said."""

    name: str
    file: str
    change: Callable[[str], str | None]
    says: tuple[str, ...]


def without_column(name: str) -> Callable[[str], str]:
    """Take a column out of a CSV text."""

    def change(text: str) -> str:
        rows = [line.split(",") for line in text.splitlines()]
        place = rows[0].index(name)
        return "\n".join(",".join(row[:place] + row[place + 1 :]) for row in rows)

    return change


def with_cell(column: str, value: str) -> Callable[[str], str]:
    """Replace a value in the second row of data."""

    def change(text: str) -> str:
        rows = [line.split(",") for line in text.splitlines()]
        rows[2][rows[0].index(column)] = value
        return "\n".join(",".join(row) for row in rows)

    return change


FILES = [
    Files("no close", "prices.csv", without_column("close"), ("prices.csv", "close", "found no")),
    Files("no symbol", "prices.csv", without_column("symbol"), ("prices.csv", "symbol")),
    Files("no sector", "sectors.csv", without_column("sector"), ("sectors.csv", "sector")),
    Files(
        "text for a number",
        "prices.csv",
        with_cell("close", "n.a.!"),
        ("prices.csv", "column close", "'n.a.!'", "row 2", "numbers"),
    ),
    Files(
        "a date of another form",
        "prices.csv",
        with_cell("date", "03/01/2005"),
        ("prices.csv", "column date", "YYYY-MM-DD", "03/01/2005"),
    ),
    Files("no rows", "prices.csv", lambda text: text.splitlines()[0], ("prices.csv", "rows")),
    Files("nothing at all", "prices.csv", lambda _: "", ("prices.csv",)),
    Files("no sectors file", "sectors.csv", lambda _: None, ("sectors.csv", "input")),
    Files("no prices file", "prices.csv", lambda _: None, ("prices", "input")),
]


@pytest.mark.parametrize("broken", FILES, ids=[files.name for files in FILES])
def test_broken_files_are_refused_and_nothing_is_collected(
    broken: Files, site: Site, command: Command
) -> None:
    folder = tiny_site.price_files(site)
    path = folder / broken.file
    text = broken.change(path.read_text())
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    before = site.content()
    target = site.root / "other" / "raw"
    code, out, err = command(COLLECT, "--source", "files", "--input", folder, "--data-dir", target)
    assert_refused((code, out, last_line(err)), *broken.says)
    assert "Traceback" not in err
    assert site.content() == before


def last_line(err: str) -> str:
    """Return the line after the log lines that say what is being collected."""
    return err.splitlines()[-1]


# Configuration


def writes(name: str, values: Any) -> Prepare:
    return lambda site: site.experiment(name, values)


def overlapping_spans(site: Site) -> None:
    spans = site.config().market_profile.spans
    site.experiment(
        "wrong", {"market_profile": {"spans": {"validation": {"start": spans.train.end}}}}
    )


def span_that_ends_before_it_starts(site: Site) -> None:
    spans = site.config().market_profile.spans
    site.experiment(
        "wrong",
        {"market_profile": {"spans": {"test": {"start": spans.test.end, "end": spans.test.start}}}},
    )


SEVERAL = """
market: us
seed: minus one
thread: 1
macro_agent: {ppo: {learning_rate: 3e-4, gama: 0.9}}
curriculum: {selection_window: 0}
"""
CONFIG = [
    Case(
        "overlapping spans",
        overlapping_spans,
        "train",
        ("spans.validation: start", "must be after the end of train"),
        experiment="wrong",
    ),
    Case(
        "end before start",
        span_that_ends_before_it_starts,
        "train",
        ("spans.test: end", "must be after start"),
        experiment="wrong",
    ),
    Case(
        "several wrong keys and types",
        writes("wrong", SEVERAL),
        "train",
        (
            "experiments/wrong.yaml",
            "seed: Input should be a valid integer (was 'minus one')",
            "thread: unknown key; did you mean 'threads'?",
            "gama: unknown key; did you mean 'gamma'?",
            "learning_rate: Input should be a valid number (was '3e-4')",
            "write 3.0e-4",
            "selection_window",
        ),
        n_lines=6,
        experiment="wrong",
    ),
    Case(
        "doubled key",
        writes("wrong", "seed: 1\nseed: 2\n"),
        "train",
        ("wrong.yaml line 2: key 'seed' already stands on line 1",),
        experiment="wrong",
    ),
    Case(
        "not YAML",
        writes("wrong", "seed: [1\n"),
        "validate-data",
        ("wrong.yaml: not readable as YAML",),
        experiment="wrong",
    ),
    Case(
        "not a mapping",
        writes("wrong", "- 1\n"),
        "train",
        ("wrong.yaml: expected a mapping", "found [1]"),
        experiment="wrong",
    ),
    Case(
        "YAML that calls a function",
        writes("wrong", f"seed: !!python/object/apply:os.mkdir [{TOUCHED}]\n"),
        "train",
        ("wrong.yaml: not readable as YAML",),
        experiment="wrong",
    ),
    Case("unknown experiment", nothing, "train", ("no experiments/tny.yaml", "'tiny'"),
         experiment="tny"),
    Case("unknown market", nothing, "train|--market|atlantis", ("no markets/atlantis.yaml", "us")),
    Case(
        "unknown market in an experiment",
        writes("wrong", {"market": "atlantis"}),
        "backtest",
        ("no markets/atlantis.yaml", "choose one of"),
        experiment="wrong",
    ),
    Case(
        "unknown feature",
        writes("wrong", {"market_profile": {"stock_features": ["momentom_20"]}}),
        "train",
        ("momentom_20",),
        experiment="wrong",
    ),
]  # fmt: skip


@ids(CONFIG)
def test_wrong_configuration_is_refused(case: Case, site: Site, command: Command) -> None:
    run(case, site, command)


# Options


OPTIONS = [
    Case("phase 0", nothing, "train|--phase|0", ("--phase must be one of [1, 2, 3, 4, 5]", "0")),
    Case("phase 6", nothing, "train|--phase|6", ("--phase must be one of", "6")),
    Case("phase x", nothing, "train|--phase|x", ("--phase", "integer", "--help"), USAGE_ERROR),
    Case("negative seed", nothing, "train|--seed|-1", ("--seed", "0", "-1"), USAGE_ERROR),
    Case("unknown device", nothing, "train|--device|tpu", ("auto, cpu, cuda", "tpu")),
    Case("no CUDA", nothing, "train|--device|cuda", ("sees no CUDA device", "--device cpu")),
    Case("unknown option", nothing, "train|--fast", ("--fast", "--help"), USAGE_ERROR),
    Case("unknown span", nothing, "backtest|--span|future", ("train, validation, test", "future")),
    Case(
        "unknown agents",
        nothing,
        "backtest|--agents|joint",
        ("no trained pair ['joint']", "phases 1+2"),
    ),
    Case(
        "unknown baselines",
        nothing,
        "backtest|--baselines|ridge,magic",
        ("evaluation.baselines", "magic", "command line"),
    ),
    Case("unknown source", nothing, f"{COLLECT}|--source|bloomberg", ("--source", "bloomberg")),
    Case(
        "input of a source without",
        nothing,
        f"{COLLECT}|--source|sample|--input|x.csv",
        ("--input", "files", "sample"),
    ),
    Case(
        "symbols of a source without",
        nothing,
        f"{COLLECT}|--source|sample|--symbols|x.csv",
        ("--symbols", "yahoo", "sample"),
    ),
    Case("no input", nothing, f"{COLLECT}|--source|files", ("--input", "none"), n_lines=2),
    Case(
        "symbols nowhere",
        nothing,
        f"{COLLECT}|--source|yahoo|--overwrite|--symbols|nowhere.csv",
        ("nowhere.csv", "--symbols"),
        n_lines=2,
    ),
    Case(
        "days in the wrong order",
        nothing,
        f"{COLLECT}|--source|yahoo|--overwrite|--start|2020-01-05|--end|2020-01-03",
        ("--start", "2020-01-05", "2020-01-03"),
        n_lines=2,
    ),
    Case(
        "no day",
        nothing,
        f"{COLLECT}|--source|yahoo|--start|yesterday",
        ("--start", "yesterday", "--help"),
        USAGE_ERROR,
    ),
]


@ids(OPTIONS)
def test_unknown_values_of_options_are_refused(
    case: Case, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run(case, site, command)


# Checkpoints


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def hostile(name: str, *, as_zip: bool) -> Prepare:
    """Put a pickle in the place of a checkpoint, bare or in PyTorch's own container."""

    def prepare(site: Site) -> None:
        content = {"kind": "macro", "actor": Payload(site.root / TOUCHED)}
        path = site.log_dir / name
        if as_zip:
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(content))

    return prepare


def truncated(name: str) -> Prepare:
    def prepare(site: Site) -> None:
        path = site.log_dir / name
        path.write_bytes(path.read_bytes()[:-300])

    return prepare


def flipped(name: str) -> Prepare:
    """Invert one byte of a checkpoint's largest tensor: padding between tensors means nothing."""

    def prepare(site: Site) -> None:
        path = site.log_dir / name
        with ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda entry: entry.file_size)
            tensor = archive.read(largest)
        content = bytearray(path.read_bytes())
        content[content.index(tensor) + len(tensor) // 2] ^= 0xFF
        path.write_bytes(content)

    return prepare


def replaced(name: str, by: str) -> Prepare:
    return lambda site: shutil.copy(site.log_dir / by, site.log_dir / name)


def without_content(name: str) -> Prepare:
    return lambda site: (site.log_dir / name).write_bytes(b"")


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> Prepare:
    def prepare(site: Site) -> None:
        payload = load_payload(site.log_dir / name)
        change(payload)
        save_payload(site.log_dir / name, payload)

    return prepare


def widen(networks: str) -> Callable[[dict[str, Any]], None]:
    """Give the first matrix of a network one more column."""

    def change(payload: dict[str, Any]) -> None:
        state = payload[networks]
        key = next(name for name, value in state.items() if value.ndim == 2)
        state[key] = torch.cat([state[key], state[key][:, :1]], dim=1)

    return change


def of_other_sectors(payload: dict[str, Any]) -> None:
    payload["market"]["sectors"] = ["Delta", "Beta", "Gamma"]


def of_another_market(payload: dict[str, Any]) -> None:
    payload["identity"]["market"] = "0" * 64


def collect_other_data(site: Site) -> None:
    """Put other prices in the place of the raw data and of the market cache."""
    write_raw(raw_data.random_raw(np.random.default_rng(1), tiny_site.N_DAYS), site.raw)
    assembled_market(site.raw, site.config())


PHASE_3, RESUME_3 = "train|--phase|3", "train|--phase|3|--resume"
NOT_OURS = ("is not a checkpoint of this package", "train again or restore the file")
ELSEWHERE = ("resume with the same options", "--log-dir")
CHECKPOINTS = [
    Case("truncated agent", truncated(MACRO_1), PHASE_3, (MACRO_1, *NOT_OURS)),
    Case("truncated agent, backtest", truncated(MICRO_2), "backtest", (MICRO_2, *NOT_OURS)),
    Case("truncated table", truncated(TABLE_1), "train|--phase|2", (TABLE_1, *NOT_OURS)),
    Case("truncated, resume", truncated(RUNNING_3), RESUME_3, (RUNNING_3, *NOT_OURS)),
    Case("flipped agent", flipped(MICRO_2), PHASE_3, (MICRO_2, *NOT_OURS)),
    Case("flipped, resume", flipped(RUNNING_3), RESUME_3, (RUNNING_3, *NOT_OURS)),
    Case("empty agent", without_content(MACRO_1), PHASE_3, (MACRO_1, *NOT_OURS)),
    Case("hostile agent", hostile(MACRO_1, as_zip=False), PHASE_3, (MACRO_1, *NOT_OURS)),
    Case("hostile agent in a zip", hostile(MACRO_1, as_zip=True), PHASE_3, (MACRO_1, *NOT_OURS)),
    Case("hostile table", hostile(TABLE_1, as_zip=True), "backtest", (TABLE_1, *NOT_OURS)),
    Case("hostile, backtest", hostile(MICRO_2, as_zip=True), "backtest", (MICRO_2, *NOT_OURS)),
    Case("hostile, resume", hostile(RUNNING_3, as_zip=False), RESUME_3, (RUNNING_3, *NOT_OURS)),
    Case("hostile zip, resume", hostile(RUNNING_3, as_zip=True), RESUME_3, (RUNNING_3, *NOT_OURS)),
    Case("other shapes", changed(MACRO_1, widen("actor")), PHASE_3, (MACRO_1, "other shapes")),
    Case(
        "other shapes, backtest",
        changed(MICRO_2, widen("critic")),
        "backtest",
        (MICRO_2, "other shapes"),
    ),
    Case(
        "other sectors",
        changed(MICRO_2, of_other_sectors),
        PHASE_3,
        (MICRO_2, "another market", "expected sectors", "Alpha", "found", "Delta"),
    ),
    Case(
        "table of another market",
        changed(TABLE_1, of_another_market),
        "train|--phase|2",
        (TABLE_1, "another market", "train --phase 1"),
    ),
    Case("micro for macro", replaced(MACRO_1, MICRO_2), PHASE_3, (MACRO_1, "expected a macro")),
    Case(
        "agent for a running phase",
        replaced(RUNNING_3, MACRO_1),
        RESUME_3,
        (RUNNING_3, "expected the checkpoint of phase 3", "found macro"),
    ),
    Case(
        "resume with another seed",
        nothing,
        "train|--phase|1|--resume|--seed|7",
        ("phase 1", "seed 0 there, 7 here", *ELSEWHERE),
    ),
    Case(
        "resume a stopped phase with another seed",
        nothing,
        f"{RESUME_3}|--seed|7",
        (RUNNING_3, "seed 0 there, 7 here", *ELSEWHERE),
    ),
    Case(
        "resume with another configuration",
        writes("wrong", {"macro_agent": {"ppo": {"gamma": 0.5}}}),
        RESUME_3,
        (RUNNING_3, "macro_agent.ppo.gamma", "0.5 here", *ELSEWHERE),
        experiment="wrong",
    ),
    Case(
        "resume on other data",
        collect_other_data,
        "train|--phase|1|--resume",
        ("phase 1", "another market", *ELSEWHERE),
    ),
    Case("agents of other data", collect_other_data, PHASE_3, (TABLE_1, "another market")),
    Case("agents of other data, backtest", collect_other_data, "backtest", ("another market (",)),
]


@ids(CHECKPOINTS)
def test_checkpoints_that_do_not_fit_are_refused_and_never_run(
    case: Case, site: Site, command: Command
) -> None:
    said_first = MARKET_LINES if case.command.startswith("train") else 0
    run(replace(case, n_lines=case.n_lines + said_first), site, command)
    assert not (site.root / TOUCHED).exists()


def without_progress(payload: dict[str, Any]) -> None:
    del payload["loop"]["next_evaluation"]


def widen_policy(payload: dict[str, Any]) -> None:
    widen("policy")(payload["algorithm"])


@pytest.mark.parametrize("change", [without_progress, widen_policy])
def test_the_checkpoint_of_other_code_is_refused_and_kept(
    change: Callable[[dict[str, Any]], None], site: Site, command: Command
) -> None:
    changed(RUNNING_3, change)(site)
    before = site.content()
    code, _, err = command(*RESUME_3.split("|"), *site.folders, "--experiment", EXPERIMENT)
    assert code == 1
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    for fact in (RUNNING_3, "does not fit this version of the package", "with --overwrite"):
        assert fact in line
    # curves are drawn anew from the history of the checkpoint whenever a phase starts
    kept = {name: digest for name, digest in before.items() if "tensorboard" not in name}
    assert kept.items() <= site.content().items()


def test_the_hostile_payload_does_make_a_file_where_it_is_trusted(tmp_path: Path) -> None:
    # without this the test above could pass because the payload is harmless
    pickle.loads(pickle.dumps(Payload(tmp_path / TOUCHED)))  # noqa: S301 -- our own payload
    assert (tmp_path / TOUCHED).exists()


# Order of the phases


def remove_phase(folder: str) -> Prepare:
    return lambda site: shutil.rmtree(site.log_dir / folder)


PREDECESSORS = [
    Case(
        "2 without 1",
        remove_phase("pretrain_macro"),
        "train|--phase|2",
        ("train --phase 1 --data-dir",),
    ),
    Case("3 without 1", remove_phase("pretrain_macro"), PHASE_3, ("train --phase 1 --data-dir",)),
    Case("3 without 2", remove_phase("pretrain_micro"), PHASE_3, ("train --phase 2 --data-dir",)),
    Case(
        "4 without 3",
        nothing,
        "train|--phase|4",
        ("phase 3 has not finished", "--phase 3 --data-dir"),
    ),
    Case(
        "5 without 3",
        nothing,
        "train|--phase|5",
        ("phase 3 has not finished", "--phase 3 --data-dir"),
    ),
    Case(
        "backtest without 2", remove_phase("pretrain_micro"), "backtest", ("--phase 2 --data-dir",)
    ),
]


@ids(PREDECESSORS)
def test_a_phase_without_its_predecessor_is_refused(
    case: Case, site: Site, command: Command
) -> None:
    run(case, site, command)


# Log folder and disk


def log_folder_is_a_file(site: Site) -> None:
    shutil.rmtree(site.log_dir)
    site.log_dir.touch()


def lock_is_a_folder(site: Site) -> None:
    (site.log_dir / LOCK_FILE).mkdir()


LOG_FOLDERS = [
    Case("a file", log_folder_is_a_file, "train", ("run folder", "logs", "--log-dir")),
    Case("a file, backtest", log_folder_is_a_file, "backtest", ("logs", "train")),
    Case(
        "no lock possible", lock_is_a_folder, "train", ("cannot write to run folder", "--log-dir")
    ),
]


@ids(LOG_FOLDERS)
def test_a_log_folder_that_cannot_be_used_is_refused(
    case: Case, site: Site, command: Command
) -> None:
    run(case, site, command)


@pytest.mark.parametrize("name", ["train", "backtest"])
def test_a_second_run_in_a_log_folder_is_refused_and_the_first_unharmed(
    name: str, site: Site, command: Command
) -> None:
    with RunFolder(site.log_dir).lock():
        run(Case("", nothing, name, ("in use by process", "--log-dir")), site, command)
        run(Case("", nothing, name, ("in use by process", "--log-dir")), site, command)


def test_a_full_disk_ends_a_phase_in_one_line_and_leaves_whole_files(
    site: Site, command: Command
) -> None:
    before = site.content()
    with largest_file(30_000):
        code, _, err = command(
            *("train", "--phase", "2", "--overwrite", *site.folders, "--experiment", EXPERIMENT)
        )
    assert code == 1
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert "StorageError: cannot write" in line
    assert "make room" in line
    assert [path for path in site.root.rglob("*") if ".tmp" in path.name] == []
    lost = {"pretrain_micro/" + name for name in ("best_pretrain_micro.pt", "running.pt")}
    for name, digest in site.content().items():
        if name.endswith((".pt", ".npz", ".parquet", ".json")) and name not in lost:
            assert before[name] == digest


def test_a_full_disk_ends_collecting_in_one_line(site: Site, command: Command) -> None:
    folder = tiny_site.price_files(site)
    target = site.root / "other" / "raw"
    with largest_file(10_000):
        code, _, err = command(
            COLLECT, "--source", "files", "--input", folder, "--data-dir", target
        )
    assert code == 1
    assert "Traceback" not in err
    assert "StorageError: cannot write" in last_line(err)
    assert [path for path in target.rglob("*") if path.is_file()] == []


# Reports


def test_reports_of_what_is_no_run_are_refused(site: Site, command: Command) -> None:
    before = site.content()
    assert_refused(command("report", site.root / "nowhere"), "nowhere", "metrics.json", "backtest")
    assert_refused(command("report", site.log_dir), "logs", "metrics.json", "backtest")
    assert site.content() == before
