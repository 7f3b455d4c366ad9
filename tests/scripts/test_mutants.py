"""Which changes are chosen and which count as noticed; the list of meaningless ones is true."""

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

A, B = "hrl_sarp.simulator.limits.x_f__mutmut_", "hrl_sarp.simulator.trades.x_g__mutmut_"
MANY = {f"{begin}{i}": "killed" for begin in (A, B) for i in range(1, 41)}


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "scripts" / "mutants.py"))


def test_a_sample_takes_so_many_of_each_module_and_its_seed_repeats_it(
    script: dict[str, Any],
) -> None:
    statuses = {**MANY, "hrl_sarp.metrics.x_h__mutmut_1": "killed"}
    drawn = [script["choose"](statuses, ["simulator"], 7, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for names in drawn:
        assert len(set(names)) == 14
        assert sum(name.startswith(A) for name in names) == 7
    assert script["choose"](statuses, ["simulator"], None, 0) == sorted(MANY)
    assert script["choose"](statuses, ["simulator"], 99, 0) == sorted(MANY)
    both = script["choose"](statuses, ["metrics", "simulator"], 1, 0)
    assert [name.rpartition("__")[0] for name in both] == ["hrl_sarp.metrics.x_h", A[:-9], B[:-9]]


def test_other_functions_of_a_module_belong_to_no_part(script: dict[str, Any]) -> None:
    names = [f"hrl_sarp.market.assemble.x_{f}__mutmut_1" for f in ("make_split", "week_ends")]
    assert script["choose"](dict.fromkeys(names, "killed"), ["splits"], None, 0) == names[:1]


def test_results_of_mutmut_are_read(script: dict[str, Any]) -> None:
    text = f"    {A}1: killed\n    {A}2: no tests\n\n    {A}3: not checked\n"
    found = dict(script["parsed"](text))
    assert found == {f"{A}1": "killed", f"{A}2": "no tests", f"{A}3": "not checked"}


@pytest.mark.parametrize(
    ("status", "left", "left_again"),
    [
        ("killed", False, False),
        ("timeout", False, False),
        ("survived", False, True),
        ("no tests", False, True),
        ("suspicious", False, True),
        ("not checked", True, True),
    ],
)
def test_what_has_a_result_is_tested_again_only_if_asked(
    script: dict[str, Any], status: str, *, left: bool, left_again: bool
) -> None:
    assert script["is_left"](status, again=False) is left
    assert script["is_left"](status, again=True) is left_again


def test_a_module_below_nine_of_ten_is_not_enough(script: dict[str, Any]) -> None:
    statuses = {**MANY, **{f"{B}{i}": "survived" for i in range(1, 5)}}
    table, is_enough = script["report"](statuses, sorted(statuses), {f"{B}1"})
    assert is_enough
    assert table.rows == [
        ("simulator.limits", "40", "40", "40", "0", "100.0 %", "–"),  # noqa: RUF001 -- no value
        ("simulator.trades", "36", "40", "40", "1", "90.0 %", "–"),  # noqa: RUF001 -- no value
    ]
    statuses[f"{B}5"] = "no tests"
    assert not script["report"](statuses, sorted(statuses), set())[1]


def test_a_sample_is_shown_with_its_interval(script: dict[str, Any]) -> None:
    # Wilson: 20 of 20 at 95 %: 20 / (20 + 1.96^2) = 83.9 %
    names = [f"{A}{i}" for i in range(1, 21)]
    table, _ = script["report"](MANY, names, set())
    assert table.rows == [
        ("simulator.limits", "20", "20", "40", "0", "100.0 %", "83.9 % to 100.0 %")
    ]


def test_a_change_is_told_by_the_lines_that_it_touches(script: dict[str, Any]) -> None:
    shown = (
        f"# {A}1: survived\n--- a.py\n+++ a.py\n@@ -1,3 +1,3 @@\n d = 0\n-    a = 1\n+    a = 2\n"
    )
    assert script["lines_of"](shown) == ("a = 1", "a = 2")


def test_changes_that_mean_nothing_are_changes_of_lines_that_exist(
    repository: Path, script: dict[str, Any]
) -> None:
    for module, changes in tomllib.loads(script["EQUIVALENT"].read_text(encoding="utf-8")).items():
        source = (repository / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        code = " ".join(source.split())
        for change in changes:
            assert set(change) == {"was", "now", "why"}, module
            assert " ".join(change["was"].split()) in code, f"{module}: {change['was']}"
            assert change["was"] != change["now"]
