import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from loguru import logger

from hrl_sarp.config.loading import (
    DEFAULT_CONFIG_DIR,
    config_hash,
    copy_defaults,
    dump_config,
    list_choices,
    load_config,
)
from hrl_sarp.config.market_schema import SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import ConfigError, OverwriteError

PROFILE = """
market_profile:
  sectors: [Energy, Banks]
  calendar: XNYS
  benchmark_name: equal weight
  stock_features: [momentum_20]
  macro_features: [trend_60]
  costs: {buy_bps: 5.0, sell_bps: 6.0, slippage_bps: 1.0, impact_coefficient: 0.0,
          capital: 1.0e+6, delisting_return: -0.3}
  universe: {stocks_per_sector: 9, lookback_days: 252, min_bars: 200}
  spans:
    train: {start: 2001-01-01, end: 2010-12-31}
    validation: {start: 2011-01-01, end: 2012-12-31}
    test: {start: 2013-01-01, end: 2014-12-31}
  stress: {windows: [], sectors: {Energy: Energy, Banks: Financials}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's base files with two small markets and one experiment."""
    folder = tmp_path / "config"
    folder.mkdir()
    for path in DEFAULT_CONFIG_DIR.glob("*.yaml"):
        shutil.copy(path, folder)
    for name in ("sample", "us"):
        write(folder / "markets" / f"{name}.yaml", PROFILE)
    write(folder / "experiments" / "quickstart.yaml", "market: us\nrisk: {stock_cap: 0.2}\n")
    return folder


