"""One step of several speeches: a row of the model, a frame of codes and its audio for each, in few calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.next_frames import next_frames
from csm.generation.run_rows import run_together
from csm.generation.session import Session
from csm.generation.spoken_turn import SpokenTurn
from csm.generation.static_turns import StaticTurns
from csm.tokenizer.shared_decoder import StreamDecoder

T = TypeVar("T")


class Frame(NamedTuple):
    """A frame that waits for its consumer.

    Attributes:
        codes: int64 [K], on the CPU.
        audio: float32 [1, S], what the frame completes.
        drawn: State of the session's generator after the frame.
    """

    codes: Int[Tensor, " K"]
    audio: Tensor
    drawn: Tensor


@dataclass(eq=False)
class Speaking:
    """A speech as the steps see it.

    Attributes:
        session: Its session.
        stream: Its stream of the decoder.
        drawn: State of the session's generator after its newest frame.
        wanted: Whether its consumer wants frames.
        turn: Turn that is spoken; None between turns.
        given: Frames to decode before those of the turn.
        waiting: Frames that its consumer has not taken.
        over: Whether the turn has had its end row.
        error: Why it cannot be continued.
    """

    session: Session
    stream: Any
    drawn: Tensor
    wanted: bool = False
    turn: SpokenTurn | None = None
    given: deque[Tensor] = field(default_factory=deque)
    waiting: deque[Frame] = field(default_factory=deque)
    over: bool = False
    error: Exception | None = None

    @property
    def spoken(self) -> SpokenTurn:
        """The turn of a speech that is being spoken."""
        assert self.turn is not None, "no turn is spoken"
        return self.turn


class Served(NamedTuple):
    """What a step gives one speech: a frame, or the end of its turn, or an error."""

    frame: Frame | None = None
    over: bool = False
    error: Exception | None = None


class SharedStep:
    """Computes the next frame of each of several speeches of one model, in calls of all of them.

    Turns of sessions that say so (`Session.is_static`) are spoken by `StaticTurns`, from their first step on:
    on CUDA by two graphs, whatever their number.

    Where a call fails, each speech makes it by itself: one that fails again ends, with its error alone.

    Args:
        decoder: Decoder of their streams.
        expected: Speeches that are expected at once.
    """

    def __init__(self, decoder: StreamDecoder, expected: int = 1) -> None:
        self._decoder, self._expected = decoder, expected
        self._static: StaticTurns | None = None

    @torch.no_grad()
    def __call__(self, speeches: Sequence[Speaking]) -> dict[Speaking, Served]:
        """Returns what each speech is given; a speech whose turn has just chosen its end is missing."""
        served: dict[Speaking, Served] = {}
        given = [one for one in speeches if one.given]
        spoken = [one for one in speeches if not one.given]
        self._each(self._begin, spoken, served, together=False)
        run = [one for one in spoken if one not in served and (one.spoken.said or one.spoken.ended)]
        for one, hidden in self._each_way(_run, run, served).items():
            one.spoken.hidden = hidden
            if one.spoken.ended:
                served[one] = Served(over=True)
        drawn = self._each_way(_draw, [one for one in spoken if one not in served], served)
        frames = {one: one.given.popleft() for one in given}
        frames.update(_kept(drawn))
        self._decode(frames, served)
        return served

    def _begin(self, speeches: Sequence[Speaking]) -> Sequence[None]:
        """Gives a turn that is static its place, in its first step."""
        (one,) = speeches
        turn = one.spoken
        if turn.steps is None and not turn.said and one.session.is_static():
            if self._static is None or self._static.model is not turn.model:
                self._static = StaticTurns(turn.model, self._expected)
            self._static.begin(turn)
        return [None]

    def _decode(self, frames: dict[Speaking, Tensor], served: dict[Speaking, Served]) -> None:
        def decode(speeches: Sequence[Speaking]) -> list[Tensor]:
            codes = [frames[one][: one.session.sampling.decoded_codebooks] for one in speeches]
            return self._decoder.decode([one.stream for one in speeches], codes)

        for one, audio in self._each(decode, [*frames], served, together=self._decoder.joins).items():
            served[one] = Served(Frame(frames[one], audio, one.session.generator.get_state()))

    def _each_way(
        self,
        work: Callable[[Sequence[Speaking]], Sequence[T]],
        speeches: Sequence[Speaking],
        served: dict[Speaking, Served],
    ) -> dict[Speaking, T]:
        """As `_each`; static turns are one call, and the others another one."""
        static = [one for one in speeches if one.spoken.steps is not None]
        others = [one for one in speeches if one.spoken.steps is None]
        return {**self._each(work, static, served), **self._each(work, others, served)}

    def _each(
        self,
        work: Callable[[Sequence[Speaking]], Sequence[T]],
        speeches: Sequence[Speaking],
        served: dict[Speaking, Served],
        *,
        together: bool = True,
    ) -> dict[Speaking, T]:
        """Returns the results of a work, of all speeches at once if that succeeds; serves errors."""
        if together and len(speeches) > 1:
            try:
                return dict(zip(speeches, work(speeches), strict=True))
            except Exception:  # the work of each by itself tells whose error it is
                pass
        results: dict[Speaking, T] = {}
        for one in speeches:
            try:
                results[one] = work([one])[0]
            except Exception as error:
                served[one] = Served(error=error)
        return results


def _run(speeches: Sequence[Speaking]) -> Sequence[Tensor]:
    turns = [one.spoken for one in speeches]
    if turns[0].steps is None:
        return run_together(turns).unbind()
    turns[0].steps.run(turns)
    return [turn.hidden for turn in turns]


def _draw(speeches: Sequence[Speaking]) -> Sequence[Tensor | None]:
    for one in speeches:
        # Of an attempt that failed nothing stays drawn.
        one.session.generator.set_state(one.drawn)
    turns = [one.spoken for one in speeches]
    if turns[0].steps is not None:
        return turns[0].steps.next_frames(turns)
    draws = [one.session.next_draw(turn) for one, turn in zip(speeches, turns, strict=True)]
    frames = iter(next_frames([draw for draw in draws if draw is not None]))
    return [None if draw is None else next(frames) for draw in draws]


def _kept(drawn: Mapping[Speaking, Tensor | None]) -> dict[Speaking, Tensor]:
    """Enters drawn frames into their turns, or the turns' ends; returns the frames on the CPU."""
    new = {one: frame for one, frame in drawn.items() if frame is not None}
    for one in drawn:
        if one in new:
            one.spoken.said.append(new[one])
        else:
            one.spoken.ended = one.spoken.ended or "end_code"
    # Those of static turns are on the CPU; the others wait for their device once.
    away = [one for one, frame in new.items() if frame.device.type != "cpu"]
    if away:
        new.update(zip(away, torch.stack([new[one] for one in away]).cpu(), strict=True))
    return new
