"""The page of samples: a chart per validation metric, and each clip as recorded and after validations."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import soundfile

from csm.report.charts import Series, line_chart, plot, plots
from csm.report.media import Sound
from csm.report.page import page_text
from csm.report.players import Version, clip_card
from csm.training.loss_titles import loss_title

ORIGINAL = "original"


def samples_page(folder: Path, title: str, validations: Sequence[dict[str, Any]]) -> str:
    """Returns the page.

    Args:
        folder: Folder of the samples; the page's links are relative to it.
        title: Name of the run.
        validations: Lines of metrics.jsonl.
    """
    steps = sorted(folder.glob("step_" + "[0-9]" * 8))
    clips = sorted(path.name for path in (folder / ORIGINAL).glob("*.wav"))
    cards = [_clip(folder / ORIGINAL, steps, name, index) for index, name in enumerate(clips)]
    return page_text(
        f"{escape(title)}: samples",
        f"{len(clips)} clips of the validation split as recorded and after {len(steps)} validations.",
        [
            ("validation", "Validation", plots(_charts(validations))),
            ("clips", "Clips", "".join(cards)),
        ],
        "The clips lie in the folders beside this page.",
    )


def _clip(original: Path, steps: Sequence[Path], name: str, index: int) -> str:
    """One clip: the recording beside the first and the last step, and the steps between folded away."""
    shown = [original, *steps[:1], *steps[1:][-1:]]
    versions = [_version(column, name) for column in shown if (column / name).is_file()]
    between = [_version(column, name) for column in steps[1:-1] if (column / name).is_file()]
    text = unquote(Path(name).stem)
    return clip_card(versions, anchor=f"clip_{index}", source=text, text="", more=between)


def _version(column: Path, name: str) -> Version:
    recorded = column.name == ORIGINAL
    sound = Sound(
        uri=quote(f"{column.name}/{name}"),
        duration=float(soundfile.info(column / name).duration),
        extension="wav",
    )
    return Version(
        title="Recording" if recorded else f"Step {int(column.name.removeprefix('step_')):,}",
        tone="recording" if recorded else "resynthesis",
        sound=sound,
    )


def _charts(validations: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for line in validations for name in line if name not in ("step", "split"))
    charts = []
    for name in names:
        title, unit = loss_title(name)
        points = [(line["step"], line[name]) for line in validations if line.get(name) is not None]
        series = Series(label="validation", points=points, style="generated", dots=True)
        chart = line_chart(
            [series], title=f"{title} of the validation", x_title="step", y_title=unit, whole_x=True
        )
        charts.append(plot(title, chart))
    return charts