@pytest.fixture
def warnings_of_loguru() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda told: lines.append(told.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def problems_of(folder: Path, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(folder, **arguments)
    return str(caught.value)


def test_base_market_is_read_without_arguments(folder: Path) -> None:
    config = load_config(folder)
    assert config.market == "sample"
    assert config.market_profile.costs.sell_bps == 6.0


def test_experiment_is_laid_over_key_by_key(folder: Path) -> None:
    base, changed = load_config(folder), load_config(folder, experiment="quickstart")
    assert changed.risk.stock_cap == 0.2
    assert changed.risk.sector_cap == base.risk.sector_cap


@pytest.mark.parametrize(
    ("market", "experiment", "expected"),
    [
        (None, None, "sample"),
        (None, "quickstart", "us"),
        ("sample", "quickstart", "sample"),
        ("us", None, "us"),
    ],
)
def test_market_argument_wins_over_experiment_over_base(
    folder: Path, market: str | None, experiment: str | None, expected: str
) -> None:
    edit(folder / "markets" / "us.yaml", "sell_bps: 6.0", "sell_bps: 9.0")
    config = load_config(folder, market, experiment)
    assert config.market == expected
    assert config.market_profile.costs.sell_bps == {"us": 9.0, "sample": 6.0}[expected]


def test_experiment_may_change_one_span_of_the_market(folder: Path) -> None:
    write(
        folder / "experiments" / "late.yaml",
        "market_profile: {spans: {test: {start: 2014-01-01, end: 2014-06-30}}}\n",
    )
    spans = load_config(folder, experiment="late").market_profile.spans
    assert spans.test.start.year == 2014
    assert spans.train.end.year == 2010


def test_overrides_win_over_every_file(folder: Path) -> None:
    write(folder / "experiments" / "seeded.yaml", "seed: 5\n")
    assert load_config(folder, experiment="seeded").seed == 5
    assert load_config(folder, experiment="seeded", overrides={"seed": 3}).seed == 3


def test_a_retired_key_is_left_out_with_a_warning_that_says_what_replaced_it(
    folder: Path, tmp_path: Path, warnings_of_loguru: list[str]
) -> None:
    plain = load_config(folder)
    write(tmp_path / "own.yaml", "risk: {bear_exposure_cut: 0.5, stock_cap: 0.2}\n")
    own = load_config(folder, own_file=tmp_path / "own.yaml")
    assert own.risk.stock_cap == 0.2
    assert warnings_of_loguru == [
        "own.yaml: 'risk.bear_exposure_cut' is left out: the cash of the goal sets the exposure, "
        "see `objective.kind`"
    ]
    assert load_config(folder, overrides={"risk": {"bear_exposure_cut": 0.0}}) == plain
    assert "command line: 'risk.bear_exposure_cut'" in warnings_of_loguru[1]


def test_the_configuration_of_an_old_run_still_loads(
    folder: Path, tmp_path: Path, warnings_of_loguru: list[str]
) -> None:
    plain = load_config(folder)
    values = yaml.safe_load(dump_config(plain))
    values["risk"]["bear_exposure_cut"] = 0.5
    write(tmp_path / "config.yaml", yaml.safe_dump(values))
    assert load_config(folder, own_file=tmp_path / "config.yaml") == plain
    assert len(warnings_of_loguru) == 1


def test_a_retired_key_elsewhere_is_an_unknown_key(folder: Path) -> None:
    found = problems_of(folder, overrides={"objective": {"bear_exposure_cut": 0.5}})
    assert "objective.bear_exposure_cut: unknown key" in found


def test_loading_leaves_the_callers_overrides_alone(folder: Path) -> None:
    overrides = {"risk": {"stock_cap": 0.3}}
    load_config(folder, market="us", overrides=overrides)
    assert overrides == {"risk": {"stock_cap": 0.3}}


@pytest.mark.parametrize("heading", ["windowed: ", ""])
def test_own_file_of_windows_is_laid_over_with_and_without_its_heading(
    folder: Path, tmp_path: Path, heading: str
) -> None:
    own = tmp_path / "mine.yaml"
    values = "{window_length: 64, splits: {train_end: '2018-03-31'}, gates: {min_windows: 9}}"
    own.write_text(heading + values)
    base, changed = load_config(folder).windowed, load_config(folder, own_file=own).windowed
    assert changed.window_length == 64
    assert changed.splits.train_end == date(2018, 3, 31)  # a date in quotes is a date
    assert changed.splits.val_end == base.splits.val_end
    assert changed.gates.min_windows == 9
    assert changed.stride == base.stride


def test_own_file_of_windows_may_stand_beside_other_sections(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("stride: 26\nseed: 4\n")
    config = load_config(folder, own_file=own)
    assert (config.windowed.stride, config.seed) == (26, 4)


def test_command_line_wins_over_the_own_file(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("seed: 4\n")
    assert load_config(folder, own_file=own, overrides={"seed": 5}).seed == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window_length: 64\nstrid: 32\n", "windowed.strid: unknown key; did you mean 'stride'?"),
        (
            "windowed: {window_length: long}\n",
            "windowed.window_length: Input should be a valid int",
        ),
        ("windowed: {stride: 2}\nwindow_length: 64\n", "window_length: unknown key"),
        ("splits: {train_end: soon}\n", "windowed.splits.train_end: Input should be a valid date"),
        ("gates: {min_windows: 0}\n", "windowed.gates.min_windows: Input should be greater than"),
        ("windw_length: 64\n", "windw_length: unknown key"),
        ("- a list\n", "mine.yaml: expected a mapping of keys to values"),
    ],
)
def test_problems_of_the_own_file_are_blamed_on_it(
    folder: Path, tmp_path: Path, text: str, expected: str
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(text)
    found = problems_of(folder, own_file=own)
    assert expected in found
    assert f", {own}:" in found.splitlines()[0]


def test_the_market_of_the_own_file_wins_over_experiment_and_base(
    folder: Path, tmp_path: Path
) -> None:
    own = write(tmp_path / "mine.yaml", "market: us\n")
    assert load_config(folder).market == "sample"
    assert load_config(folder, own_file=own).market == "us"
    other = write(tmp_path / "other.yaml", "market: sample\n")
    assert load_config(folder, experiment="quickstart", own_file=other).market == "sample"
    assert load_config(folder, market="sample", own_file=own).market == "sample"
    with pytest.raises(ConfigError, match=r"no markets/uss\.yaml.*us"):
        load_config(folder, own_file=write(own, "market: uss\n"))


def test_missing_own_file_is_named(folder: Path, tmp_path: Path) -> None:
    found = problems_of(folder, own_file=tmp_path / "mine.yaml")
    assert "mine.yaml: not readable as YAML: [Errno 2]" in found


def test_empty_experiment_changes_nothing(folder: Path) -> None:
    write(folder / "experiments" / "none.yaml", "# only a comment\n")
    assert load_config(folder, experiment="none") == load_config(folder)


def test_message_lists_every_problem_with_its_file_and_advice(folder: Path) -> None:
    edit(folder / "risk_config.yaml", "stock_cap: 0.10", "stok_cap: 0.10")
    edit(folder / "macro_agent_config.yaml", "tion_weight: 0.10", "tion_weight: 1e-1")
    edit(folder / "data_config.yaml", "market_sd_pct: [1.6, 0.8, 0.6]", "market_sd_pct: [1, 0.8]")
    write(folder / "experiments" / "odd.yaml", "evaluation: {rebalance: yearly}\n")
    assert problems_of(folder, market="us", experiment="odd") == "\n  ".join(
        [
            "cannot use config/*.yaml, markets/us.yaml, experiments/odd.yaml:",
            "data.synthetic.market_sd_pct: List should have at least 3 items after validation, "
            "not 2 (was [1, 0.8]) [data_config.yaml]",
            "risk.stock_cap: required key is missing [risk_config.yaml]",
            "risk.stok_cap: unknown key; did you mean 'stock_cap'? [risk_config.yaml]",
            "macro_agent.reward.concentration_weight: Input should be a valid number (was '1e-1'); "
            "YAML reads this as text, write 1.0e-1 [macro_agent_config.yaml]",
            "evaluation.rebalance: Input should be 'weekly' or 'monthly' (was 'yearly') [odd.yaml]",
        ]
    )


def test_problem_inside_a_list_names_the_entry(folder: Path) -> None:
    edit(folder / "curriculum.yaml", "name: stress", "nam: stress")
    text = problems_of(folder)
    assert "curriculum.stages[1].name: required key is missing [curriculum.yaml]" in text
    assert "curriculum.stages[1].nam: unknown key; did you mean 'name'?" in text


def test_unknown_override_is_blamed_on_the_command_line(folder: Path) -> None:
    text = problems_of(folder, overrides={"sead": 3})
    assert "sead: unknown key; did you mean 'seed'? [command line]" in text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "risk:\n  min_cash: 0.1\n  min_cash: 0.2\n",
            "line 3: key 'min_cash' already stands on line 2",
        ),
        (
            "risk: {min_cash: 0.1, min_cash: 0.2}\n",
            "line 1: key 'min_cash' already stands on line 1",
        ),
    ],
)
def test_key_given_twice_is_refused_with_both_lines(folder: Path, text: str, place: str) -> None:
    write(folder / "experiments" / "twice.yaml", text)
    assert f"twice.yaml {place}" in problems_of(folder, experiment="twice")


