"""What a user has who installed a wheel: no repository, no config folder, another directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

SHORT = """
market_profile:
  spans:
    train: {start: 2010-01-04, end: 2014-12-31}
    validation: {start: 2017-01-01, end: 2017-06-30}
    test: {start: 2018-01-01, end: 2018-06-30}
evaluation: {baselines: [equal_weight], random_portfolios: 2, bootstrap_samples: 20}
"""
ENVS = """
from functools import partial

import gymnasium
import stable_baselines3
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

if __name__ == "__main__":
    for name in ("Macro-v0", "Micro-v0"):
        make = partial(gymnasium.make, f"hrl_sarp.envs:hrl_sarp/{name}")
        env = make()
        env.reset(seed=0)
        env.step(env.action_space.sample())
        asynchronous = AsyncVectorEnv([make])
        asynchronous.reset(seed=0)
        asynchronous.step(asynchronous.action_space.sample())
        asynchronous.close()
    processes = SubprocVecEnv([make])
    processes.reset()
    processes.step([processes.action_space.sample()])
    processes.close()
    import hrl_sarp
    print(hrl_sarp.__file__)
"""


class Installation:
    """An environment that holds the wheel, and borrows all other packages from this one."""

    def __init__(self, root: Path, repository: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        build = [*pip, "wheel", repository, "--no-deps", "--no-build-isolation", "-w", root]
        check(build, root)
        (self.wheel,) = root.glob("*.whl")
        check([sys.executable, "-m", "venv", "--without-pip", root / "venv"], root)
        self.programs = root / "venv" / ("Scripts" if os.name == "nt" else "bin")
        check(
            [
                *pip,
                "--python",
                self.programs / "python",
                "install",
                "-q",
                "--no-index",
                "--no-deps",
                self.wheel,
            ],
            root,
        )
        packages = Path(
            check(
                [
                    self.programs / "python",
                    "-c",
                    "import sysconfig; print(sysconfig.get_path('purelib'))",
                ],
                root,
            ).strip()
        )
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        borrow_kernels(repository / "hrl_sarp", packages / "hrl_sarp")
        self.folder = root / "elsewhere"
        self.folder.mkdir()

    def run(self, program: str, *arguments: str) -> str:
        """Run a program in a folder that is no repository; returns what it printed."""
        return check([self.programs / program, *arguments], self.folder)


def borrow_kernels(own: Path, installed: Path) -> None:
    """Copy what Numba has compiled of the same sources: to compile it again takes 15 s.

    Numba takes a compiled file for that of a source by the time and the size of the source.
    """
    for compiled in own.rglob("__pycache__/*.nb[ic]"):
        source = compiled.parent.with_name(compiled.name.split(".")[0] + ".py")
        target = installed / compiled.relative_to(own)
        twin = installed / source.relative_to(own)
        if source.is_file() and source.read_bytes() == twin.read_bytes():
            target.parent.mkdir(exist_ok=True)
            shutil.copy(compiled, target)
            shutil.copystat(source, twin)


def check(command: list[str | Path], folder: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(  # noqa: S603 -- our own command
        list(map(str, command)),
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Installation:
    return Installation(tmp_path_factory.mktemp("wheel"), repository)


def test_wheel_carries_every_file_of_the_configuration_and_of_the_package(
    installed: Installation, repository: Path
) -> None:
    carried = set(zipfile.ZipFile(installed.wheel).namelist())
    config = {path for path in (repository / "config").rglob("*") if path.is_file()}
    expected = {
        f"hrl_sarp/config/defaults/{path.relative_to(repository / 'config').as_posix()}"
        for path in config
    }
    expected |= {
        path.relative_to(repository).as_posix()
        for path in (repository / "hrl_sarp").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert expected - carried == set()
    assert {name.split("/")[0].split("-")[0] for name in carried} == {"hrl_sarp"}


def test_installed_commands_collect_train_and_backtest_elsewhere(installed: Installation) -> None:
    (installed.folder / "short.yaml").write_text(SHORT)
    assert "20 symbols from sample" in installed.run("hrl-sarp", "collect-data")
    installed.run("hrl-sarp", "train", "--experiment", "smoke", "--config", "short.yaml")
    assert (installed.folder / "logs" / "backtest" / "report.html").is_file()


def test_installed_defaults_can_be_written_edited_and_used(installed: Installation) -> None:
    installed.run("hrl-sarp", "init", "mine")
    changed = installed.folder / "mine" / "risk_config.yaml"
    changed.write_text(changed.read_text().replace("stock_cap: 0.10", "stock_cap: 2.0"))
    with pytest.raises(AssertionError, match=r"risk\.stock_cap: Input should be less.*2\.0"):
        installed.run("hrl-sarp", "validate-data", "--config", "mine")


def test_gymnasium_makes_installed_envs_also_in_other_processes(installed: Installation) -> None:
    (installed.folder / "envs.py").write_text(ENVS)
    assert str(installed.programs.parent) in installed.run("python", "envs.py")
