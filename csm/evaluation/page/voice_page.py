"""The page of a voice: tables, and lines to listen to, every condition beside the recording."""

from __future__ import annotations

from html import escape
from pathlib import Path

from csm.evaluation.core.clips import ClipSet
from csm.evaluation.core.report import Report
from csm.evaluation.page.definitions import definitions, footer
from csm.evaluation.page.figures import failures, table_html
from csm.evaluation.page.gallery import CHIPS, NOTE, ConditionLook, Gallery, first_clips
from csm.evaluation.page.run_tables import LABELS
from csm.evaluation.page.voice_tables import BESIDE, CONVERSATION_TITLE, TITLES, voice_tables
from csm.evaluation.page.voices_over_turns import voices_over_turns
from csm.evaluation.subjects.voice import EvaluatedVoice
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN
from csm.report.page import page_text, save_page

HEADINGS = {
    MAIN: "Listen: the main voice",
    OTHERS: "Listen: other voices",
    UNSEEN: "Listen: unseen speakers",
    CONVERSATION: "Listen: the conversation",
}
LOOKS = {name: ConditionLook(title=LABELS[name], tone=name) for name in BESIDE}
LOOKS |= {name: ConditionLook(title=title.capitalize(), tone="generated") for name, title in TITLES.items()}


def write_voice_page(folder: Path, evaluated: EvaluatedVoice, players: int) -> Path:
    """Writes report.html into the folder and returns its path.

    Args:
        folder: Folder of the evaluation.
        evaluated: The report and its clips.
        players: Most lines of a group with a player; the conversation has all its turns.
    """
    report = evaluated.report
    counts = {group: None if group == CONVERSATION else players for group in HEADINGS}
    shown = {group: _shown(evaluated, group, count) for group, count in counts.items()}
    gallery = Gallery.of(report, [one for sets in shown.values() for one in sets], LOOKS, CHIPS[:2])
    parts = [
        (f"table_{place}", escape(table.title), table_html(table) + _extra(table.title, report))
        for place, table in enumerate(voice_tables(report))
    ]
    parts += [
        (group.split()[0], HEADINGS[group], _listen(gallery, evaluated, group, sets))
        for group, sets in shown.items()
    ]
    parts.append(("evaluators", "Evaluators", definitions(report, failures(report, TITLES))))
    title = f"Voice report: {escape(report.run)}"
    return save_page(folder, page_text(title, _summary(report), parts, footer(report)))


def _summary(report: Report) -> str:
    voice = report.details["voice"]
    counts = ", ".join(f"{count} of {group}" for group, count in voice["lines"].items() if count)
    corpus = f" Lines of {escape(report.corpus)}." if report.corpus else ""
    return (
        f"{voice['voices']} voices, {voice['parameters'] / 1e6:.1f} million parameters.{corpus} Held-out "
        f"lines, as recorded, through the tokenizer and back, and generated from their text: "
        f"{escape(counts)}. The same evaluators scored all of them in one run. Where a recording itself "
        f"scores low, compare with it."
    )


def _extra(title: str, report: Report) -> str:
    """Below the table of the conversation: its similarity turn by turn."""
    if title != CONVERSATION_TITLE:
        return ""
    return voices_over_turns(report.details.get("character", {}), BESIDE)


def _shown(evaluated: EvaluatedVoice, group: str, count: int | None) -> list[ClipSet]:
    sets = [one for one in evaluated.sets if one.group == group]
    return sets if count is None else first_clips(sets, count)


def _listen(gallery: Gallery, evaluated: EvaluatedVoice, group: str, sets: list[ClipSet]) -> str:
    """The first lines of a group; empty where the group has none."""
    if not sets or not sets[0].clips:
        return ""
    whole = evaluated.sets.recording_of(sets[0])
    assert whole is not None
    note = f'<p class="note">{len(sets[0].clips)} of {len(whole.clips)} lines. {NOTE}.</p>'
    beside = [one for one in sets if one.condition in BESIDE]
    more = [one for one in sets if one.condition not in BESIDE]
    cards = []
    for place, clip in enumerate(sets[0].clips):
        turns = evaluated.prompts.get(clip.speaker, ())
        prompt = "Prompt: " + " ".join(turn.text.strip() for turn in turns) if turns else ""
        cards.append(gallery.card(beside, place, more=more, note=prompt))
    return note + "".join(cards)
