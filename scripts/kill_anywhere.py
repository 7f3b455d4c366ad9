"""Kill a whole training run at random moments, resume it each time, and compare every number.

    nice python scripts/kill_anywhere.py --work-dir /tmp/kill_anywhere --kills 100

First `train` runs undisturbed, from raw data to the report. Then the same command runs in folders
of its own and gets SIGKILL at seeded random moments while the market is assembled, in each of the
five phases and in the backtest; `--resume` continues it each time. A fifth of the kills wait for a
file that is being written. When the run has come to its end, all weights, metrics, ledgers and the
market itself must be bit-identical to the undisturbed ones. If the phases ended before all
kills were made, another run is killed with other moments.

The moments are drawn from the durations that the undisturbed run showed, in processor seconds, so
that other work on the machine moves nothing: each kill of a phase has a target within the phase's
work, and the work that the last checkpoint holds counts. One more kill comes when a phase has
written its weights, but not yet its metrics. `--checkpoint-seconds` bounds the work lost.

The code is copied first, so editing the checkout meanwhile changes nothing; `--reuse` kills another
run of the copy with another `--seed`. Exit code 0 if nothing differs, 1 otherwise. Linux only.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path

MARKET, PHASE_STAGES, BACKTEST = "market", ("1", "2", "3", "4", "5"), "backtest"
STAGES = (MARKET, *PHASE_STAGES, BACKTEST)
START = "start-up"
"""Stage of a resumed process before it goes on; only kills that came late fall into it."""
FOLDERS = dict(
    zip(
        STAGES,
        ("data/market", "logs/pretrain_macro", "logs/pretrain_micro", "logs/phase3_macro",
         "logs/phase4_micro", "logs/phase5_joint", "logs/backtest"),
        strict=True,
    )
)  # fmt: skip
FEWEST_KILLS = 5
"""Of each stage, however short it is."""
WAITS_FOR_A_WRITE = 0.2
"""Share of kills that come while a file is being written."""
LONGEST_WAIT_FOR_A_WRITE = 10.0
UNFINISHED = ".*.hrl_sarp.tmp*"
POLL_SECONDS = 0.02
EXPERIMENT = "kill_anywhere"
BEGINS = re.compile(r"phase (\d) (?:\(.*\) begins|continues|wrote|has finished already)")


@dataclass
class Life:
    """One process of a run, and what it has said and used so far."""

    process: subprocess.Popen[bytes]
    screen: Path
    run_folder: Path
    entered: dict[str, float] = field(default_factory=dict)
    """Processor seconds used when it was first seen in each stage."""
    saved: float = 0.0
    """Processor seconds used when it last wrote the checkpoint of its phase."""
    used: float = 0.0
    """Processor seconds used when it was last looked at."""
    said: str = ""
    version: int | None = None
    """Of the checkpoint: its modification time."""

    def look(self) -> str:
        """Read the clock, the log lines and the checkpoint; return the stage."""
        self.used = max(self.used, processor_seconds(self.process.pid))
        if self.screen.stat().st_size != len(self.said):
            self.said = self.screen.read_bytes().decode("latin-1")
        stage = self._stage()
        if stage not in self.entered:
            self.entered[stage] = self.used
            self.version = self._checkpoint(stage)
        elif self.version != self._checkpoint(stage):
            self.version, self.saved = self._checkpoint(stage), self.used
        return stage

    def _stage(self) -> str:
        lines = list(BEGINS.finditer(self.said))
        if not lines:
            has_market = any((self.run_folder / "data" / "market").glob("*.npz"))
            return START if has_market else MARKET
        number = lines[-1][1]
        is_over = "wrote" in lines[-1][0] or "already" in lines[-1][0]
        return BACKTEST if is_over and number == PHASE_STAGES[-1] else number

    def _checkpoint(self, stage: str) -> int | None:
        try:
            path = self.run_folder / FOLDERS.get(stage, MARKET) / "running.pt"
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def is_alive(self) -> bool:
        """Say whether it still runs."""
        return self.process.poll() is None


def processor_seconds(process: int) -> float:
    """Return what a living process has used, 0 for one that is gone (Linux: /proc)."""
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return 0.0
    user, system = line.rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One training run with folders of its own."""

    code: Path
    folder: Path
    collected: Path
    """The raw data, copied below `folder` so that the market is assembled anew."""

    @property
    def log_dir(self) -> Path:
        """Where it writes."""
        return self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.collected, self.folder / "data" / "raw")

    def start(self, name: str, *, resume: bool) -> Life:
        """Start a process of the run."""
        command = [sys.executable, "main.py", "train", "--experiment", EXPERIMENT]
        command += ["--data-dir", str(self.folder / "data" / "raw"), "--log-dir"]
        command += [str(self.log_dir), *(["--resume"] if resume else [])]
        screen = self.folder / f"{name}.txt"
        with screen.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 -- our own command line
                command, cwd=self.code, env=_environment(), stdout=out, stderr=out
            )
        return Life(process, screen, self.folder)


