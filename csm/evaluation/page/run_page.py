"""The page of a run: headline figures, lines and dialogues to listen to, charts, and every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.report import Report
from csm.evaluation.page.codebooks import codebook_charts
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.gallery import NOTE, ConditionLook, Gallery
from csm.evaluation.page.run_cards import run_cards
from csm.evaluation.page.run_tables import LABELS, metric_tables
from csm.evaluation.page.training_curves import training_curves
from csm.evaluation.page.voices_over_turns import voices_over_turns
from csm.evaluation.subjects.run import DIALOGUES, LINES, TURNS, run_sets
from csm.evaluation.subjects.speech_folder import CONDITIONS, Dialogue, SpeechFolder, read_speech_folder
from csm.report.charts import histogram, legend, plot, timeline
from csm.report.numbers import counted
from csm.report.page import page_text, save_page
from csm.report.players import turn_list

LOOKS = {name: ConditionLook(title=label, tone=name) for name, label in LABELS.items()}
LEGEND = legend(list(LABELS.items()))


def write_run_page(run: Path, report: Report) -> Path:
    """Writes report.html beside report.json and returns its path; audio is WAV, MP3 where that gets large."""
    folder = read_speech_folder(run / "speech")
    sets = run_sets(folder)
    gallery = Gallery.of(report, sets.sets, LOOKS)
    parts = [
        ("summary", "Summary", run_cards(report)),
        ("lines", "Lines", _lines(gallery, sets)),
        ("dialogues", "Dialogues", _dialogues(gallery, folder, sets, report)),
        ("conversation", "Conversation", _conversation(report)),
        ("training", "Training", training_curves(run)),
        ("codebooks", "Codebooks", codebook_charts(report.details.get("codebooks"))),
        ("tables", "All metrics", metric_tables(report)),
        ("evaluators", "Evaluators", definitions(report)),
    ]
    title = f"Speech report: {escape(report.run)}"
    return save_page(run, page_text(title, _summary(folder, report), parts, footer(report)))


def _summary(folder: SpeechFolder, report: Report) -> str:
    corpus = f" of the corpus {escape(report.corpus)}" if report.corpus else ""
    beside = f" Beside it the report of {escape(report.reference.name)}." if report.reference else ""
    dialogues = f"{counted(len(folder.dialogues), 'dialogue')} with {counted(len(folder.turns), 'turn')}"
    return (
        f"{counted(len(folder.lines), 'held-out line')} and {dialogues}{corpus}, each as recorded, as the "
        f"tokenizer resynthesises it, and as the model generates it. The same evaluators score all three. "
        f"Where a recording itself scores low, compare with it.{beside}"
    )


def _of(sets: ClipSets, group: str) -> list[ClipSet]:
    return [one for one in sets if one.group == group]


def _lines(gallery: Gallery, sets: ClipSets) -> str:
    lines = _of(sets, LINES)
    if not lines:
        return ""
    scores = "word error rate of the clip, similarity to the speaker's mean voice, predicted quality"
    note = f'<p class="note">{NOTE}; {scores}.</p>'
    cards = (gallery.card(lines, place, pictures=True) for place in range(len(lines[0].clips)))
    return note + LEGEND + "".join(cards)


def _dialogues(gallery: Gallery, folder: SpeechFolder, sets: ClipSets, report: Report) -> str:
    whole, turns = _of(sets, DIALOGUES), _of(sets, TURNS)
    if not whole:
        return ""
    blocks = []
    first = 0
    for place, dialogue in enumerate(folder.dialogues):
        places = range(first, first + len(dialogue.turns))
        first += len(dialogue.turns)
        rows = [
            (turn.speaker, turn.text, gallery.versions(turns, number))
            for number, turn in zip(places, dialogue.turns, strict=True)
        ]
        below = _timelines(dialogue, report.details.get("turn_taking", {})) + turn_list(rows)
        blocks.append(gallery.card(whole, place, note=" and ".join(dialogue.speakers), below=below))
    return "".join(blocks)


def _timelines(dialogue: Dialogue, taking: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """When each speaker speaks, in every condition."""
    shown = {
        condition: one
        for condition, dialogues in taking.items()
        for one in dialogues
        if one["dialogue"] == dialogue.id and "units" in one
    }
    longest = max((one["duration"] for one in shown.values()), default=0.0)
    charts = []
    for condition, one in shown.items():
        names = [*dialogue.speakers, *("voice" for _ in one["units"])]
        lanes = [(names[place], units, condition) for place, units in enumerate(one["units"])]
        charts.append(timeline(lanes, longest, title=f"{LABELS[condition]}: who speaks when"))
    return "".join(charts)


def _conversation(report: Report) -> str:
    """Offsets between speakers where they are real, and each voice over the turns."""
    blocks = []
    if any(entry.name == "fto" for entry in report.metrics):
        taking = report.details["turn_taking"]
        offsets = [(name, [v for one in found for v in one.get("fto", [])]) for name, found in taking.items()]
        chart = histogram(
            [(condition, values) for condition, values in offsets if values],
            title="floor-transfer offsets",
            low=-2000,
            high=2000,
            width_of_bin=200,
            x_title="floor-transfer offset in ms: negative is overlap, positive a gap (bins of 200 ms)",
        )
        counts = ", ".join(f"{len(values)} {LABELS[condition].lower()}" for condition, values in offsets)
        blocks.append(plot(f"Floor-transfer offsets ({counts})", chart))
    if voices := voices_over_turns(report.details.get("character", {}), CONDITIONS):
        blocks.append(f"<h3>Similarity of each voice to its mean voice, turn by turn</h3>{voices}")
    return LEGEND + "".join(blocks) if blocks else ""
