"""A command about a run has the configuration of the run, unless an option names another one."""

from hrl_sarp.cli.app import SOURCE
from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import PHASES
from tests.command_line import Command, assert_refused
from tests.end_to_end.tiny_site import EXPERIMENT, Site

QUICK = ("backtest", "--baselines", "none")
FOLDER = "backtest-test-baselines_none"
REFUSED = 2


def test_a_run_is_reported_with_its_own_configuration(site: Site, command: Command) -> None:
    expected = site.config().model_dump()
    expected["evaluation"]["baselines"] = []
    site.experiment(EXPERIMENT, {"risk": {"stock_cap": 0.5}})  # edited after the training
    code, _, err = command(*QUICK, *site.folders)
    assert code == 0, err
    reported = load_config(own_file=site.log_dir / FOLDER / CONFIG)
    assert reported.model_dump() == expected
    source = read_json(site.log_dir / FOLDER / SOURCE, "this test")
    assert source["config_hash"] == config_hash(reported)


def test_stress_has_the_market_of_the_run(site: Site, command: Command) -> None:
    # the market of the defaults has other sectors, and a shock for each
    assert_refused(command("stress-test", *site.folders), "no shock sector for Alpha, Beta, Gamma")


def test_an_option_that_names_a_configuration_counts(site: Site, command: Command) -> None:
    site.experiment("other", {"risk": {"stock_cap": 0.5}})
    code, _, err = command(*QUICK, *site.folders, "--experiment", "other")
    assert code == 0, err
    assert load_config(own_file=site.log_dir / FOLDER / CONFIG).risk.stock_cap == 0.5
    # its report is not replaced by that of the run's own configuration without a word
    again = command(*QUICK, *site.folders)
    assert_refused(again, "risk.stock_cap 0.5 there", "--overwrite", code=REFUSED)


def test_a_configuration_that_somebody_changed_is_refused(site: Site, command: Command) -> None:
    path = site.log_dir / PHASES[0].folder / CONFIG
    path.write_text(path.read_text().replace("seed: 0", "seed: 1", 1))
    assert_refused(command("backtest", *site.folders), str(path), "checksum", "train again")
