"""Codes to sound while they are made: every frame is heard as soon as it is spoken."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.session import Session, cut_off
from csm.generation.voices import Voice
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ


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
    """Decodes frames as they come; the chunks end to end are what `tokenizer.decode` gives of all frames.

    The first chunk is shorter than the others by `tokenizer.latency_samples`; these follow in the last chunk.
    While the iterator is alive the tokenizer is in streaming use and must not encode or decode anything else.

    Args:
        tokenizer: In eval mode.
        frames: Codes of one frame each, K at most the tokenizer's codebooks.
        speaker: [1, E], who speaks. emotion: [1, M], in which manner. None where unknown.
        contrast: As of `tokenizer.decode`.
        chunk_frames: Frames decoded at a time: more is cheaper, and is heard later.

    Yields:
        float32 [1, S] on the CPU; no chunk is empty, and without frames there is none.

    Raises:
        ValueError: chunk_frames below 1, or codes that `decode` refuses.
    """
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames is {chunk_frames}: expected 1 (80 ms) or more")
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
    """How long a turn took, measured where its audio came out.

    Attributes:
        first_audio_s: Seconds from the request to the first chunk of audio.
        generation_s: Seconds from the request to the last one. audio_s: Seconds of audio.
        frames: Frames spoken. stopped: "end" where the model ended the turn, "limit" where it was cut off, ""
            where that is not known.
    """

    first_audio_s: float
    generation_s: float
    audio_s: float
    frames: int
    stopped: str = ""


class Spoken(NamedTuple):
    """A turn as it was heard: waveform [1, S] on the CPU, and its timing."""

    waveform: Tensor
    timing: Timing


def speak_aloud(session: Session, tokenizer: ConversationalRVQ, text: str, voice: Voice) -> Spoken:
    """Lets a session speak a text in a voice, streamed frame by frame; the session keeps the turn as said.

    Raises:
        ValueError: Empty text, or one too long for the model's context.
    """
    began = time.perf_counter()
    chunks: list[Tensor] = []
    first = 0.0
    # A row at a time is too little to share: on two cores, two threads take seven times as long.
    with one_thread():
        frames = session.speak(text, voice.number)
        heard = stream_audio(
            tokenizer,
            frames,
            speaker=voice.speaker,
            emotion=voice.emotion,
            contrast=session.sampling.contrast,
        )
        for chunk in heard:
            first = first or time.perf_counter() - began
            chunks.append(chunk)
    spent = time.perf_counter() - began
    said, expected = session.turns[-1]
    count = said.codes.shape[1]
    # A turn of no frames (sampling.shortest = 0 allows it) is heard as one frame of silence.
    waveform = torch.cat(chunks, dim=1) if chunks else torch.zeros(1, tokenizer.config.samples_per_frame)
    return Spoken(
        waveform,
        Timing(
            first_audio_s=round(first or spent, 4),
            generation_s=round(spent, 4),
            audio_s=round(waveform.shape[1] / tokenizer.config.sample_rate, 4),
            frames=count,
            stopped="limit" if count >= longest_turn(session, text, voice.number, expected) else "end",
        ),
    )


def longest_turn(session: Session, text: str, speaker: int, expected: int) -> int:
    """Frames at which a session cuts off a turn of this text and expected length."""
    config, sampling = session.model.config, session.sampling
    free = config.max_context - len(session.model.codec.encode_turn(text, speaker)) - 1
    timed = cut_off(expected) if session.model.knows_durations() else free
    return max(1, min(int(sampling.max_seconds * 12.5), free, timed))
