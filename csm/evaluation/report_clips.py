"""The parts of the page that one listens to: lines and dialogues, each version beside the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.intelligibility import aligned_words
from csm.evaluation.speech_folder import CONDITIONS, Dialogue, SpeechFolder, Utterance, read_channels
from csm.evaluation.table import number
from csm.report.charts import timeline
from csm.report.media import Sound, sound_of, spectrogram
from csm.report.players import player

LABELS = {"recording": "Recording", "resynthesis": "Resynthesis", "generated": "Generated"}
CHIPS = (("speaker_similarity", "voice"), ("distillmos", "distillMOS"), ("dnsmos", "DNSMOS"))


@dataclass(frozen=True, kw_only=True)
class ClipValues:
    """What the judges said of each clip: (metric, condition, clip id) -> value of the report."""

    values: Mapping[tuple[str, str, str], Mapping[str, Any]]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> ClipValues:
        """All values per clip of a report."""
        return cls(
            values={
                (entry["name"], entry["condition"], value["id"]): value
                for entry in report["metrics"]
                for value in entry["values"]
            }
        )

    def of_clip(self, metric: str, condition: str, clip: str) -> Mapping[str, Any] | None:
        """One value, or ``None`` where the metric does not cover the clip."""
        return self.values.get((metric, condition, clip))


def load_sound(path: Path, *, lossless: bool) -> Sound | None:
    """The file as FLAC, or as MP3 where space counts; ``None`` where it cannot be read.

    Its absence is already counted as a failure in every metric, so the page only leaves it out.
    """
    try:
        channels, sample_rate = read_channels(path)
    except ValueError:
        return None
    return sound_of(channels, sample_rate, lossless=lossless)


def load_picture(path: Path) -> str | None:
    """Spectrogram of a file; ``None`` where it cannot be read."""
    try:
        return spectrogram(*read_channels(path))
    except ValueError:
        return None


def marked(reference: str, heard: str) -> str:
    """What was heard: wrong and added words marked, missing words of the text struck through."""
    if not heard:
        return '<span class="soft">(nothing)</span>'
    try:
        result = aligned_words(reference, heard)
    except ImportError:
        return escape(heard)
    meant, got = result.references[0], result.hypotheses[0]
    parts = []
    for chunk in result.alignments[0]:
        missing = " ".join(meant[chunk.ref_start_idx : chunk.ref_end_idx])
        words = escape(" ".join(got[chunk.hyp_start_idx : chunk.hyp_end_idx]))
        if chunk.type == "equal":
            parts.append(words)
        elif chunk.type == "delete":
            parts.append(f"<s>{escape(missing)}</s>")
        else:
            parts.append(f'<u title="{escape(missing, quote=True) or "added"}">{words}</u>')
    return " ".join(parts)


def chips(values: ClipValues, condition: str, clip: str, shown: Sequence[tuple[str, str]] = CHIPS) -> str:
    """Word error rate and opinions of one clip, small; `shown` are further metrics and their names."""
    parts = []
    wer = values.of_clip("wer", condition, clip)
    if wer is not None:
        rate = "no WER" if wer["value"] is None else f"WER {100 * wer['value']:.0f} %"
        parts.append(f"<span{' class=bad' if wer['value'] is None else ''}>{rate}</span>")
    for metric, title in shown:
        found = values.of_clip(metric, condition, clip)
        if found is None:
            continue
        if found["value"] is None:
            reason = escape(str(found["reason"]), quote=True)
            parts.append(f'<span class="bad" title="{reason}">{title} failed</span>')
        else:
            nearest = (
                f' title="nearest voice: {escape(str(found["detail"]), quote=True)}"'
                if metric == CHIPS[0][0]
                else ""
            )
            parts.append(f"<span{nearest}>{title} {number(found['value'])}</span>")
    return f'<div class="chips">{"".join(parts)}</div>' if parts else ""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Makes the players of a run's speech folder."""

    folder: SpeechFolder
    values: ClipValues
    lossless: bool
    pictures: bool

    def path(self, audio: Mapping[str, str], condition: str) -> Path | None:
        """File of one version, where one was written."""
        return self.folder.root / audio[condition] if condition in audio else None

    def version(self, utterance: Utterance, condition: str, *, picture: bool) -> str:
        """One version of a clip: player, spectrogram, what was heard, opinions."""
        path = self.path(utterance.audio, condition)
        sound = load_sound(path, lossless=self.lossless) if path else None
        image = load_picture(path) if path and picture and self.pictures else None
        heard = self.values.of_clip("wer", condition, utterance.id)
        label = f"{LABELS[condition]}: {utterance.text}"
        return (
            f'<div class="version {condition}"><h4>{LABELS[condition]}</h4>'
            + player(sound, condition, label)
            + (f'<img alt="spectrogram" src="{image}">' if image else "")
            + (f'<p class="heard">{marked(utterance.text, heard["detail"] or "")}</p>' if heard else "")
            + chips(self.values, condition, utterance.id)
            + "</div>"
        )

    def versions(self, utterance: Utterance, *, picture: bool) -> str:
        """All versions of a clip side by side."""
        cells = "".join(self.version(utterance, condition, picture=picture) for condition in CONDITIONS)
        return f'<div class="versions">{cells}</div>'

    def line(self, line: Utterance) -> str:
        """One held-out line."""
        where = f"{escape(line.speaker)} &middot; {escape(line.conversation)} &middot; turn {line.turn}"
        return (
            f'<article class="item" id="{escape(line.id)}"><div class="who">{where}</div>'
            f'<p class="text">{escape(line.text)}</p>{self.versions(line, picture=True)}</article>'
        )

    def dialogue(self, dialogue: Dialogue, heard: Mapping[str, Mapping[str, Any]]) -> str:
        """One dialogue: both whole versions, who speaks when, and its turns to open."""
        sounds = []
        for condition in ("recording", "generated"):
            path = self.path(dialogue.audio, condition)
            sound = load_sound(path, lossless=self.lossless) if path else None
            label = "Recording, clips end to end" if condition == "recording" else LABELS[condition]
            name = f"{label}: {dialogue.id}"
            sounds.append(
                f'<div class="version {condition}"><h4>{label}</h4>{player(sound, condition, name)}</div>'
            )
        charts = []
        longest = max((shown["duration"] for shown in heard.values() if "duration" in shown), default=0.0)
        for condition, shown in heard.items():
            if "units" in shown and longest:
                names = [*dialogue.speakers, *("voice" for _ in shown["units"])]
                lanes = [(names[place], units, condition) for place, units in enumerate(shown["units"])]
                charts.append(timeline(lanes, longest, title=f"speech of {dialogue.id}, {condition}"))
        turns = "".join(
            f'<div class="turn"><div class="who">{escape(turn.speaker)}</div>'
            f'<p class="text">{escape(turn.text)}</p>{self.versions(turn, picture=False)}</div>'
            for turn in dialogue.turns
        )
        return (
            f'<article class="item"><div class="who">{escape(" and ".join(dialogue.speakers))}</div>'
            f'<div class="stereo">{"".join(sounds)}</div>{"".join(charts)}'
            f"<details open><summary>{len(dialogue.turns)} turns</summary>{turns}</details></article>"
        )


def total_audio_bytes(folder: SpeechFolder) -> int:
    """Size of all audio files that the page would carry."""
    names: list[str] = []
    spoken: Sequence[Utterance | Dialogue] = [*folder.lines, *folder.turns, *folder.dialogues]
    for item in spoken:
        names += item.audio.values()
    exists: Callable[[Path], bool] = Path.is_file
    return sum((folder.root / name).stat().st_size for name in names if exists(folder.root / name))