@dataclass
class Plan:
    """How often each stage is to be killed, and when."""

    seconds: dict[str, float]
    """Of each stage in the undisturbed run."""
    quota: dict[str, int]
    rng: np.random.Generator
    made: Counter[str] = field(default_factory=Counter)
    writing: Counter[str] = field(default_factory=Counter)
    """Kills that came while a file was being written."""

    def targets(self, stage: str) -> list[float]:
        """Draw moments in the work of a stage, in order."""
        drawn = self.rng.uniform(0.0, self.seconds[stage], self.quota[stage])
        return sorted(drawn.tolist(), reverse=True)


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    from compare_runs import find_differences  # lies beside this script

    options = _parser().parse_args(arguments)
    work: Path = options.work_dir.resolve()
    code, collected = work / "code", work / "collected" / "raw"
    undisturbed, record = Run(code, work / "undisturbed", collected), work / "seconds.json"
    if not options.reuse:
        copy_code(code, options.experiment, options.checkpoint_seconds)
        command = [sys.executable, "main.py", "collect-data", "--source", options.source]
        subprocess.run(  # noqa: S603 -- our own command line
            [*command, "--data-dir", str(collected)],
            cwd=code,
            env=_environment(),
            check=True,
            capture_output=True,
        )
        record.write_text(json.dumps(run_undisturbed(undisturbed)), encoding="utf-8")
    seconds: dict[str, float] = json.loads(record.read_text(encoding="utf-8"))
    _say("undisturbed: " + ", ".join(f"{name} {s:.1f} s" for name, s in seconds.items()))
    rng, total = np.random.default_rng(options.seed), Counter[str]()
    writing, differences, n_runs = Counter[str](), list[str](), 0
    while sum(total[stage] for stage in STAGES) < options.kills and not differences:
        left = options.kills - sum(total[stage] for stage in STAGES)
        plan = Plan(seconds, share_out(seconds, left), rng)
        killed = Run(code, work / f"killed_{n_runs}", collected)
        run_killed(killed, plan)
        total, writing, n_runs = total + plan.made, writing + plan.writing, n_runs + 1
        differences = list(find_differences(undisturbed.folder, killed.folder))
    _show(seconds, total, writing, n_runs)
    for difference in differences:
        _say(f"differs: {difference}")
    _say("verdict: " + ("NOT identical" if differences else "bit-identical"))
    return int(bool(differences))


def copy_code(target: Path, experiment: str, checkpoint_seconds: float) -> None:
    """Copy package and configuration, with the experiment under another name and own intervals."""
    from hrl_sarp.config.loading import dump_config, load_config

    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("hrl_sarp", "config"):
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    shutil.copy(ROOT / "main.py", target)
    changes = {"checkpoint_seconds": checkpoint_seconds}
    # one thread: sums round alike for equal numbers of threads only
    config = load_config(experiment=experiment, overrides={"threads": 1, "curriculum": changes})
    path = target / "config" / "experiments" / f"{EXPERIMENT}.yaml"
    path.write_text(dump_config(config), encoding="utf-8")


