"""Several streams of codes decoded in one call, frame by frame; each begins and ends when it likes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.latent_prediction import PredictionPast
from csm.tokenizer.mimi import MimiTokenizer
from csm.tokenizer.opening import VoiceTokenizer
from csm.tokenizer.phase_recovery import PhaseStream
from csm.tokenizer.transformer import AttentionPast
from csm.tokenizer.vocoder import VocoderStream


class Conditions(NamedTuple):
    """What a stream is decoded with, as `decode` of the tokenizer takes it.

    Attributes:
        speaker, emotion: Embeddings [1, E] and [1, M]; None: unknown.
        contrast: Contrast of recovered phases' magnitudes; None: the tokenizer's.
    """

    speaker: Tensor | None = None
    emotion: Tensor | None = None
    contrast: float | None = None


class StreamDecoder(Protocol):
    """Decodes several streams, a frame of each at a time.

    Attributes:
        joins: Whether streams are decoded in one call.
    """

    joins: bool

    def open(self, conditions: Conditions) -> Any:
        """Returns a new stream."""

    def decode(
        self, streams: Sequence[Any], frames: Sequence[Int[Tensor, " K"]]
    ) -> list[Float[Tensor, "1 S"]]:
        """Returns, on the CPU, the audio that the next frame of each stream completes; S may be 0.

        K may differ from stream to stream.
        """

    def flush(self, stream: Any) -> Float[Tensor, "1 S"]:
        """Returns the samples that a stream holds back at its end, on the CPU."""


def stream_decoder(tokenizer: VoiceTokenizer) -> StreamDecoder:
    """Returns the decoder of many streams of a tokenizer in eval mode, whose own state is not used."""
    if isinstance(tokenizer, ConversationalRVQ):
        return SharedDecoder(tokenizer)
    return SeparateDecoder(tokenizer)


@dataclass(eq=False)
class DecodedStream:
    """One signal that is decoded beside others.

    Attributes:
        conditions: What it is decoded with.
        frames: Frames so far.
        states: State of each block of the decoder, for a batch of one; none before the first frame.
        preroll: Samples before the signal's beginning that are still to be left out.
    """

    conditions: Conditions
    frames: int = 0
    states: list[Any] = field(default_factory=list)
    preroll: int = 0


class SharedDecoder:
    """Decodes the next frame of each of several streams in one call.

    Each stream gives what it gives alone: exactly where phases are recovered or a vocoder speaks, as the
    products before these are of double precision, and up to rounding elsewhere. After an error all streams
    are as before. It may be called by any thread.

    Args:
        tokenizer: Tokenizer whose weights no longer change.
    """

    joins = True

    def __init__(self, tokenizer: ConversationalRVQ) -> None:
        self._tokenizer = tokenizer.with_own_state()
        # Entered for good: the weights are converted once.
        self._streaming = self._tokenizer.streaming(1)
        self._streaming.__enter__()
        self._lock = threading.Lock()
        # The prediction from semantic codes has a past too.
        modules = [self._tokenizer.quantizer.semantic_out, *self._tokenizer.decoder.modules()]
        self._blocks: list[Any] = [block for block in modules if hasattr(block, "stream_state")]

    def open(self, conditions: Conditions) -> DecodedStream:
        """Returns a new stream."""
        return DecodedStream(conditions)

    @torch.no_grad()
    def decode(
        self, streams: Sequence[DecodedStream], frames: Sequence[Int[Tensor, " K"]]
    ) -> list[Float[Tensor, "1 S"]]:
        """Returns, on the CPU, the audio that the next frame of each stream completes; S may be 0.

        K may differ from stream to stream.
        """
        groups: dict[tuple[bool, float | None, int], list[int]] = {}
        for place, stream in enumerate(streams):
            # The state of a new stream has other shapes than later ones.
            key = (not stream.frames, stream.conditions.contrast, len(frames[place]))
            groups.setdefault(key, []).append(place)
        with self._lock:
            done = [
                (places, *self._group([streams[i] for i in places], torch.stack([frames[i] for i in places])))
                for places in groups.values()
            ]
        chunks = [torch.zeros(1, 0)] * len(streams)
        for places, audio, states, preroll in done:
            for row, place in enumerate(places):
                stream = streams[place]
                stream.preroll = stream.preroll if stream.frames else preroll
                stream.frames += 1
                stream.states = [one_of(state, row, stream.frames) for state in states]
                skip = min(stream.preroll, audio.shape[1])
                stream.preroll -= skip
                chunks[place] = audio[row : row + 1, skip:]
        return chunks

    @torch.no_grad()
    def flush(self, stream: DecodedStream) -> Float[Tensor, "1 S"]:
        """Returns the samples that a stream holds back at its end, on the CPU."""
        if not stream.frames:
            return torch.zeros(1, 0)
        with self._lock:
            for block, state in zip(self._blocks, stream.states, strict=True):
                block.stream_state = state
            self._tokenizer.decoder.head.preroll = stream.preroll
            return self._tokenizer.flush()[0].cpu()

    def _group(
        self, streams: Sequence[DecodedStream], codes: Int[Tensor, "B K"]
    ) -> tuple[Float[Tensor, "B S"], list[Any], int]:
        """Decodes streams with states of one shape.

        Returns:
            Their audio, the new states of all together, and the samples that new streams leave out.
        """
        head = self._tokenizer.decoder.head
        for index, block in enumerate(self._blocks):
            fresh = not streams[0].frames
            states = [] if fresh else [stream.states[index] for stream in streams]
            block.stream_state = block.initial_state(len(streams)) if fresh else joined(states)
        preroll, head.preroll = head.preroll, 0
        audio = self._tokenizer.decode(
            codes[:, :, None].to(self._tokenizer.device),
            speaker=_stacked([stream.conditions.speaker for stream in streams]),
            emotion=_stacked([stream.conditions.emotion for stream in streams]),
            contrast=streams[0].conditions.contrast,
        )
        return audio[:, 0].cpu(), [block.stream_state for block in self._blocks], preroll


class SeparateStream(NamedTuple):
    """One signal that is decoded by itself.

    Attributes:
        conditions: What it is decoded with.
        tokenizer: Tokenizer with a state of its own, in streaming mode.
        streaming: Keeps it in that mode.
    """

    conditions: Conditions
    tokenizer: MimiTokenizer
    streaming: AbstractContextManager[None]


class SeparateDecoder:
    """Decodes streams of Mimi one after the other.

    Args:
        tokenizer: Tokenizer whose weights the streams share.
    """

    joins = False

    def __init__(self, tokenizer: MimiTokenizer) -> None:
        self._tokenizer = tokenizer

    def open(self, conditions: Conditions) -> SeparateStream:
        """Returns a new stream."""
        own = self._tokenizer.with_own_state()
        stream = SeparateStream(conditions, own, own.streaming(1))
        stream.streaming.__enter__()
        return stream

    def decode(
        self, streams: Sequence[SeparateStream], frames: Sequence[Int[Tensor, " K"]]
    ) -> list[Float[Tensor, "1 S"]]:
        """Returns, on the CPU, the audio of the next frame of each stream."""
        chunks = []
        for stream, frame in zip(streams, frames, strict=True):
            codes = frame[None, :, None].to(stream.tokenizer.device)
            chunks.append(stream.tokenizer.decode(codes, **stream.conditions._asdict())[0].cpu())
        return chunks

    def flush(self, stream: SeparateStream) -> Float[Tensor, "1 S"]:
        """Returns no samples: Mimi holds none back."""
        return stream.tokenizer.flush()[0]


def joined(states: Sequence[Any]) -> Any:
    """Returns the state of a batch of streams from those of its rows; younger pasts are filled up."""
    if len(states) == 1:
        return states[0]
    if isinstance(states[0], AttentionPast):
        return _joined_pasts(states)
    if isinstance(states[0], PhaseStream | VocoderStream | PredictionPast):
        return type(states[0])(*map(torch.cat, zip(*states, strict=True)))
    return torch.cat([*states])


def one_of(state: Any, row: int, frames: int) -> Any:
    """Returns the state of one row of a batch, whose stream has had `frames` frames."""
    if isinstance(state, AttentionPast):
        first = max(0, state.keys.shape[2] - frames)
        return AttentionPast(state.keys[row : row + 1, :, first:], state.values[row : row + 1, :, first:])
    if isinstance(state, PhaseStream | VocoderStream | PredictionPast):
        return type(state)(*(part[row : row + 1] for part in state))
    return state[row : row + 1]


def _joined_pasts(pasts: Sequence[AttentionPast]) -> AttentionPast:
    lengths = [past.keys.shape[2] for past in pasts]
    longest = max(lengths)
    keys, values = (
        torch.cat([F.pad(t, (0, 0, longest - size, 0)) for t, size in zip(tensors, lengths, strict=True)])
        for tensors in ([past.keys for past in pasts], [past.values for past in pasts])
    )
    if min(lengths) == longest:
        return AttentionPast(keys, values)
    missing = torch.tensor([longest - size for size in lengths], device=keys.device).view(-1, 1, 1, 1)
    return AttentionPast(keys, values, torch.arange(longest, device=keys.device) < missing)


def _stacked(embeddings: Sequence[Tensor | None]) -> Tensor | None:
    """Returns embeddings [1, E] as one [B, E], zeros for unknown ones; None if all are unknown."""
    known = next((one for one in embeddings if one is not None), None)
    if known is None:
        return None
    return torch.cat([torch.zeros_like(known) if one is None else one for one in embeddings])
