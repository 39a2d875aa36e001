"""Several conversations speak at once: the rows of all go through the backbone together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.run_rows import run_together
from csm.generation.session import Session
from csm.generation.spoken_turn import Ending, SpokenTurn, TurnPlan
from csm.generation.static_turns import StaticTurns


class Request(NamedTuple):
    """A text for one session to speak; the fields are those of `Session.speak`."""

    session: Session
    text: str
    speaker: int
    frames: int | None = None


class SpeakingTogether(Iterator[list[Tensor | None]]):
    """Speaks one text in each of several sessions, a frame (80 ms) of all of them at a time.

    Each session says what it would say alone (up to the rounding of a product of many rows or of one), drawn
    with its own sampling and seed. Every step gives a list in the order of the requests: the next frame of
    codes, int64 [K] on the CPU, or None for a turn that has ended. Such a turn is whole and its session free
    to go on, also while the others still speak. The iterator ends when all turns have.

    A consumer that stops early (`close()`, or leaving a `for` loop over the only reference) leaves a whole
    turn behind in every session: what was yielded so far. So does an error in any of them, which ends all.

    Texts are run one by one in the first step, which so takes as many calls of the backbone as there are
    requests; every later step takes one for the frames, and another one where turns end.

    Args:
        requests: Requests of different sessions with one model; none at all ends at once.

    Attributes:
        endings: Why the turn of each request ended; None while it is spoken.

    Raises:
        ValueError: Sessions have different models, a session comes twice, `Session.speak` refuses a request,
            or, at the first step, a session is still speaking. All sessions stay as they were.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        # What __del__ needs, before anything is refused.
        self._turns: dict[int, SpokenTurn] = {}
        self._planned: dict[int, TurnPlan] = {}
        self._steps: StaticTurns | None = None
        self.endings: list[Ending | None] = [None] * len(requests)
        self._sessions = [request.session for request in requests]
        for index, session in enumerate(self._sessions):
            if session.model is not self._sessions[0].model:
                raise ValueError(f"request {index} has another model than request 0: expected one for all")
            if session in self._sessions[:index]:
                raise ValueError(
                    f"request {index} has the session of request {self._sessions.index(session)}: a session "
                    f"speaks one turn at a time"
                )
        for index, request in enumerate(requests):
            try:
                plan = request.session.plan_turn(request.text, request.speaker, request.frames)
            except ValueError as error:
                raise ValueError(f"request {index}: {error}") from error
            self._planned[index] = plan

    def __iter__(self) -> SpeakingTogether:
        return self

    @torch.no_grad()
    def __next__(self) -> list[Int[Tensor, " K"] | None]:
        for index in self._planned:
            self._sessions[index].refuse_while_busy()
        try:
            self._begin()
            self._run_frames()
            drawn = self._next_frames()
            self._end([i for i, frame in drawn.items() if frame is None])
        except BaseException:
            # Frames drawn in this step are not yielded, so they were not said.
            self.close()
            raise
        if not self._turns:
            raise StopIteration
        frames: list[Tensor | None] = [None] * len(self._sessions)
        for index, turn in self._turns.items():
            frame = drawn[index]
            assert frame is not None
            frames[index] = turn.say(frame)
        return frames

    def stop(self, index: int) -> None:
        """Ends one request's turn with what was yielded of it; its session is free, the others continue.

        Nothing happens to a turn that has ended. Before the first step, it leaves no trace in the session.

        Raises:
            ValueError: No such request.
        """
        if not 0 <= index < len(self._sessions):
            raise ValueError(f"index is {index}: expected a request, 0..{len(self._sessions) - 1}")
        self._planned.pop(index, None)
        if index in self._turns:
            self._end([index])

    def close(self) -> None:
        """Ends all turns with what was yielded of them."""
        self._planned.clear()
        self._end(list(self._turns))

    def __del__(self) -> None:
        # As a generator does where its consumer leaves a `for` loop.
        self.close()

    def _begin(self) -> None:
        if self._planned and all(self._sessions[index].is_static() for index in self._planned):
            guided = any(self._sessions[index].sampling.guidance for index in self._planned)
            self._steps = StaticTurns(self._sessions[0].model, len(self._planned), guided)
        while self._planned:
            index = next(iter(self._planned))
            turn = self._turns[index] = self._sessions[index].begin_turn(self._planned.pop(index))
            if self._steps is not None:
                self._steps.begin(turn)

    def _next_frames(self) -> dict[int, Int[Tensor, " K"] | None]:
        """Chooses the next frame of every turn; None where it ends."""
        if self._steps is None:
            return {i: self._sessions[i].next_frame(turn) for i, turn in self._turns.items()}
        return dict(zip(self._turns, self._steps.next_frames(list(self._turns.values())), strict=True))

    def _run_frames(self) -> None:
        """Runs the newest frame of every turn that has one."""
        turns = [turn for turn in self._turns.values() if turn.said]
        if turns:
            self._run(turns)

    def _run(self, turns: Sequence[SpokenTurn]) -> None:
        """Runs the next row of these turns."""
        if self._steps is not None:
            self._steps.run(turns)
            return
        for turn, hidden in zip(turns, run_together(turns), strict=True):
            turn.hidden = hidden

    @torch.no_grad()
    def _end(self, indices: Iterable[int]) -> None:
        """Runs what is left of these turns and gives them to their sessions."""
        ending = {index: self._turns[index] for index in indices}
        while unfinished := [turn for turn in ending.values() if turn.rows_left]:
            self._run(unfinished)
        for index, turn in ending.items():
            self.endings[index] = self._sessions[index].end_turn(turn)
            del self._turns[index]