def share_out(seconds: dict[str, float], kills: int) -> dict[str, int]:
    """Give each stage a few kills and each phase more by the root of its duration.

    Market and backtest have no checkpoint: each kill there costs all of their work.
    """
    fewest = min(FEWEST_KILLS, -(-kills // len(STAGES)))
    weights = np.sqrt([seconds[stage] for stage in PHASE_STAGES])
    free = max(0, kills - fewest * len(STAGES))
    shares = np.ceil(free * weights / weights.sum()).astype(int)
    more = dict(zip(PHASE_STAGES, shares.tolist(), strict=True))
    return {stage: fewest + more.get(stage, 0) for stage in STAGES}


def run_undisturbed(run: Run) -> dict[str, float]:
    """Run to the end and return how long each stage took."""
    run.prepare()
    life = run.start("undisturbed", resume=False)
    while life.is_alive():
        life.look()
        time.sleep(POLL_SECONDS)
    _require_success(life)
    entered = [0.0, *(life.entered[stage] for stage in STAGES[1:]), life.used]
    return dict(zip(STAGES, np.diff(entered).tolist(), strict=True))


def run_killed(run: Run, plan: Plan) -> None:
    """Kill the run at its targets, stage by stage, then let it come to its end."""
    run.prepare()
    life, n_lives = run.start("life_0", resume=False), 1
    for stage in STAGES:
        targets, kept = plan.targets(stage), 0.0
        # the last of a phase comes when it has written its weights, but not yet its metrics
        while (targets or stage in PHASE_STAGES) and _reach(life, stage):
            if targets:
                _sleep_until(life, life.entered[stage] + targets.pop() - kept)
                plan.writing[stage] += _maybe_wait_for_a_write(life, stage, plan.rng)
            elif not _has_weights(life, stage):
                break
            kept += max(0.0, life.saved - life.entered[stage])
            if not _kill(life, plan):
                break
            life = run.start(f"life_{n_lives}", resume=run.log_dir.is_dir())
            n_lives += 1
            _say(f"{sum(plan.made.values())} kills; now stage {stage}, {kept:.1f} s kept")
    life.process.wait()
    _require_success(life)


def _reach(life: Life, stage: str) -> bool:
    """Wait until the process is in a stage; False if it went past it or ended."""
    order = (START, *STAGES)
    while life.is_alive():
        now = life.look()
        if now == stage:
            return True
        if now != START and order.index(now) > order.index(stage):
            return False
        time.sleep(POLL_SECONDS)
    _require_success(life)
    return False


def _sleep_until(life: Life, moment: float) -> None:
    """Wait until the process has used so many processor seconds: its work, on a busy machine."""
    while life.is_alive() and life.used < moment:
        time.sleep(POLL_SECONDS)
        life.look()


def _maybe_wait_for_a_write(life: Life, stage: str, rng: np.random.Generator) -> bool:
    """Wait, for one kill in five, until an unfinished file appears; say whether one did."""
    if rng.random() >= WAITS_FOR_A_WRITE:
        return False
    folder = life.run_folder / FOLDERS[stage]
    present = set(folder.glob(UNFINISHED))
    deadline = time.monotonic() + LONGEST_WAIT_FOR_A_WRITE
    while life.is_alive() and time.monotonic() < deadline:
        if set(folder.glob(UNFINISHED)) - present:
            return True
        time.sleep(0.0005)
    return False


def _has_weights(life: Life, stage: str) -> bool:
    """Wait until a phase writes its best networks; False if it has already, or ends before."""
    folder = life.run_folder / FOLDERS[stage]
    if any(folder.glob("best_*.pt")):
        return False
    while life.is_alive() and life.look() == stage:
        if any(folder.glob("best_*.pt")):
            return True
        time.sleep(0.0005)
    return False


def _kill(life: Life, plan: Plan) -> bool:
    """Kill the process and count it; False if it has come to its end by itself."""
    stage = life.look()
    if not life.is_alive():
        _require_success(life)
        return False
    life.process.send_signal(signal.SIGKILL)
    life.process.wait()
    plan.made[stage] += 1
    return True


def _require_success(life: Life) -> None:
    code = life.process.wait()
    if code != 0:
        last = life.screen.read_text(errors="replace").splitlines()[-5:]
        raise SystemExit("\n".join([f"a run ended with exit code {code}:", *last]))


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _show(
    seconds: dict[str, float], made: Counter[str], writing: Counter[str], n_runs: int
) -> None:
    from rich.console import Console

    from hrl_sarp.reporting.table import Table

    total = sum(made[stage] for stage in STAGES)
    rows = [
        (
            f"phase {stage}" if stage in PHASE_STAGES else stage,
            f"{seconds[stage]:.1f}",
            str(made[stage]),
            str(writing[stage]),
        )
        for stage in STAGES
    ]
    header = ("stage", "processor s", "kills", "of them while writing")
    rows.append((START, "", str(made[START]), ""))
    Console(width=100).print(Table(f"{total} kills over {n_runs} run(s)", header, rows))


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True, help="for copies, data and logs")
    parser.add_argument("--experiment", default="quickstart", help="of config/experiments")
    parser.add_argument("--source", default="sample", help="of collect-data, fit for it")
    parser.add_argument("--kills", type=int, default=100, help="at least so many (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=2.0, help="work a kill may cost (default 2)"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="keep the undisturbed run that is in the work folder"
    )
    return parser


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
