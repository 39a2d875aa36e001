"""Axes: round ticks, and a range that holds every value."""

from csm.report.chart_frame import Frame, axes, bounds, tick_text, ticks
from tests.report.html_tree import parse


def test_ticks_are_round_numbers_inside_the_range():
    assert ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(-130.0, 130.0) == [-100.0, 0.0, 100.0]
    assert ticks(2.0, 2.0) == [2.0]


def test_labels_of_ticks_are_short():
    assert [tick_text(v) for v in (0.25, -2.0, 1500.0, 20000.0, 20050.0)] == [
        "0.25",
        "-2",
        "1,500",
        "20k",
        "20,050",
    ]


def test_equal_values_get_a_range():
    assert bounds([5.0, 5.0]) == (4.5, 5.5) and bounds([0.0]) == (-1.0, 1.0)


def test_there_is_no_label_between_whole_turns():
    frame = Frame(width=380, height=200, x=(1.0, 3.0), y=(0.0, 1.0))
    labels = {text.text for text in parse("".join(axes(frame, whole_x=True))).all("text")}
    assert {"1", "2", "3"} <= labels and "1.5" not in labels and "2.5" not in labels
