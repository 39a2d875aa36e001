"""Charts: round ticks, nothing without points, and no value lost."""

from csm.report.charts import Series, histogram, line_chart, ticks


def test_charts_have_round_ticks_and_survive_no_points():
    assert ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert line_chart([], title="nothing") == ""
    assert "<polyline" in line_chart([Series(label="a", points=[(1, 2)], style="s")], title="one point")


def test_histogram_shares_add_up_and_keep_what_lies_outside():
    chart = histogram(
        [("a", [-9999.0, 0.0, 50.0, 9999.0])], title="t", low=-2000, high=2000, width_of_bin=200, x_title="ms"
    )
    assert chart.count("<rect") == 3