def test_same_section_in_two_base_files_is_refused(folder: Path) -> None:
    write(folder / "zz_more.yaml", "risk: {}\n")
    text = problems_of(folder)
    assert "zz_more.yaml: top-level key 'risk' already stands in risk_config.yaml" in text


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        (
            "market",
            "sampel",
            "no markets/sampel.yaml; did you mean 'sample'?; choose one of: sample, us",
        ),
        ("experiment", "warp", "no experiments/warp.yaml; choose one of: quickstart"),
        ("market", "../us", "no markets/../us.yaml; choose one of: sample, us"),
    ],
)
def test_unknown_choice_lists_the_choices(folder: Path, kind: str, name: str, advice: str) -> None:
    text = problems_of(folder, **{kind: name})
    assert f"{kind}: {advice}" in text
    assert "required key is missing" not in text


def test_unknown_market_does_not_hide_other_problems(folder: Path) -> None:
    text = problems_of(folder, market="moon", overrides={"seed": -1})
    assert "market: no markets/moon.yaml" in text
    assert "seed: Input should be greater than or equal to 0 (was -1) [command line]" in text


def test_broken_yaml_is_named_and_does_not_cause_noise(folder: Path) -> None:
    write(folder / "risk_config.yaml", "risk: {stock_cap: [\n")
    write(folder / "evaluation.yaml", "- a list\n")
    text = problems_of(folder)
    assert "risk_config.yaml: not readable as YAML: while parsing" in text
    assert "evaluation.yaml: expected a mapping of keys to values, found ['a list']" in text
    assert "required key is missing" not in text


