"""Words with their times by faster-whisper: pieces of speech are packed into windows of half a minute."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from csm.data.manifest import Segment
from csm.data.recogniser_models import recogniser_model
from csm.data.word_times import Word
from csm.system.extras import missing_package

RATE = 16_000
PACK_S, GAP_S = 28.0, 0.6  # Whisper's window is 30 s; silence between pieces keeps their words apart

ReadClip = Callable[[float, float], np.ndarray]  # (start, end) in seconds -> waveform [S] at 16 kHz


class WordRecogniser:
    """faster-whisper with word times: beam 5, temperature 0, no conditioning between windows.

    Args:
        model: See `recogniser_model`; None is tiny.en.
        language: Language of the speech.

    Raises:
        ValueError: The package or the model is missing.
    """

    def __init__(self, model: str | None = None, language: str = "en") -> None:
        try:
            library: Any = importlib.import_module("faster_whisper")
        except ImportError as error:
            raise ValueError(missing_package("faster-whisper", "--transcribe")) from error
        source, self.name = recogniser_model(model, "--transcribe")
        try:
            self._model = library.WhisperModel(source, device="cpu", compute_type="int8", cpu_threads=1)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"--asr is {source!r}: faster-whisper cannot load it ({error}); give a model name that is "
                "already on this machine, or a folder with model.bin"
            ) from error
        self.language = language

    def words(self, pieces: Sequence[Segment], read: ReadClip) -> list[tuple[Word, ...]]:
        """Returns the words of each piece, with their times in the recording.

        A piece in which no word is found among others is tried once more alone.

        Args:
            pieces: Intervals of speech of one channel, in order, each at most 30 s.
            read: Reads a part of that channel.
        """
        found: list[tuple[Word, ...]] = [()] * len(pieces)
        for pack in _packs(pieces):
            for index, words in self._pack(pieces, pack, read):
                found[index] = words
            for index in pack if len(pack) > 1 else []:
                if not found[index]:
                    found[index] = dict(self._pack(pieces, [index], read))[index]
        return found

    def _pack(
        self, pieces: Sequence[Segment], pack: list[int], read: ReadClip
    ) -> Iterator[tuple[int, tuple[Word, ...]]]:
        gap = np.zeros(round(GAP_S * RATE), np.float32)
        parts, starts, position = [gap], [], len(gap)
        for index in pack:
            clip = read(pieces[index].start, pieces[index].end)
            starts.append(position)
            parts += [clip, gap]
            position += len(clip) + len(gap)
        recognised = self._recognise(np.concatenate(parts))
        middles = np.array([(word.start + word.end) / 2 for word in recognised])
        edges = np.array([*((start - len(gap) / 2) / RATE for start in starts), np.inf])
        for number, index in enumerate(pack):
            moved = pieces[index].start - starts[number] / RATE
            inside = np.flatnonzero((middles >= edges[number]) & (middles < edges[number + 1]))
            yield index, tuple(_within(recognised[i], pieces[index], moved) for i in inside)

    def _recognise(self, clip: np.ndarray) -> list[Word]:
        segments, _ = self._model.transcribe(
            clip,
            language=self.language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            max_new_tokens=224,  # noise can make the decoder loop; half a minute of speech needs fewer
        )
        words = [word for segment in segments for word in segment.words or ()]
        return [Word(word.word.strip(), word.start, word.end) for word in words if word.word.strip()]


def _within(word: Word, piece: Segment, moved: float) -> Word:
    start = min(max(word.start + moved, piece.start), piece.end)
    return Word(word.text, start, min(max(word.end + moved, start), piece.end))


def _packs(pieces: Sequence[Segment]) -> Iterator[list[int]]:
    pack: list[int] = []
    length = GAP_S
    for index, piece in enumerate(pieces):
        if pack and length + piece.duration + GAP_S > PACK_S:
            yield pack
            pack, length = [], GAP_S
        pack.append(index)
        length += piece.duration + GAP_S
    if pack:
        yield pack
