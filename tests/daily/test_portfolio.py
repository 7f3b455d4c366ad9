from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hrl_sarp.daily.decision.decide import account_clocks, decide, deployed
from hrl_sarp.daily.portfolio import Holdings, Memory, Standing, read_holdings
from hrl_sarp.errors import DataError
from tests.daily.conftest import Site

WRONG = {
    "": "row 1: expected the header",
    "ticker,n\nA,1\n": "row 1: expected the header",
    "symbol;shares\nA;1\n": "row 1: expected the header",
    "symbol,shares\nA,1\n": "a row CASH",
    "symbol,shares\nA,-1\nCASH,0\n": "row 2: A: .*at least 0, found '-1'",
    "symbol,shares\nA,nan\nCASH,0\n": "row 2: A: .*found 'nan'",
    "symbol,shares\nA,1\n\nA,2\nCASH,0\n": "row 4: A stands twice",
    "symbol,shares\nA,ten\nCASH,0\n": "row 2: A: .*found 'ten'",
    'symbol,shares\nA,"1,000"\nCASH,0\n': "row 2: A: .*found '1,000'",
    "symbol,shares\nA,1,000\nCASH,0\n": "row 2: expected a symbol and a number",
    "symbol,shares\n,1\nCASH,0\n": "row 2: expected a symbol",
    "symbol,shares\nA,0.4\nB,0.5\nCASH,0.1\n": "adds up to 1, as weights do",
    "symbol,shares\nA,0.333\nB,0.333\nC,0.333\nCASH,0\n": "adds up to 1, as weights do",
    "symbol,shares\nA,1\nCASH,-5\n": "row 3: CASH: .*at least 0",
}


@pytest.mark.parametrize("text", list(WRONG))
def test_a_file_of_holdings_that_cannot_be_meant_is_refused_with_its_row(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "holdings.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=WRONG[text]) as refused:
        read_holdings(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


shares = st.dictionaries(
    st.from_regex(r"[A-Z]{1,4}", fullmatch=True), st.floats(0.0, 1e6), max_size=5
).map(lambda d: {k: v for k, v in d.items() if k != "CASH"})


@given(shares, st.floats(0.0, 1e7))
def test_holdings_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, float], cash: float
) -> None:
    assume(abs(sum(found.values()) + cash - 1) > 0.01)  # those are weights
    path = tmp_path_factory.mktemp("holdings") / "holdings.csv"
    rows = [f" {symbol} , {n!r}" for symbol, n in found.items()]
    path.write_text("\ufeff" + "\r\n".join(["Symbol,Shares", *rows, f"CASH,{cash!r}", ""]))
    read = read_holdings(path)
    assert read == Holdings({symbol: n for symbol, n in found.items() if n > 0}, cash)


def test_an_account_comes_back_from_its_clocks(site: Site) -> None:
    today = site.today()
    symbols = today.market.symbols[:3]
    memory = Memory(peak=1.25, gate_days=3, active_growth=0.1, active_peak=0.2,
                    traded=dict(zip(symbols, (0.1, 0.2, 0.3), strict=True)))  # fmt: skip
    before = Standing(today.day, 5e4, dict(zip(symbols, (0.2, 0.1, 0.05), strict=True)), memory)
    clocks = account_clocks(today.market, site.config, before)
    after = Standing.of(clocks, before.wealth, None)
    assert after == before
    assert Memory.from_json(memory.to_json()) == memory


def test_the_goal_of_the_week_is_kept_and_one_of_an_earlier_week_is_renewed(site: Site) -> None:
    today = site.today()
    ends = today.market.dates[today.market.is_week_end]
    inside = [day for day in site.later_days if day not in {end.item() for end in ends}]
    day = inside[-1]
    before = max(end.item() for end in ends if end.item() < day)
    earlier = max(end.item() for end in ends if end.item() < before)
    first = Standing(before, 1e5, {})
    clocks = account_clocks(today.market, site.config, first)
    goal = decide(deployed([today]), clocks, first).memory
    assert goal.goal_day == before
    for goal_day, is_new in ((before, False), (earlier, True)):
        memory = Memory(goal=goal.goal, goal_day=goal_day)
        standing = Standing(day, 1e5, {}, memory)
        found = decide(
            deployed([today]), account_clocks(today.market, site.config, standing), standing
        )
        assert found.is_new_goal is is_new
        assert found.memory.goal_day == (day if is_new else before)
        if not is_new:
            assert found.memory.goal == goal.goal


def test_holdings_without_a_price_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"ZZZ.*no price"):
        Holdings({"ZZZ": 1.0}, 10.0).standing(date(2024, 1, 2), {"A": 1.0}, Memory())
