"""Charts: axes follow the data, a single point is a value, and no value is lost."""

import re

from csm.report.charts import Series, bar_chart, histogram, legend, line_chart, plot, plots, timeline
from tests.report.html_tree import parse


def heights(chart: str) -> list[float]:
    return [float(bar.attributes["height"]) for bar in parse(chart).all("rect")]


def test_a_chart_without_points_is_empty():
    assert line_chart([], title="nothing") == ""
    assert histogram([("a", [])], title="t", low=0, high=1, width_of_bin=1, x_title="ms") == ""
    assert plot("nothing", "") == "" and plots(["", ""]) == ""


def test_points_at_one_place_are_values_and_no_chart():
    series = [Series(label=name, points=[(3, value)], style=name) for name, value in (("a", 0.5), ("b", 2.0))]
    shown = line_chart(series, title="one point", x_title="turn", y_title="cosine")
    assert "<svg" not in shown
    assert [item.text for item in parse(shown).all("li")] == [
        "a: 0.500 cosine turn 3",
        "b: 2.00 cosine turn 3",
    ]


def test_a_line_has_its_titles_and_its_values_as_tooltips():
    line = Series(label="loss", points=[(0, 3.0), (50, 2.5)], style="generated", dots=True)
    single = Series(label="validation", points=[(50, 2.0)], style="recording")
    chart = parse(line_chart([line, single], title="Loss <b>", x_title="step", y_title="nats"))
    assert chart.all("svg")[0].name == "Loss <b>" and len(chart.all("polyline")) == 1
    assert [one.text for one in chart.all("title")] == ["loss: 3.00", "loss: 2.50", "validation: 2.00"]
    assert [one.text for one in chart.of_class("axis-title")] == ["nats", "step"]


def test_a_histogram_counts_what_lies_outside_in_its_end_bins():
    values = [-9999.0, 0.0, 50.0, 9999.0]
    chart = histogram([("a", values)], title="t", low=-2000, high=2000, width_of_bin=200, x_title="ms")
    first, middle, last = heights(chart)
    assert first == last and abs(middle - 2 * first) < 0.2


def test_the_axis_of_a_histogram_follows_the_values():
    chart = histogram(
        [("a", [110.0, 350.0])], title="t", low=-2000, high=2000, width_of_bin=100, x_title="ms"
    )
    labels = [label.text for label in parse(chart).all("text")]
    assert "100" in labels and "400" in labels and "0" in labels
    assert not {"-1,000", "1,000"} & set(labels) and len(heights(chart)) == 2


def test_a_bar_is_as_high_as_its_value_and_at_most_as_the_axis():
    common = {"title": "t", "styles": ["a"] * 3, "labels": ["x", "y", "z"], "x_title": "", "y_title": ""}
    low, high, cut = heights(bar_chart([0.25, 0.5, 7.0], top=0.5, **common))
    assert high == cut and abs(high - 2 * low) < 0.2


def test_a_timeline_shows_every_stretch_of_speech_of_every_speaker():
    lanes = [("JOE <b>", [(0.0, 1.0), (5.0, 7.5)], "generated"), ("FAYE", [], "generated")]
    shown = parse(timeline(lanes, 10.0, title="who speaks when"))
    blocks = [one.attributes for one in shown.all("i")]
    assert [one["style"] for one in blocks] == ["left:0.00%;width:10.00%", "left:50.00%;width:25.00%"]
    assert blocks[1]["title"] == "5.00 to 7.50 s" and "JOE <b>" in shown.text
    assert shown.of_class("timeline")[0].name == "who speaks when"


def test_a_legend_names_each_colour():
    assert re.findall('class="([a-z]+)"', legend([("recording", "a & b")])) == ["legend", "recording"]
    assert "a &amp; b" in legend([("recording", "a & b")])
