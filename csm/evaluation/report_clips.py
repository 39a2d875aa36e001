"""Clips and dialogues of a run on the page: every condition of a clip beside the others, with its scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from csm.evaluation.intelligibility import aligned_words
from csm.evaluation.speech_folder import CONDITIONS, Dialogue, SpeechFolder, Utterance, read_channels
from csm.report.charts import timeline
from csm.report.media import Sound, sound_of, spectrogram
from csm.report.numbers import number
from csm.report.players import Chip, Version, WordSpan, chip_row, clip_card, turn_list, word_differences

LABELS = {"recording": "Recording", "resynthesis": "Resynthesis", "generated": "Generated"}
CHIPS = (("speaker_similarity", "voice"), ("distillmos", "distillMOS"), ("dnsmos", "DNSMOS"))


@dataclass(frozen=True, kw_only=True)
class ClipValues:
    """Scores of each clip.

    Attributes:
        values: Value of the report by (metric, condition, clip id).
    """

    values: Mapping[tuple[str, str, str], Mapping[str, Any]]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> ClipValues:
        """Returns all values per clip of a report."""
        return cls(
            values={
                (entry["name"], entry["condition"], value["id"]): value
                for entry in report["metrics"]
                for value in entry["values"]
            }
        )

    def of_clip(self, metric: str, condition: str, clip: str) -> Mapping[str, Any] | None:
        """Returns one value; None where the metric does not cover the clip."""
        return self.values.get((metric, condition, clip))


def load_sound(path: Path, *, lossless: bool) -> Sound | None:
    """Returns a file as WAV, or as MP3 where size matters; None where it cannot be read.

    The page only leaves an unreadable file out: every metric counts it as a failure.
    """
    try:
        channels, sample_rate = read_channels(path)
    except ValueError:
        return None
    return sound_of(channels, sample_rate, lossless=lossless)


def load_picture(path: Path) -> str | None:
    """Returns the spectrogram of a file; None where it cannot be read."""
    try:
        return spectrogram(*read_channels(path))
    except ValueError:
        return None


def marked(reference: str, recognised: str) -> str:
    """Returns a transcript as HTML: wrong and added words marked, missing words struck through."""
    if not recognised:
        return word_differences([])
    try:
        result = aligned_words(reference, recognised)
    except ImportError:
        return escape(recognised)
    expected, found = result.references[0], result.hypotheses[0]
    return word_differences(
        [
            WordSpan(
                kind=chunk.type,
                expected=" ".join(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
                recognised=" ".join(found[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            )
            for chunk in result.alignments[0]
        ]
    )


def clip_chips(
    values: ClipValues, condition: str, clip: str, shown: Sequence[tuple[str, str]] = CHIPS
) -> list[Chip]:
    """Returns the word error rate and further scores of one clip; `shown` are metrics and their names."""
    chips = []
    if wer := values.of_clip("wer", condition, clip):
        lost = wer["value"] is None
        chips.append(Chip(text="no WER" if lost else f"WER {100 * wer['value']:.0f} %", bad=lost))
    for metric, title in shown:
        found = values.of_clip(metric, condition, clip)
        if found is None:
            continue
        if found["value"] is None:
            chips.append(Chip(text=f"{title} failed", title=str(found["reason"]), bad=True))
        else:
            nearest = f"nearest voice: {found['detail']}" if metric == CHIPS[0][0] else ""
            chips.append(Chip(text=f"{title} {number(found['value'])}", title=nearest))
    return chips


def chips(values: ClipValues, condition: str, clip: str, shown: Sequence[tuple[str, str]] = CHIPS) -> str:
    """Returns `clip_chips` as HTML."""
    return chip_row(clip_chips(values, condition, clip, shown))


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Clips and dialogues of a run's speech folder.

    Attributes:
        folder: Lines and dialogues with their files.
        values: Scores of the clips.
        lossless: Whether audio is stored as WAV; otherwise as MP3.
        pictures: Whether lines have spectrograms.
    """

    folder: SpeechFolder
    values: ClipValues
    lossless: bool
    pictures: bool

    def line(self, line: Utterance) -> str:
        """Returns one held-out line."""
        return clip_card(
            self._versions(line, picture=self.pictures),
            anchor=line.id,
            source=f"{line.speaker}, {line.conversation}, turn {line.turn}",
            text=line.text,
        )

    def dialogue(self, dialogue: Dialogue, shown: Mapping[str, Mapping[str, Any]]) -> str:
        """Returns one dialogue: both whole versions, who speaks when, and its turns.

        Args:
            dialogue: The dialogue.
            shown: Speech units of each condition, from the report's details.
        """
        turns = [(turn.speaker, turn.text, self._versions(turn, picture=False)) for turn in dialogue.turns]
        return clip_card(
            [self._whole(dialogue, condition) for condition in ("recording", "generated")],
            anchor=dialogue.id,
            source=f"{' and '.join(dialogue.speakers)}, {dialogue.id}",
            text="",
            below=_timelines(dialogue, shown) + turn_list(turns),
        )

    def _versions(self, utterance: Utterance, *, picture: bool) -> list[Version]:
        return [self._version(utterance, condition, picture) for condition in CONDITIONS]

    def _version(self, utterance: Utterance, condition: str, picture: bool) -> Version:
        path = self._path(utterance.audio, condition)
        words = self.values.of_clip("wer", condition, utterance.id)
        return Version(
            title=LABELS[condition],
            tone=condition,
            sound=load_sound(path, lossless=self.lossless) if path else None,
            picture=load_picture(path) if path and picture else None,
            transcript=marked(utterance.text, words["detail"] or "") if words else "",
            chips=clip_chips(self.values, condition, utterance.id),
        )

    def _whole(self, dialogue: Dialogue, condition: str) -> Version:
        path = self._path(dialogue.audio, condition)
        return Version(
            title="Recording, clips end to end" if condition == "recording" else LABELS[condition],
            tone=condition,
            sound=load_sound(path, lossless=self.lossless) if path else None,
        )

    def _path(self, audio: Mapping[str, str], condition: str) -> Path | None:
        return self.folder.root / audio[condition] if condition in audio else None


def total_audio_bytes(folder: SpeechFolder) -> int:
    """Returns the size of all audio files that the page would carry."""
    names: list[str] = []
    spoken: Sequence[Utterance | Dialogue] = [*folder.lines, *folder.turns, *folder.dialogues]
    for item in spoken:
        names += item.audio.values()
    exists: Callable[[Path], bool] = Path.is_file
    return sum((folder.root / name).stat().st_size for name in names if exists(folder.root / name))


def _timelines(dialogue: Dialogue, shown: Mapping[str, Mapping[str, Any]]) -> str:
    longest = max((one["duration"] for one in shown.values() if "duration" in one), default=0.0)
    charts = []
    for condition in LABELS:
        one = shown.get(condition, {})
        if "units" in one and longest:
            names = [*dialogue.speakers, *("voice" for _ in one["units"])]
            lanes = [(names[place], units, condition) for place, units in enumerate(one["units"])]
            charts.append(timeline(lanes, longest, title=f"{LABELS[condition]}: who speaks when"))
    return "".join(charts)