def test_yaml_that_would_run_code_is_refused(folder: Path) -> None:
    write(folder / "experiments" / "hostile.yaml", "seed: !!python/object/apply:os.getpid []\n")
    assert "could not determine a constructor" in problems_of(folder, experiment="hostile")


def test_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "experiments" / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "binary.yaml: not readable as YAML" in problems_of(folder, experiment="binary")


def test_key_that_is_no_word_is_refused(folder: Path) -> None:
    write(folder / "experiments" / "odd.yaml", "risk:\n  off: 2\n")
    text = problems_of(folder, experiment="odd")
    assert "odd.yaml line 2: YAML reads key False as no text, write it in quotes" in text
    assert "risk.False: unknown key [odd.yaml]" in text


def test_not_a_number_is_refused(folder: Path) -> None:
    text = problems_of(folder, overrides={"risk": {"turnover_cap": float("inf")}})
    assert "risk.turnover_cap: Input should be a finite number" in text


def test_folder_without_files_is_refused(tmp_path: Path) -> None:
    assert "expected *.yaml files, found none" in problems_of(tmp_path)


def test_dumped_configuration_reads_back_equal(folder: Path) -> None:
    config = load_config(folder, experiment="quickstart")
    assert RunConfig.model_validate(yaml.safe_load(dump_config(config))) == config


def test_hash_follows_values_and_not_comments(folder: Path) -> None:
    before = config_hash(load_config(folder))
    edit(folder / "risk_config.yaml", "turnover_cap: 1.0       # off", "turnover_cap: 1.0")
    assert config_hash(load_config(folder)) == before
    edit(folder / "risk_config.yaml", "turnover_cap: 1.0", "turnover_cap: 0.9")
    assert config_hash(load_config(folder)) != before


MARKETS = list_choices(DEFAULT_CONFIG_DIR, "market")
EXPERIMENTS = [None, *list_choices(DEFAULT_CONFIG_DIR, "experiment")]


@pytest.mark.parametrize("market", [None, *MARKETS])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_market_and_experiment_of_the_project_loads(
    market: str | None, experiment: str | None
) -> None:
    config = load_config(market=market, experiment=experiment)
    assert config.market in MARKETS
    assert market in {None, config.market}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_a_run_wrote_reads_back_as_its_own_configuration(
    experiment: str | None, tmp_path: Path
) -> None:
    config = load_config(experiment=experiment)
    assert load_config(own_file=write(tmp_path / "run.yaml", dump_config(config))) == config


def test_what_a_run_wrote_needs_no_profile_of_its_name(folder: Path, tmp_path: Path) -> None:
    write(folder / "markets" / "mine.yaml", PROFILE)
    config = load_config(folder, market="mine")
    own = write(tmp_path / "run.yaml", dump_config(config))
    (folder / "markets" / "mine.yaml").unlink()
    assert load_config(folder, own_file=own) == config


def test_defaults_are_copied_and_read_back_equal(tmp_path: Path) -> None:
    copy = tmp_path / "mine"
    n_files = copy_defaults(copy, overwrite=False)
    assert n_files == sum(path.is_file() for path in copy.rglob("*"))
    assert (copy / "symbols" / "us.csv").is_file()
    assert load_config(copy, experiment="smoke") == load_config(experiment="smoke")


