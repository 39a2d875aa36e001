"""The page of a voice's report: tables, and the lines to listen to, every version beside the recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.judge import Clip
from csm.evaluation.report_clips import CHIPS, LABELS, ClipValues, chips, marked
from csm.evaluation.report_tables import judges
from csm.evaluation.suite import save_report
from csm.evaluation.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN
from csm.evaluation.voice_material import RECORDING, RESYNTHESIS, ClipSet, VoiceMaterial
from csm.evaluation.voice_report import JudgedVoice
from csm.evaluation.voice_speech import GENERATED
from csm.evaluation.voice_tables import TITLES, failures, tables_html, voice_tables
from csm.report.charts import Series, line_chart
from csm.report.media import PAGE_AUDIO_BYTES, sound_of
from csm.report.page import page_text, save_page
from csm.report.players import player

_SHOWN_BESIDE = (RECORDING, RESYNTHESIS, GENERATED)
_BYTES_PER_SAMPLE = 1.2  # of FLAC of 16-bit speech: 0.6 of WAV


def write_voice_page(folder: Path, judged: JudgedVoice, players: int) -> Path:
    """Writes ``report.json`` and ``report.html`` into the folder, which is made; returns the page's path.

    Args:
        folder: Of the evaluation.
        judged: The report and its clips.
        players: Most lines of a group that can be heard; the conversation is there whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, material = judged
    save_report(folder, report)
    lossless = _audio_bytes(material, players) < PAGE_AUDIO_BYTES
    gallery = _Gallery(material, ClipValues.of(report), lossless)
    parts = [
        (f"table_{place}", escape(table.title), tables_html([table]) + _extra(table.title, report))
        for place, table in enumerate(voice_tables(report))
    ]
    for group, heading in (
        (MAIN, "Listen: the main voice"),
        (OTHERS, "Listen: other voices"),
        (UNSEEN, "Listen: unseen speakers"),
        (CONVERSATION, "Listen: the conversation"),
    ):
        count = None if group == CONVERSATION else players
        parts.append((group.split()[0], heading, gallery.group(group, count)))
    parts.append(("judges", "Judges", _failed(report) + judges(report, pictures=True)))
    footer = (
        f"Seed {report['seed']}, schema {report['schema_version']}. Judges ran on "
        f"{escape(report['hardware'])}. The figures are in report.json."
    )
    title = f"Voice report: {escape(str(report['run']))}"
    return save_page(folder, page_text(title, _summary(report), parts, footer))


def _summary(report: Mapping[str, Any]) -> str:
    voice = report["details"]["voice"]
    counts = ", ".join(f"{count} of {group}" for group, count in voice["lines"].items() if count)
    corpus = f" Lines of {escape(str(report['corpus']))}." if report["corpus"] else ""
    return (
        f"{voice['voices']} voices, {voice['parameters'] / 1e6:.1f} million parameters.{corpus} Held-out "
        f"lines, as they were recorded, through the tokenizer and back, and generated from their text: "
        f"{escape(counts)}. The same judges heard all of them in one run. Where a recording itself scores "
        f"low, read the difference from it."
    )


def _extra(title: str, report: Mapping[str, Any]) -> str:
    """Below the table of the conversation: its similarity turn by turn."""
    character = report["details"].get("character", {})
    series = [
        Series(label=version, points=[(turn + 1, value) for turn, value in points], style=version, dots=True)
        for version, points in character.items()
        if points
    ]
    if title != "A conversation" or not series:
        return ""
    chart = line_chart(
        series,
        title="similarity of the main voice over the turns of the conversation",
        x_title="turn",
        y_title="cosine",
        whole_x=True,
    )
    legend = "".join(f'<span class="{one.style}"><i></i>{escape(one.label)}</span>' for one in series)
    return f'<div class="plot wide"><div class="legend">{legend}</div>{chart}</div>'


def _failed(report: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in failures(report))
    return f'<h3>Failed</h3><ul class="plain">{items}</ul>' if items else ""


def _audio_bytes(material: VoiceMaterial, players: int) -> float:
    samples = 0
    for one in material.sets:
        shown = one.clips if one.group == CONVERSATION else one.clips[:players]
        samples += sum(0 if clip.waveform is None else len(clip.waveform) for clip in shown)
    return samples * _BYTES_PER_SAMPLE


class _Gallery:
    """Makes the players."""

    def __init__(self, material: VoiceMaterial, values: ClipValues, lossless: bool) -> None:
        self.material, self.values, self.lossless = material, values, lossless

    def group(self, group: str, count: int | None) -> str:
        """The first lines of a group; empty where the group has none."""
        sets = [one for one in self.material.sets if one.group == group]
        if not sets:
            return ""
        whole = len(sets[0].clips)
        lines = range(whole if count is None else min(count, whole))
        note = (
            f'<p class="note">{len(lines)} of {whole} lines. Under each player: what the recogniser heard, '
            "wrong or added words marked, missing words struck through.</p>"
        )
        return note + "".join(self._line(sets, place) for place in lines) if lines else ""

    def _line(self, sets: Sequence[ClipSet], place: int) -> str:
        clip = sets[0].clips[place]
        beside = "".join(self._version(one, place) for one in sets if one.version in _SHOWN_BESIDE)
        others = "".join(self._version(one, place) for one in sets if one.version not in _SHOWN_BESIDE)
        if others:
            others = (
                f'<details><summary>other versions</summary><div class="versions">{others}</div></details>'
            )
        prompt = ""
        if turns := self.material.prompts.get(clip.speaker):
            words = " ".join(turn.text.strip() for turn in turns)
            prompt = f'<p class="soft">Prompt: {escape(words)}</p>'
        return (
            f'<article class="item" id="{escape(clip.id, quote=True)}"><div class="who">'
            f"{escape(clip.speaker)} &middot; {escape(clip.conversation)}</div>"
            f'<p class="text">{escape(clip.text)}</p>{prompt}'
            f'<div class="versions">{beside}</div>{others}</article>'
        )

    def _version(self, one: ClipSet, place: int) -> str:
        clip = one.clips[place]
        style = one.version if one.version in _SHOWN_BESIDE else GENERATED
        title = LABELS.get(one.version) or TITLES.get(one.version, one.version).capitalize()
        heard = self.values.of_clip("wer", one.version, clip.id)
        words = f'<p class="heard">{marked(clip.text, heard["detail"] or "")}</p>' if heard else ""
        return (
            f'<div class="version {style}"><h4>{escape(title)}</h4>'
            + self._player(clip, style, f"{title}: {clip.text}")
            + words
            + chips(self.values, one.version, clip.id, CHIPS[:2])
            + "</div>"
        )

    def _player(self, clip: Clip, style: str, label: str) -> str:
        if clip.waveform is None:
            return f'<p class="soft">{escape(clip.reason or "no audio")}</p>'
        sound = sound_of(clip.waveform[None], clip.sample_rate, lossless=self.lossless)
        return player(sound, style, label)
