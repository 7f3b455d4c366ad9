"""A symbol without a partner is named with the spelling that may be meant."""

import pytest

from hrl_sarp.data.partners import twin_of, without_partner


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("BRK.B", "BRK-B"),
        ("BRK.B", "BRK/B"),
        ("BRK.B", "BRK_B"),
        ("BRK.B", "brk b"),
        ("AAPL", "aapl"),
        ("AAPL ", "AAPL"),
        ("AAPL.US", "AAPL"),
        ("DDD.DE", "DDD"),
        ("000001.SZ", "000001.XSHE"),
        ("1", "000001"),
        ("1.0", "000001"),
        ("0700.HK", "700"),
        ("AAPL Historical Data", "AAPL"),
        ("AAPL US Equity", "AAPL"),
        ("aapl_us_d", "AAPL"),
        ("AAPL_Daily_201901020000_201905100000", "AAPL"),
        ("NASDAQ_AAPL, 1D", "AAPL"),
        ("sh.600519", "600519"),
        ("BTCUSDT_1440", "BTCUSDT"),
        ("AAPL (1)", "AAPL"),
        ("AAPL.csv", "AAPL"),
    ],
)
def test_spellings_of_one_symbol_are_twins_both_ways(one: str, other: str) -> None:
    assert twin_of(one, ["MSFT", other]) == other
    assert twin_of(other, ["MSFT", one]) == one


@pytest.mark.parametrize("other", ["AAPL2", "AAP", "MSFT", "10001", "AAPL1D", "X_AAPL"])
def test_other_symbols_are_none(other: str) -> None:
    assert twin_of("AAPL", [other]) is None
    assert twin_of("1", [other]) is None


def test_note_names_all_and_the_twin() -> None:
    note = without_partner(["AAA", "BRK.B", "ZZZ"], ["AAA", "BRK-B"], "symbols of x", "y")
    assert note == ("symbols of x without a partner in y: 'BRK.B' (is it 'BRK-B'?), 'ZZZ'",)
    assert without_partner(["AAA"], ["AAA", "B"], "x", "y") == ()
