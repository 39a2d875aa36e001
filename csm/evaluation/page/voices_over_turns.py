"""Charts of the similarity of each voice to its mean voice over the turns of a dialogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csm.report.charts import Series, line_chart, plot, plots


def voices_over_turns(character: Mapping[str, Any], conditions: Sequence[str]) -> str:
    """Writes a chart for each speaker of each dialogue; empty without turns.

    Args:
        character: `details["character"]` of a report.
        conditions: Conditions that are shown.
    """
    voices: dict[tuple[str, str], list[Series]] = {}
    for condition in conditions:
        for one in character.get(condition, {}).get("series", []):
            points = [(turn, value) for turn, value in one["points"]]
            line = Series(label=condition, points=points, style=condition, dots=True)
            voices.setdefault((one["dialogue"], one["speaker"]), []).append(line)
    values = [value for lines in voices.values() for line in lines for _, value in line.points]
    low = min(0.5, *values) if values else 0.5
    charts = [
        plot(
            f"{name}, {dialogue}",
            line_chart(
                lines,
                title=f"similarity of {name}",
                x_title="turn",
                y_title="cosine",
                y=(low, 1.0),
                whole_x=True,
            ),
        )
        for (dialogue, name), lines in voices.items()
    ]
    return plots(charts)
