"""The page: one file that a person looks at and listens to, with everything inside it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.report_clips import LABELS, ClipValues, Gallery, total_audio_bytes
from csm.evaluation.report_codebooks import codebook_charts
from csm.evaluation.report_tables import cards, judges, metric_tables
from csm.evaluation.speech_folder import CONDITIONS, SpeechFolder, read_speech_folder
from csm.report.charts import Series, histogram, line_chart
from csm.report.media import PAGE_AUDIO_BYTES
from csm.report.page import page_text, save_page

MOST_CURVES = 12  # of one file: small multiples beyond it help nobody
LEGEND = "".join(f'<span class="{name}"><i></i>{label}</span>' for name, label in LABELS.items())


def write_page(run: Path, report: Mapping[str, Any]) -> Path:
    """Writes ``report.html`` beside ``report.json``; audio is FLAC, or MP3 where it would be too large.

    Args:
        run: the run's folder, for audio and loss curves.
        report: what :func:`csm.evaluation.suite.evaluate` returned.

    Returns:
        Path of the page.
    """
    folder = read_speech_folder(run / "speech")
    gallery = Gallery(
        folder=folder,
        values=ClipValues.of(report),
        lossless=total_audio_bytes(folder) * 0.6 < PAGE_AUDIO_BYTES,  # FLAC of speech is 0.5 to 0.6 of WAV
        pictures=importlib.util.find_spec("matplotlib") is not None,
    )
    parts = [
        ("figures", "Figures", cards(report)),
        ("lines", "Lines", _lines(gallery, folder)),
        ("dialogues", "Dialogues", _dialogues(gallery, folder, report)),
        ("conversation", "Conversation", _conversation(report)),
        ("training", "Training", _training(run)),
        ("codebooks", "Codebooks", codebook_charts(report["details"].get("codebooks"))),
        ("tables", "All metrics", metric_tables(report)),
        ("judges", "Judges", judges(report, pictures=gallery.pictures)),
    ]
    footer = (
        f"Seed {report['seed']}, schema {report['schema_version']}. Judges ran on "
        f"{escape(report['hardware'])}. The figures are in report.json."
    )
    title = f"Speech report: {escape(str(report['run']))}"
    return save_page(run, page_text(title, _summary(folder, report), parts, footer))


def is_judged(run: Path) -> bool:
    """Whether the run has a report that is newer than its speech."""
    page, speech = run / "report.html", run / "speech" / "speech.jsonl"
    return page.is_file() and speech.is_file() and page.stat().st_mtime >= speech.stat().st_mtime


def _summary(folder: SpeechFolder, report: Mapping[str, Any]) -> str:
    corpus = f" of the corpus {escape(str(report['corpus']))}" if report["corpus"] else ""
    return (
        f"{len(folder.lines)} held-out lines and {len(folder.dialogues)} dialogues with "
        f"{len(folder.turns)} turns{corpus}, each as it was recorded, as the tokenizer "
        "resynthesises it, and as the model speaks it. "
        "The same judges hear all three. Where a recording itself scores low, read the difference from it."
    )


def _lines(gallery: Gallery, folder: SpeechFolder) -> str:
    if not folder.lines:
        return ""
    note = (
        '<p class="note">Under each player: what the recogniser heard, wrong or added words marked, missing '
        "words struck through. WER of the clip, similarity to the speaker's mean voice, predicted"
        " quality.</p>"
    )
    return note + f'<div class="legend">{LEGEND}</div>' + "".join(gallery.line(line) for line in folder.lines)


def _dialogues(gallery: Gallery, folder: SpeechFolder, report: Mapping[str, Any]) -> str:
    taking = report["details"].get("turn_taking", {})
    blocks = []
    for dialogue in folder.dialogues:
        heard = {
            condition: shown
            for condition, dialogues in taking.items()
            for shown in dialogues
            if shown["dialogue"] == dialogue.id
        }
        blocks.append(gallery.dialogue(dialogue, heard))
    return "".join(blocks)


def _conversation(report: Mapping[str, Any]) -> str:
    """Offsets between speakers, and each voice over the turns."""
    details = report["details"]
    plots = []
    offsets = [
        (condition, [value for dialogue in dialogues for value in dialogue.get("fto", [])])
        for condition, dialogues in details.get("turn_taking", {}).items()
    ]
    if any(values for _, values in offsets):
        chart = histogram(
            [(condition, values) for condition, values in offsets if values],
            title="floor-transfer offsets",
            low=-2000,
            high=2000,
            width_of_bin=200,
            x_title="floor-transfer offset in ms: negative is overlap, positive a gap (bins of 200 ms)",
        )
        counts = ", ".join(f"{len(values)} {LABELS[condition].lower()}" for condition, values in offsets)
        plots.append(
            f'<div class="plot wide"><h4>Floor-transfer offsets ({counts})</h4>{chart}</div>'
            f'<p class="note">Note: {escape(details.get("turn_taking_note", ""))}.</p>'
        )
    if voices := _voices(details.get("character", {})):
        plots.append(f"<h3>Similarity of each voice to itself, turn by turn</h3>{voices}")
    return f'<div class="legend">{LEGEND}</div>' + "".join(plots) if plots else ""


def _voices(character: Mapping[str, Any]) -> str:
    voices: dict[tuple[str, str], list[Series]] = {}
    for condition in CONDITIONS:
        for one in character.get(condition, {}).get("series", []):
            line = Series(label=condition, points=one["points"], style=condition, dots=True)
            voices.setdefault((one["dialogue"], one["speaker"]), []).append(line)
    values = [value for lines in voices.values() for line in lines for _, value in line.points]
    if not values:
        return ""
    low = min(0.5, *values)
    plots = [
        f'<div class="plot"><h4>{escape(name)}, {escape(dialogue)}</h4>'
        + line_chart(lines, title=f"similarity of {name}", x_title="turn", y=(low, 1.0), whole_x=True)
        + "</div>"
        for (dialogue, name), lines in voices.items()
    ]
    return f'<div class="plots">{"".join(plots)}</div>'


def _training(run: Path) -> str:
    blocks = []
    for title, path in (("Model", run / "metrics.jsonl"), ("Tokenizer", run / "tokenizer" / "metrics.jsonl")):
        curves = _curves(path)
        if curves:
            blocks.append(f'<h3>{title}</h3><div class="plots">{curves}</div>')
    legend = '<div class="legend"><span class="recording"><i></i>training (pale: every record)</span>'
    legend += '<span class="generated"><i></i>validation</span></div>'
    return legend + "".join(blocks) if blocks else ""


def _curves(path: Path) -> str:
    train, validation = _read_metrics(path)
    names = sorted(train, key=lambda name: (name not in validation, "/total" not in name, name))[:MOST_CURVES]
    plots = []
    for name in names:
        points = train[name][:: max(1, len(train[name]) // 300)]
        smooth = _smoothed(points)
        series = [
            Series(label="record", points=points, style="faint"),
            Series(label="training", points=smooth, style="recording"),
            Series(label="validation", points=validation.get(name, []), style="generated"),
        ]
        values = sorted(value for _, value in [*points, *validation.get(name, [])])
        cut = max(0, int(len(values) * 0.99) - 1)  # one spike must not flatten the curve
        low, high = values[0], max(values[cut], values[0] + 1e-6)
        room = 0.05 * (high - low)
        chart = line_chart(series, title=name, x_title="step", y=(low - room, high + room))
        plots.append(f'<div class="plot"><h4>{escape(name)}</h4>{chart}</div>')
    return "".join(plots)


def _read_metrics(path: Path) -> tuple[dict[str, list], dict[str, list]]:
    """(training, validation) points of every loss; a torn last line is left out."""
    found: dict[str, dict[str, list]] = {"train": {}, "validation": {}}
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


def _smoothed(points: Sequence[tuple[float, float]], window: int = 9) -> list[tuple[float, float]]:
    result = []
    for place, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, place - window) : place + window + 1]]
        result.append((step, sum(near) / len(near)))
    return result