def test_a_copy_overwrites_only_when_it_may(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "risk_config.yaml", "risk: {}\n")
    write(tmp_path / "mine" / "notes.txt", "kept")
    with pytest.raises(OverwriteError, match=r"mine exists and is not empty; .* --overwrite"):
        copy_defaults(tmp_path / "mine", overwrite=False)
    assert (tmp_path / "mine" / "risk_config.yaml").read_text() == "risk: {}\n"
    copy_defaults(tmp_path / "mine", overwrite=True)
    assert "stock_cap" in (tmp_path / "mine" / "risk_config.yaml").read_text()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


SPANS_OF_DAYS = """market_profile:
  spans:
    train: {{start: {0}, end: {1}}}
    validation: {{start: {2}, end: {3}}}
    test: {{start: {4}, end: {5}}}
"""


@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"', "{} 00:00:00", "{}T00:00:00Z"])
def test_days_are_read_with_and_without_quotes_and_as_midnights(
    folder: Path, tmp_path: Path, form: str
) -> None:
    days = [f"{year}-0{month}-15" for year in (2001, 2004, 2007) for month in (1, 9)]
    text = SPANS_OF_DAYS.format(*(form.format(day) for day in days))
    found = load_config(folder, own_file=write(tmp_path / "own.yaml", text)).market_profile.spans
    assert isinstance(found, SpansConfig)
    assert [str(found.train.start), str(found.test.end)] == [days[0], days[-1]]


@pytest.mark.parametrize("written", ["20180131", "2018", "31.01.2018", "'01/31/2018'", "today"])
def test_what_is_no_day_is_refused_with_the_form_of_a_day(
    folder: Path, tmp_path: Path, written: str
) -> None:
    days = [written, *(f"20{year}-01-15" for year in range(19, 24))]
    own = write(tmp_path / "own.yaml", SPANS_OF_DAYS.format(*days))
    found = problems_of(folder, own_file=own)
    assert "spans.train.start: expected a day such as 2018-01-31" in found
    assert "own.yaml" in found


@pytest.mark.parametrize("written", ["010", "-07", "0_17", "1:30", "2:05:10", "1:30.5"])
def test_numbers_that_yaml_reads_as_other_numbers_are_refused(
    folder: Path, tmp_path: Path, written: str
) -> None:
    text = f"market_profile: {{costs: {{sell_bps: {written}}}}}"
    found = problems_of(folder, own_file=write(tmp_path / "own.yaml", text))
    assert f"costs.sell_bps: Input should be a valid number (was '{written}')" in found


@pytest.mark.parametrize(
    ("written", "cure"),
    [
        ("45%", "write 0.45 if it is a share"),
        ("12.5 %", "write 0.125 if it is a share"),
        ("0,45", "write 0.45"),
        ("0,5", "write 0.5"),
        ("1e-1", "write 1.0e-1"),
        ("1,234", None),
        ("all", None),
    ],
)
def test_numbers_as_people_write_them_are_refused_with_the_one_to_write(
    folder: Path, tmp_path: Path, written: str, cure: str | None
) -> None:
    text = f"market_profile: {{costs: {{sell_bps: '{written}'}}}}"
    found = problems_of(folder, own_file=write(tmp_path / "own.yaml", text))
    assert f"(was '{written}')" in found
    assert ("YAML reads this as text" in found) == (cure is not None)
    assert cure is None or f"as text, {cure} [own.yaml]" in found


@pytest.mark.parametrize(("written", "value"), [("10", 10), ("0", 0), ("0.10", 0.1), ("1_0", 10)])
def test_numbers_are_read_as_they_are_written(
    folder: Path, tmp_path: Path, written: str, value: float
) -> None:
    text = f"market_profile: {{costs: {{sell_bps: {written}}}}}"
    own = write(tmp_path / "own.yaml", text)
    assert load_config(folder, own_file=own).market_profile.costs.sell_bps == value
