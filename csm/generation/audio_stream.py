"""Speech as a stream of audio: frames are decoded as they are generated, and their arrival is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.data.audio import AtomicAudioWriter
from csm.generation.session import ContextTurn, Session, cut_off
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ

# The first sample above this share of a speech's peak is its first audible one: -40 dB.
AUDIBLE = 10 ** (-40 / 20)

# "end": the model ended the turn. "limit": the turn reached its longest length and was cut off. "closed": the
# consumer closed the stream during the turn.
TurnEnd = Literal["end", "limit", "closed"]


@torch.no_grad()
def stream_audio(
    tokenizer: ConversationalRVQ,
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
    device = tokenizer.decoder.embed.weight.device

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


class Timing(NamedTuple):
    """When the audio of a speech arrived, and how the speech ended. Times are seconds from the request.

    Attributes:
        first_audio_s: Time of the first chunk; the time of the end for a speech without audio.
        first_sound_s: Time of the chunk with the first sample above -40 dB of the speech's peak; None for
            silence.
        generation_s: Time at which the stream ended.
        audio_s: Length of the audio, in seconds.
        frames: Number of frames of codes, pauses between sentences included.
        stopped: "limit" if a turn was cut off, else "closed" if the stream was closed during a turn, else
            "end".
    """

    first_audio_s: float
    first_sound_s: float | None
    generation_s: float
    audio_s: float
    frames: int
    stopped: TurnEnd


class StreamClock:
    """Records when the chunks of a stream arrive.

    Args:
        clock: Returns seconds; the request is made when this object is constructed.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._began = clock, clock()
        self._ended: float | None = None
        self._arrivals: list[float] = []
        self._peaks: list[Tensor] = []
        self._samples = 0

    def add(self, chunk: Float[Tensor, "1 S"]) -> None:
        """Records the arrival of a chunk of at least one sample."""
        self._arrivals.append(self._clock() - self._began)
        self._peaks.append(chunk.abs().amax())
        self._samples += chunk.shape[1]

    def stop(self) -> None:
        """Records the end of the stream; only the first call counts."""
        if self._ended is None:
            self._ended = self._clock() - self._began

    def timing(self, sample_rate: int, frames: int, stopped: TurnEnd) -> Timing:
        """Returns the times of the stream, which ends now if `stop` was not called."""
        self.stop()
        assert self._ended is not None
        first_sound = None
        if self._peaks and float(max(self._peaks)) > 0:
            peaks = torch.stack(self._peaks)
            first_sound = round(self._arrivals[int((peaks > AUDIBLE * peaks.max()).int().argmax())], 4)
        return Timing(
            first_audio_s=round(self._arrivals[0] if self._arrivals else self._ended, 4),
            first_sound_s=first_sound,
            generation_s=round(self._ended, 4),
            audio_s=round(self._samples / sample_rate, 4),
            frames=frames,
            stopped=stopped,
        )


class Speech(NamedTuple):
    """Generated speech.

    Attributes:
        waveform: float32 [1, S] on the CPU, full scale = 1.
        codes: int64 [K, T], the frames that the waveform was decoded from, pauses between sentences included.
        sample_rate: Sample rate in Hz.
        voice: Voice of the speech.
        ends: Reason why each turn ended; one turn per sentence.
        timing: Times from the request on.
    """

    waveform: Tensor
    codes: Tensor
    sample_rate: int
    voice: Voice
    ends: tuple[TurnEnd, ...]
    timing: Timing


class SpeechStream(Iterator[Tensor]):
    """Waveforms [1, S] as they are generated; `Talker.generate(stream=True)` returns it.

    Args:
        tokenizer: Tokenizer in eval mode; it serves nothing else while the stream is open.
        session: Conversation that the text is spoken in.
        voice: Voice of the speech.
        turns: Texts, each spoken as one turn; later ones may arrive while earlier ones are spoken.
        pause: Frames of silence between turns, codes [K] each.
        clock: Clock of the request; None starts one now.

    Attributes:
        session: Conversation, which keeps the turns as far as they were spoken.
        voice: Voice of the speech.
        sentence: Text of the current turn, "" before the first.
    """

    def __init__(
        self,
        tokenizer: ConversationalRVQ,
        session: Session,
        voice: Voice,
        turns: Iterable[str],
        *,
        pause: Sequence[Int[Tensor, " K"]] = (),
        clock: StreamClock | None = None,
    ) -> None:
        self.session, self.voice = session, voice
        self.sentence = ""
        self._config = tokenizer.config
        self._clock = clock or StreamClock()
        self._pause = pause
        self._codes: list[Int[Tensor, " K"]] = []
        self._turn: Generator[Tensor, None, None] | None = None
        self._finished: list[ContextTurn] = []
        self._chunks = stream_audio(
            tokenizer,
            self._frames(turns),
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
        """Stops the speech. The session keeps what was generated so far as a finished turn."""
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
    def ends(self) -> tuple[TurnEnd, ...]:
        """Reason why each turn so far ended; the current one counts as closed."""
        finished = [turn_end(self.session, turn, self._config.frame_rate) for turn in self._finished]
        return (*finished, "closed") if self._turn is not None else (*finished,)

    @property
    def timing(self) -> Timing:
        """Times of a stream that has ended or was closed; any other one is taken to end now."""
        return self._clock.timing(self._config.sample_rate, len(self._codes), worst_end(self.ends))

    def whole(self) -> Speech:
        """Returns the rest of the speech at once."""
        # A turn without frames, which sampling.shortest = 0 allows, has no audio.
        waveform = torch.cat([torch.zeros(1, 0), *self], dim=1)
        return Speech(waveform, self.codes, self._config.sample_rate, self.voice, self.ends, self.timing)

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
            self._turn = self.session.speak(text, self.voice.number)
            for frame in self._turn:
                self._codes.append(frame)
                yield frame
            self._turn = None
            self._finished.append(self.session.turns[-1])
        if not self.sentence:
            raise ValueError("text is empty: expected words to speak")


def joined_codes(frames: Sequence[Int[Tensor, " K"]], num_codebooks: int) -> Int[Tensor, "K T"]:
    """Returns frames side by side; T may be 0."""
    return torch.stack([*frames], dim=1) if frames else torch.zeros(num_codebooks, 0, dtype=torch.int64)


def turn_end(session: Session, context: ContextTurn, frame_rate: float) -> TurnEnd:
    """Returns why a turn that a session spoke to its end has ended, by the limit that it was spoken with."""
    config, sampling, turn = session.model.config, session.sampling, context.turn
    longest = config.max_context - len(session.model.codec.encode_turn(turn.text, turn.speaker)) - 1
    if session.model.knows_durations():
        longest = min(longest, cut_off(context.length))
    longest = max(1, min(int(sampling.max_seconds * frame_rate), longest))
    return "limit" if turn.codes.shape[1] >= longest else "end"


def worst_end(ends: Iterable[TurnEnd]) -> TurnEnd:
    """Returns "limit" if it occurs, else "closed" if it occurs, else "end"."""
    found = {*ends}
    return "limit" if "limit" in found else "closed" if "closed" in found else "end"
