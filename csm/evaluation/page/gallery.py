"""Clips on the page: every condition of a clip beside the others, with its transcript and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from csm.evaluation.core.clips import Clip, ClipSet
from csm.evaluation.core.metric import Score
from csm.evaluation.core.report import Report
from csm.evaluation.metrics.words import aligned_words
from csm.report.media import PAGE_AUDIO_BYTES, Sound, sound_of, spectrogram
from csm.report.numbers import number
from csm.report.players import Chip, Version, WordSpan, clip_card, word_differences

WAV_BYTES = 2  # for each sample of 16-bit speech
NOTE = "Under each player: the transcript, wrong or added words marked, missing words struck through"
CHIPS = (("speaker_similarity", "voice"), ("distillmos", "distillMOS"), ("dnsmos", "DNSMOS"))


@dataclass(frozen=True, kw_only=True)
class ConditionLook:
    """How a condition is shown: its title and the class of its colour."""

    title: str
    tone: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Makes the players of clip sets.

    Attributes:
        scores: Scores of the report by (metric, condition, clip).
        looks: How conditions are shown.
        lossless: Whether audio is WAV; MP3 where the page would be too large.
        chips: Metrics shown below a player, with their short names.
    """

    scores: Mapping[tuple[str, str, str], Score]
    looks: Mapping[str, ConditionLook]
    lossless: bool
    chips: Sequence[tuple[str, str]] = CHIPS

    @classmethod
    def of(
        cls,
        report: Report,
        sets: Sequence[ClipSet],
        looks: Mapping[str, ConditionLook],
        chips: Sequence[tuple[str, str]] = CHIPS,
    ) -> Gallery:
        """Makes a gallery for the clips of `sets`."""
        scores = {(e.name, e.condition, s.clip): s for e in report.metrics for s in e.values}
        samples = sum(0 if c.waveform is None else c.waveform.size for one in sets for c in one.clips)
        lossless = samples * WAV_BYTES < PAGE_AUDIO_BYTES
        return cls(scores=scores, looks=looks, lossless=lossless, chips=chips)

    def card(
        self,
        sets: Sequence[ClipSet],
        place: int,
        *,
        more: Sequence[ClipSet] = (),
        pictures: bool = False,
        note: str = "",
        below: str = "",
    ) -> str:
        """Writes one clip in several conditions.

        Args:
            sets: Conditions side by side. place: Place of the clip in each.
            more: Further conditions, folded away.
            pictures: Whether to show spectrograms.
            note: Small line below the text. below: HTML below the players.
        """
        clip = sets[0].clips[place]
        parts = [clip.speaker, clip.conversation if clip.conversation != clip.id else ""]
        return clip_card(
            self.versions(sets, place, pictures=pictures),
            anchor=clip.id,
            source=", ".join(part for part in parts if part) or clip.id,
            text=clip.text,
            more=self.versions(more, place),
            note=note,
            below=below,
        )

    def versions(self, sets: Sequence[ClipSet], place: int, *, pictures: bool = False) -> list[Version]:
        """Makes the players of one clip, a condition each."""
        return [self._version(one.condition, one.clips[place], pictures) for one in sets]

    def _version(self, condition: str, clip: Clip, pictures: bool) -> Version:
        look = self.looks[condition]
        transcript = self.scores.get(("wer", condition, clip.id))
        channels = None if clip.waveform is None or not clip.waveform.size else np.atleast_2d(clip.waveform)
        sound: Sound | None = None
        picture = None
        if channels is not None:
            sound = sound_of(channels, clip.sample_rate, lossless=self.lossless)
            picture = spectrogram(channels, clip.sample_rate) if pictures else None
        return Version(
            title=look.title,
            tone=look.tone,
            sound=sound,
            picture=picture,
            transcript=marked(clip.text, transcript.detail or "") if transcript else "",
            chips=self._chips(condition, clip.id),
            missing=clip.reason or "no audio",
        )

    def _chips(self, condition: str, clip: str) -> list[Chip]:
        shown = []
        wer = self.scores.get(("wer", condition, clip))
        if wer is not None:
            text = "no WER" if wer.value is None else f"WER {100 * wer.value:.0f} %"
            shown.append(Chip(text=text, bad=wer.value is None))
        for metric, title in self.chips:
            score = self.scores.get((metric, condition, clip))
            if score is None:
                continue
            if score.value is None:
                shown.append(Chip(text=f"{title} failed", title=str(score.reason), bad=True))
            else:
                nearest = f"nearest voice: {score.detail}" if metric == "speaker_similarity" else ""
                shown.append(Chip(text=f"{title} {number(score.value)}", title=nearest))
        return shown


def first_clips(sets: Sequence[ClipSet], count: int) -> list[ClipSet]:
    """Returns the sets with at most `count` clips each."""
    return [
        ClipSet(group=one.group, condition=one.condition, clips=one.clips[:count], kind=one.kind)
        for one in sets
    ]


def marked(reference: str, transcript: str) -> str:
    """Writes a transcript as HTML: wrong and added words marked, missing words struck through."""
    if not transcript:
        return word_differences([])
    try:
        aligned = aligned_words(reference, transcript)
    except ImportError:
        return escape(transcript)
    expected, recognised = aligned.references[0], aligned.hypotheses[0]
    return word_differences(
        [
            WordSpan(
                kind=chunk.type,
                expected=" ".join(expected[chunk.ref_start_idx : chunk.ref_end_idx]),
                recognised=" ".join(recognised[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            )
            for chunk in aligned.alignments[0]
        ]
    )
