"""Curves of training and validation losses, from metrics.jsonl of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from csm.report.charts import Series, legend, line_chart, plot, plots
from csm.training.loss_titles import loss_title

MOST_CURVES = 12  # of one file: more small charts are not readable
Point = tuple[float, float]
Curves = dict[str, list[Point]]


def training_curves(run: Path) -> str:
    """Writes the losses of model and tokenizer; empty without a metrics.jsonl."""
    blocks = []
    for title, path in (("Model", run / "metrics.jsonl"), ("Tokenizer", run / "tokenizer" / "metrics.jsonl")):
        if curves := plots(_curves(path)):
            blocks.append(f"<h3>{title}</h3>{curves}")
    shown = [("recording", "training (pale: every record)"), ("generated", "validation")]
    return legend(shown) + "".join(blocks) if blocks else ""


def _curves(path: Path) -> list[str]:
    train, validation = read_losses(path)
    names = sorted(train, key=lambda name: (name not in validation, "/total" not in name, name))[:MOST_CURVES]
    charts = []
    for name in names:
        points = train[name][:: max(1, len(train[name]) // 300)]
        series = [
            Series(label="record", points=points, style="faint"),
            Series(label="training", points=_smoothed(points), style="recording"),
            Series(label="validation", points=validation.get(name, []), style="generated"),
        ]
        values = sorted(value for _, value in [*points, *validation.get(name, [])])
        cut = max(0, int(len(values) * 0.99) - 1)  # one spike must not flatten the curve
        low, high = values[0], max(values[cut], values[0] + 1e-6)
        room = 0.05 * (high - low)
        title, unit = loss_title(name)
        span = (low - room, high + room)
        charts.append(plot(title, line_chart(series, title=title, y_title=unit, x_title="step", y=span)))
    return charts


def read_losses(path: Path) -> tuple[Curves, Curves]:
    """Reads training and validation points of every loss; a torn last line is left out."""
    found: dict[str, Curves] = {"train": {}, "validation": {}}
    if not path.is_file():
        return found["train"], found["validation"]
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(text)
        except ValueError:
            continue  # the run may have been killed while it wrote this line
        target = found.get(row.get("split", "train"), {})
        for name, value in row.items():
            if "/" in name and isinstance(value, (int, float)) and value == value:
                target.setdefault(name, []).append((float(row["step"]), float(value)))
    return found["train"], found["validation"]


def _smoothed(points: Sequence[Point], window: int = 9) -> list[Point]:
    result = []
    for place, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, place - window) : place + window + 1]]
        result.append((step, sum(near) / len(near)))
    return result
