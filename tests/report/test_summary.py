"""Headline cards: values with intervals, and a verdict only where the difference is significant."""

import pytest

from csm.report.numbers import percent
from csm.report.summary import Figure, Reference, headline, headlines
from tests.report.html_tree import parse

FIGURES = [
    Figure(label="Recording", value=0.1, interval=(0.05, 0.2), tone="recording"),
    Figure(label="Generated", value=0.3, interval=(0.1, 0.6)),
]


def test_values_and_intervals_are_text_and_bars_are_hidden_from_screen_readers():
    card = parse(headline("Word <error> rate", FIGURES, form=percent, full=1.0, better="lower", note="N 8"))
    assert [one.text for one in card.all("strong")] == ["10.0 %", "30.0 %"]
    assert [one.text for one in card.of_class("interval")] == ["5.0 % to 20.0 %", "10.0 % to 60.0 %"]
    assert all(track.attributes["aria-hidden"] == "true" for track in card.of_class("track"))
    assert [one.attributes["style"] for one in card.all("b")] == ["width:10.0%", "width:30.0%"]
    assert card.all("s")[1].attributes["style"] == "left:10.0%;width:50.0%"
    assert card.all("h3")[0].text == "Word <error> rate" and "N 8; lower is better" in card.text


def test_one_value_is_large_and_a_missing_one_says_why():
    assert parse(headline("Delay", [Figure(label="", value=0.2, interval=(0.1, 0.3))])).of_class("big")
    missing = Figure(label="Generated", value=None, missing="not measurable on this corpus")
    card = parse(headline("Emotion", [missing]))
    assert "not measurable on this corpus" in card.text and not card.all("strong")
    assert headline("Nothing", []) == "" and headlines(["", ""]) == ""


@pytest.mark.parametrize(
    ("ends", "better", "verdict"),
    [
        ((0.05, 0.35), "lower", "worse"),
        ((0.05, 0.35), "higher", "better"),
        ((-0.05, 0.35), "lower", "not significant"),
        ((0.05, 0.35), "", ""),
        (None, "lower", ""),
    ],
)
def test_the_difference_from_a_reference_needs_an_interval_for_a_verdict(ends, better, verdict):
    reference = Reference(label="packaged voice", value=0.1, interval=(0.0, 0.2), difference=ends)
    shown = parse(headline("WER", FIGURES, better=better, reference=reference)).of_class("reference")[0].text
    assert shown.startswith("packaged voice 0.100 (0 to 0.200)") and "difference +0.200" in shown
    assert shown.endswith(f": {verdict}" if verdict else (")" if ends else "+0.200"))


def test_differences_of_percentages_are_points():
    reference = Reference(label="before", value=0.1, difference=(-0.05, 0.35))
    shown = parse(headline("WER", FIGURES, form=percent, reference=reference)).of_class("reference")[0].text
    assert "before 10.0 %" in shown and "+20.0 points (-5.0 points to +35.0 points): not significant" in shown
