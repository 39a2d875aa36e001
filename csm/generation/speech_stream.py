"""Speech as it is made: waveforms that can be stopped, finished at once or written to a file."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.data.audio import AtomicAudioWriter
from csm.generation.sentences import sentences
from csm.generation.session import Session
from csm.generation.streaming import Timing, stream_audio
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ


class Speech(NamedTuple):
    """What was generated.

    Attributes:
        waveform: float32 [1, S] on the CPU, full scale = 1, at the tokenizer's `sample_rate`.
        codes: int64 [K, T] that it was decoded from, pauses between sentences included.
    """

    waveform: Tensor
    codes: Tensor
    sample_rate: int


class SpeechStream(Iterator[Tensor]):
    """Waveforms [1, S] as they are made; `Talker.generate(stream=True)` returns it.

    Args:
        tokenizer: In eval mode; while the stream is open it serves nothing else.
        session, voice: Where and in which voice the text is spoken.
        text: Its pieces, which may still arrive while the sentences before them are spoken.
        pause: Frames of silence between sentences, codes [K] each.

    Attributes:
        session: The conversation, which keeps what was said.
        voice: Who speaks.
        sentence: What is being said, "" before the first.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        session: Session,
        voice: Voice,
        text: Iterable[str],
        *,
        pause: Sequence[Int[Tensor, " K"]],
    ) -> None:
        self.session, self.voice = session, voice
        self.sentence = ""
        self._sample_rate = tokenizer.config.sample_rate
        self._pause = pause
        self._codes: list[Int[Tensor, " K"]] = []
        self._turn: Generator[Tensor, None, None] | None = None
        self._chunks = stream_audio(
            tokenizer,
            self._frames(text),
            speaker=voice.speaker,
            emotion=voice.emotion,
            contrast=session.sampling.contrast,
        )

    def __next__(self) -> Float[Tensor, "1 S"]:
        # A row at a time is too little to share: on two cores, two threads take seven times as long.
        with one_thread():
            return next(self._chunks)

    def close(self) -> None:
        """Stops the speech. What was generated so far is kept in the session as said."""
        with one_thread():
            self._chunks.close()
            if self._turn is not None:
                self._turn.close()

    @property
    def codes(self) -> Int[Tensor, "K T"]:
        """Of all frames so far."""
        if not self._codes:
            return torch.zeros(self.session.model.config.num_codebooks, 0, dtype=torch.int64)
        return torch.stack(self._codes, dim=1)

    def whole(self) -> Speech:
        """The rest of the speech at once."""
        # A turn of no frames (sampling.shortest = 0 allows it) is no sound.
        waveform = torch.cat([torch.zeros(1, 0), *self], dim=1)
        return Speech(waveform, self.codes, self._sample_rate)

    def write(self, path: Path) -> Timing:
        """Writes the rest of the speech to a WAV file as it is made; the file appears when it is whole."""
        began, first, samples = time.perf_counter(), 0.0, 0
        with AtomicAudioWriter(path, self._sample_rate, channels=1) as writer:
            for chunk in self:
                first = first or time.perf_counter() - began
                samples += chunk.shape[1]
                writer.write(chunk.T.numpy())
        return Timing(first, time.perf_counter() - began, samples / self._sample_rate, len(self._codes))

    def _frames(self, text: Iterable[str]) -> Iterator[Int[Tensor, " K"]]:
        for sentence in sentences(text):
            if self.sentence:
                self._codes.extend(self._pause)
                yield from self._pause
            self.sentence = sentence
            self._turn = self.session.speak(sentence, self.voice.number)
            for frame in self._turn:
                self._codes.append(frame)
                yield frame
        if not self.sentence:
            raise ValueError("the text is empty: expected something to say")
