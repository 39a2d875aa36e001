"""Speech as a stream of audio: each frame is decoded as soon as it is generated."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.audio.files import AtomicAudioWriter
from csm.generation.candidates import Candidates, speak_best
from csm.generation.session import Session
from csm.generation.shared_lanes import SharedLanes
from csm.generation.shared_speech import SharedSteps
from csm.generation.shared_step import Frame
from csm.generation.speech import (
    Speech,
    StreamClock,
    Timing,
    joined_codes,
    speech_ending,
)
from csm.generation.spoken_turn import Ending
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.opening import VoiceTokenizer


@torch.no_grad()
def stream_audio(
    tokenizer: VoiceTokenizer,
    frames: Iterator[Int[Tensor, " K"]],
    *,
    speaker: Float[Tensor, "1 E"] | None = None,
    emotion: Float[Tensor, "1 M"] | None = None,
    contrast: float | None = None,
    chunk_frames: int = 1,
) -> Generator[Float[Tensor, "1 S"], None, None]:
    """Decodes frames as they arrive; the concatenated chunks equal `tokenizer.decode` of all frames.

    The first chunk is shorter than the others by `tokenizer.latency_samples`; the last one is longer by as
    many. While the iterator is open the tokenizer is in streaming mode and must not encode or decode anything
    else.

    Args:
        tokenizer: Tokenizer in eval mode.
        frames: Codes of one frame each; K is at most the tokenizer's number of codebooks.
        speaker: Speaker embedding [1, E]; None if unknown.
        emotion: Emotion embedding [1, M]; None if unknown.
        contrast: Contrast of the decoder, as in `tokenizer.decode`.
        chunk_frames: Number of frames decoded at a time: more is cheaper and arrives later.

    Yields:
        float32 [1, S] on the CPU; no chunk is empty, and without frames there is none.

    Raises:
        ValueError: chunk_frames is below 1, or `decode` refuses the codes.
    """
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames is {chunk_frames}: expected 1 or more")
    device = tokenizer.device

    def decoded(waiting: list[Tensor]) -> Iterator[Tensor]:
        codes = torch.stack(waiting, dim=1).unsqueeze(0).to(device)
        chunk = tokenizer.decode(codes, speaker=speaker, emotion=emotion, contrast=contrast)[0]
        if chunk.shape[1]:
            yield chunk.cpu()

    with tokenizer.streaming(1):
        waiting: list[Tensor] = []
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == chunk_frames:
                yield from decoded(waiting)
                waiting = []
        if waiting:
            yield from decoded(waiting)
        rest = tokenizer.flush()[0]
        if rest.shape[1]:
            yield rest.cpu()


class SpeechStream(Iterator[Tensor]):
    """Waveforms [1, S] as they are generated; `Talker.generate(stream=True)` returns it.

    Args:
        tokenizer: Tokenizer in eval mode; it serves nothing else while the stream is open.
        session: Conversation that the text is spoken in.
        voice: Voice of the speech.
        turns: Texts, each spoken as one turn; later ones may arrive while earlier ones are spoken.
        pause: Frames of silence between turns, codes [K] each.
        clock: Clock of the request; None starts one now.
        shared: Steps that make the frames together with those of other speeches; None makes them alone.
        candidates: Renditions of each turn, of which one is kept (`csm.generation.candidates`); None speaks
            once. Not with `shared`.

    Attributes:
        session: Conversation, which keeps the turns as far as they were spoken; of candidates the whole turn.
        voice: Voice of the speech.
        sentence: Text of the current turn, "" before the first.
    """

    def __init__(
        self,
        tokenizer: VoiceTokenizer,
        session: Session,
        voice: Voice,
        turns: Iterable[str],
        *,
        pause: Sequence[Int[Tensor, " K"]] = (),
        clock: StreamClock | None = None,
        shared: SharedSteps | SharedLanes | None = None,
        candidates: Candidates | None = None,
    ) -> None:
        if candidates is not None and shared is not None:
            raise ValueError(f"candidates are {candidates.count} for speech with shared steps: expected none")
        self.session, self.voice = session, voice
        self._candidates = candidates
        self.sentence = ""
        self._config = tokenizer.config
        self._clock = clock or StreamClock()
        self._pause = pause
        self._codes: list[Int[Tensor, " K"]] = []
        self._turn: Generator[Any, None, Ending] | None = None
        self._endings: list[Ending] = []
        if shared is not None:
            self._chunks = self._shared(shared, turns)
            return
        self._chunks = stream_audio(
            tokenizer,
            (frame[: session.sampling.decoded_codebooks] for frame in self._frames(turns)),
            speaker=voice.speaker,
            emotion=voice.emotion,
            contrast=session.sampling.contrast,
        )

    def __next__(self) -> Float[Tensor, "1 S"]:
        # One row at a time is too little work to share: two threads on two cores take 7 times as long.
        with one_thread():
            try:
                chunk = next(self._chunks)
            except StopIteration:
                self._clock.stop()
                raise
        self._clock.add(chunk)
        return chunk

    def close(self) -> None:
        """Stops the speech. The session keeps what was generated so far as a finished turn.

        Of candidates, the turn was generated whole and is kept whole.
        """
        with one_thread():
            self._chunks.close()
            if self._turn is not None:
                self._turn.close()
        self._clock.stop()

    @property
    def codes(self) -> Int[Tensor, "K T"]:
        """Codes of all frames so far."""
        return joined_codes(self._codes, self.session.model.config.num_codebooks)

    @property
    def endings(self) -> tuple[Ending, ...]:
        """Reason why each turn so far ended; the current one counts as closed."""
        return (*self._endings, "stopped") if self._turn is not None else (*self._endings,)

    @property
    def timing(self) -> Timing:
        """Times of a stream that has ended or was closed; any other one is taken to end now."""
        return self._clock.timing(self._config.sample_rate, len(self._codes), speech_ending(self.endings))

    def whole(self) -> Speech:
        """Returns the rest of the speech at once."""
        # A turn without frames, which sampling.shortest = 0 allows, has no audio.
        waveform = torch.cat([torch.zeros(1, 0), *self], dim=1)
        return Speech(waveform, self.codes, self._config.sample_rate, self.voice, self.endings, self.timing)

    def write(self, path: Path) -> Timing:
        """Writes the rest of the speech to a WAV file, which appears when it is whole; returns its times."""
        with AtomicAudioWriter(path, self._config.sample_rate, channels=1) as writer:
            for chunk in self:
                writer.write(chunk.T.numpy())
        return self.timing

    def _frames(self, turns: Iterable[str]) -> Iterator[Int[Tensor, " K"]]:
        for text in turns:
            if self.sentence:
                self._codes.extend(self._pause)
                yield from self._pause
            self.sentence = text
            self._turn = self._spoken(text)
            ending = yield from self._kept(self._turn)
            self._turn = None
            self._endings.append(ending)
        if not self.sentence:
            raise ValueError("text is empty: expected words to speak")

    def _spoken(self, text: str) -> Generator[Int[Tensor, " K"], None, Ending]:
        """Yields the frames of a turn; returns why it ended."""
        if self._candidates is not None:
            return speak_best(self.session, text, self.voice, self._candidates)
        return self.session.speak(text, self.voice.number)

    def _shared(
        self, shared: SharedSteps | SharedLanes, turns: Iterable[str]
    ) -> Generator[Tensor, None, None]:
        """Yields the audio of all turns, whose frames `shared` makes and decodes."""
        with shared.open(self.session, self.voice) as speech:
            for text in turns:
                if self.sentence:
                    self._codes.extend(self._pause)
                    yield from filter(Tensor.numel, speech.decode(self._pause))
                self.sentence = text
                with closing(speech.speak(text)) as turn:
                    self._turn = turn
                    ending = yield from self._audio(turn)
                self._turn = None
                self._endings.append(ending)
            if not self.sentence:
                raise ValueError("text is empty: expected words to speak")
            yield from filter(Tensor.numel, [speech.flush()])

    def _audio(self, turn: Generator[Frame, None, Ending]) -> Generator[Float[Tensor, "1 S"], None, Ending]:
        """Yields the audio of a turn and keeps its frames; returns why it ended."""
        while True:
            try:
                frame = next(turn)
            except StopIteration as stop:
                ending: Ending = stop.value
                return ending
            self._codes.append(frame.codes)
            if frame.audio.shape[1]:
                yield frame.audio

    def _kept(self, turn: Generator[Tensor, None, Ending]) -> Generator[Int[Tensor, " K"], None, Ending]:
        """Keeps the frames of a turn while they are handed on; returns why the turn ended."""
        while True:
            try:
                frame = next(turn)
            except StopIteration as stop:
                ending: Ending = stop.value
                return ending
            self._codes.append(frame)
            yield frame
