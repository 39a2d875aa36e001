"""Makes conversations of recordings without transcripts: who speaks when, and what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from csm.audio.files import AudioInfo, read_audio
from csm.data.corpora.layouts.source import SourceConversation, SourceTurn, UntimedText, Untranscribed
from csm.data.corpora.layouts.tree import Tree
from csm.data.corpora.segmentation import (
    SegmentationConfig,
    detect_speech,
    join_turns,
    leak_line,
    merge_units,
)
from csm.data.corpora.transcription.diarisation import diarise
from csm.data.corpora.transcription.placing import place_in_turns
from csm.data.corpora.transcription.recogniser import RATE, WordRecogniser
from csm.data.corpora.transcription.speaker_activity import ActivityDetector
from csm.data.corpora.transcription.speaker_windows import SpeakerWindows
from csm.data.manifest import Segment
from csm.data.word_times import Word

ROUNDING = 0.05  # seconds that a stated turn may end after its recording
NO_SPEAKER = 0.8  # mean probability above which a section has no speaker: music, noise, strange sounds
LOUDNESS_STEP = 0.05  # seconds: where a piece without a pause is cut at its quietest moment


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Speech of one speaker; `overlap` where another one speaks too."""

    segment: Segment
    overlap: bool = False


class RecordingTranscriber:
    """Finds turns and words of recordings.

    Args:
        recogniser: Words of speech.
        speakers: Number of speakers of a recording of one channel; None finds it.
        longest_turn: Longest turn in seconds; longer ones are cut at pauses.
    """

    def __init__(
        self, recogniser: WordRecogniser, *, speakers: int | None = None, longest_turn: float = 30.0
    ) -> None:
        if speakers is not None and speakers < 1:
            raise ValueError(f"--speakers is {speakers}: expected 1 or more")
        if not 2 <= longest_turn <= 30:
            raise ValueError(f"--longest-turn is {longest_turn}: expected 2 to 30 seconds")
        self.recogniser, self.speakers, self.longest_turn = recogniser, speakers, longest_turn
        self._windows: SpeakerWindows | None = None
        self._activity: ActivityDetector | None = None

    def __call__(
        self, recording: Untranscribed, path: Path, info: AudioInfo, tree: Tree
    ) -> SourceConversation:
        """Returns the conversation of a recording; sections without a speaker go to the tree's ledger.

        Raises:
            ValueError: No speech is detected, or the names, spans or texts do not fit.
        """
        turns = self._stated(recording, path, info, tree) or self._found(recording, path, info, tree)
        words = self._words(path, info, turns)
        if recording.texts:
            words = self._placed(recording.texts, turns, words)
        return SourceConversation(
            id=recording.id,
            timeline=True,
            turns=[
                SourceTurn(
                    speaker=piece.segment.speaker,
                    text=" ".join(word.text for word in spoken),
                    audio=recording.audio,
                    start=piece.segment.start,
                    end=piece.segment.end,
                    channel=piece.segment.channel,
                    emotion=recording.emotion,
                    words=spoken,
                    overlap=piece.overlap,
                )
                for piece, spoken in zip(turns, words, strict=True)
            ],
        )

    def _stated(self, recording: Untranscribed, path: Path, info: AudioInfo, tree: Tree) -> list[Piece]:
        """Returns the turns that the source states; those outside the recording go to the ledger."""
        pieces: list[Piece] = []
        for span in recording.spans:
            if span.channel < info.channels and span.start < span.end <= info.duration + ROUNDING:
                end = min(span.end, info.duration)
                pieces += self._short(path, Piece(segment=replace(span, end=end)))
            else:
                where = f"{recording.id}, {span.speaker} at {span.start:.2f} s"
                size = f"{info.duration:.2f} s and {info.channels} channels"
                reason = f"channel {span.channel} to {span.end:.2f} s is outside the recording of {size}"
                tree.reject_turn(where, reason, span.duration)
        if recording.spans and not pieces:
            raise ValueError("none of the turns that are stated lies inside it: expected those of this file")
        return sorted(pieces, key=lambda piece: (piece.segment.start, piece.segment.end))

    def _found(self, recording: Untranscribed, path: Path, info: AudioInfo, tree: Tree) -> list[Piece]:
        """Returns the turns that are detected."""
        detected, leaks = detect_speech(path, info, _names(recording, info.channels))
        for leak in leaks:
            tree.reject_turn(f"{recording.id}, channel {leak.channel}", leak_line(leak), leak.seconds)
        if not detected:
            raise ValueError("no speech was detected")
        if info.channels == 1 and self.speakers != 1 and len(recording.speakers) != 1:
            pieces = self._diarised(recording, path, detected, tree)
        else:
            pieces = [Piece(segment=segment) for segment in detected]
        return self._joined([part for piece in pieces for part in self._short(path, piece)])

    def _diarised(
        self, recording: Untranscribed, path: Path, regions: list[Segment], tree: Tree
    ) -> list[Piece]:
        self._windows = self._windows or SpeakerWindows()
        self._activity = self._activity or ActivityDetector()
        activity = self._activity(regions, partial(_clip, path, channel=0))
        spoken: list[Segment] = []
        sounds: list[Segment] = []
        for region in regions:
            inactive = activity.mean_no_speaker(region.start, region.end) > NO_SPEAKER
            (sounds if inactive else spoken).append(region)
        if not spoken:
            raise ValueError("no speech was detected: no speaker is active in what sounds like it")
        for sound in sounds:
            tree.reject_turn(
                f"{recording.id}, {sound.start:.2f} to {sound.end:.2f} s",
                f"no speaker is active in {sound.duration:.2f} s of sound that was detected as speech",
                sound.duration,
            )
        windows = self._windows.embed(spoken, (_clip(path, r.start, r.end, 0) for r in spoken))
        speakers = _speakers_of(recording)
        pieces = []
        for part in diarise(spoken, windows, self.speakers, activity.overlaps()):
            name = (
                speakers[part.speaker] if part.speaker < len(speakers) else f"{recording.id}-{part.speaker}"
            )
            segment = Segment(speaker=name, start=part.start, end=part.end)
            pieces.append(Piece(segment=segment, overlap=part.overlap))
        return pieces

    def _short(self, path: Path, piece: Piece) -> Iterator[Piece]:
        """Cuts a piece that is longer than a turn may be at its quietest moments."""
        segment = piece.segment
        if segment.duration <= self.longest_turn:
            yield piece
            return
        first, last = segment.start + self.longest_turn / 2, segment.start + self.longest_turn
        step = round(LOUDNESS_STEP * RATE)
        clip = _clip(path, first, min(last, segment.end), segment.channel)
        loudness = (clip[: len(clip) // step * step].reshape(-1, step) ** 2).mean(1)
        cut = first + (int(loudness.argmin()) + 0.5) * LOUDNESS_STEP
        yield replace(piece, segment=replace(segment, end=cut))
        yield from self._short(path, replace(piece, segment=replace(segment, start=cut)))

    def _joined(self, pieces: list[Piece]) -> list[Piece]:
        """Joins pieces of one speaker into turns, not over overlapped ones, which stay alone."""
        turns: list[Piece] = []
        plain: list[Segment] = []
        for piece in sorted(pieces, key=lambda piece: (piece.segment.start, piece.segment.end)):
            if piece.overlap:
                turns += [*self._turns(plain), piece]
                plain = []
            else:
                plain.append(piece.segment)
        turns += self._turns(plain)
        return sorted(turns, key=lambda piece: (piece.segment.start, piece.segment.end))

    def _turns(self, plain: list[Segment]) -> list[Piece]:
        config = SegmentationConfig(longest_turn=self.longest_turn)
        units: list[Segment] = []
        for unit in merge_units(plain, config.merge_gap):
            inside = [s for s in plain if s.start >= unit.start and s.end <= unit.end and _same(s, unit)]
            units += [unit] if unit.duration <= self.longest_turn else inside
        return [Piece(segment=segment) for segment in join_turns(units, config)]

    def _words(self, path: Path, info: AudioInfo, turns: list[Piece]) -> list[tuple[Word, ...]]:
        found: list[tuple[Word, ...]] = [()] * len(turns)
        for channel in range(info.channels):
            own = [index for index, piece in enumerate(turns) if piece.segment.channel == channel]

            def read(start: float, end: float, channel: int = channel) -> np.ndarray:
                return _clip(path, start, min(end, info.duration), channel)

            words = self.recogniser.words([turns[index].segment for index in own], read)
            for index, spoken in zip(own, words, strict=True):
                found[index] = spoken
        return found

    def _placed(
        self,
        texts: Sequence[UntimedText],
        turns: list[Piece],
        words: list[tuple[Word, ...]],
    ) -> list[tuple[Word, ...]]:
        """Puts the words of the user's texts into the turns, each channel's texts into its own."""
        found: list[list[Word]] = [[] for _ in turns]
        channels = {text.channel for text in texts}
        for channel in sorted(channels, key=lambda c: -1 if c is None else c):
            own = [i for i, t in enumerate(turns) if channel is None or t.segment.channel == channel]
            known = [word for text in texts if text.channel == channel for word in text.text.split()]
            spans = [(turns[i].segment.start, turns[i].segment.end) for i in own]
            placed = place_in_turns(known, spans, [words[i] for i in own])
            for i, spoken in zip(own, placed, strict=True):
                found[i] += spoken
        return [tuple(spoken) for spoken in found]


def _same(first: Segment, second: Segment) -> bool:
    return (first.speaker, first.channel) == (second.speaker, second.channel)


def _names(recording: Untranscribed, channels: int) -> list[str]:
    if recording.speakers and len(recording.speakers) == channels:
        return list(recording.speakers)
    if recording.speakers and channels > 1:
        raise ValueError(f"has {channels} channels and {len(recording.speakers)} speakers: expected as many")
    named = {text.channel: text.speaker for text in recording.texts if text.speaker}
    return [str(named.get(channel) or f"{recording.id}-{channel}") for channel in range(channels)]


def _speakers_of(recording: Untranscribed) -> list[str]:
    """Returns the names of speakers in the order in which they speak, as far as they are known."""
    return list(dict.fromkeys(text.speaker for text in recording.texts if text.speaker)) or list(
        recording.speakers
    )


def _clip(path: Path, start: float, end: float, channel: int) -> np.ndarray:
    return read_audio(path, sample_rate=RATE, start=start, end=end, channel=channel)[0].numpy()
