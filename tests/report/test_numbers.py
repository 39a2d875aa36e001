"""Numbers as text are short, and say what they leave out."""

from csm.report.numbers import counted, interval, number, percent, seconds, signed


def test_numbers_are_short():
    assert [number(v) for v in (None, 0, 0.12345, 3.14159, 1234.5, -0.5)] == [
        "-", "0", "0.123", "3.14", "1,234", "-0.500",
    ]  # fmt: skip


def test_intervals_and_signs_use_the_format_of_the_value():
    assert interval((0.1234, 0.5), percent) == "12.3 % to 50.0 %" and interval(None) == ""
    assert [signed(value) for value in (0.25, -0.25, 0.0)] == ["+0.250", "-0.250", "+0"]


def test_units_and_nouns_follow_their_number():
    assert interval((0.4, 0.5), seconds) == "0.400 s to 0.500 s"
    assert [counted(n, "turn") for n in (0, 1, 2, 1200)] == ["0 turns", "1 turn", "2 turns", "1,200 turns"]
