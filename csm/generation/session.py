"""A growing conversation with one model: it listens to turns, speaks turns and transcribes voice."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.depth_sampler import DepthSampler
from csm.generation.exact_context import ExactContext
from csm.generation.heard_turn import (
    heard_turn,
    longest_text,
    room_of_heard,
    spelled_text,
    transcribed_turn,
)
from csm.generation.next_code import NextCode
from csm.generation.next_frames import Draw
from csm.generation.run_rows import run_together
from csm.generation.sampling import SamplingConfig
from csm.generation.spoken_turn import ContextTurn, Ending, SpokenTurn, TurnPlan, read_text
from csm.generation.static_turns import StaticTurns, can_capture
from csm.generation.turn_length import cut_off, expected_frames, phone_log_frames
from csm.network.conversation_network import ConversationNetwork
from csm.network.memory import MemoryState
from csm.network.phone_durations import text_ends
from csm.network.text_reading import TextReading
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import FRAMES_PER_SECOND, TurnFrames


class Session:
    """One conversation with one model.

    `ExactContext` holds what was said: the newest turns exactly, older ones in the memory.

    Args:
        model: Network in eval mode.
        sampling: How codes are sampled; its seed makes the session repeatable.
        sampler: Samples the later codes of every frame; None makes one of fp32 weights. Sessions with one
            model may share a sampler, and with it an int8 copy of the weights.
        next_code: Chooses every code instead of sampling; None samples.
        static: Whether turns are spoken by `StaticTurns`, on CUDA by graphs with one wait a frame; None: on
            CUDA. They are not with `next_code` or int8 weights, nor where `can_capture` is false.

    Attributes:
        context: The conversation so far.
        next_code: As the argument; it may change between turns.
        generator: Random numbers of the codes.

    Raises:
        ValueError: sampling.guidance is above 0 in a model without cross-attention.
    """

    def __init__(
        self,
        model: ConversationNetwork,
        sampling: SamplingConfig | None = None,
        *,
        sampler: DepthSampler | None = None,
        next_code: NextCode | None = None,
        static: bool | None = None,
    ) -> None:
        self.model = model
        self.sampling = sampling or SamplingConfig()
        self.sampling.require_reading(bool(model.backbone.voice_layers()))
        self.device = model.audio_embedding.weight.device
        self.static = self.device.type == "cuda" if static is None else static
        self.context = ExactContext(model)
        self.generator = torch.Generator().manual_seed(self.sampling.seed)
        self.next_code = next_code
        self._sampler = sampler or DepthSampler(model)
        self._speaking = self._hearing = False

    @property
    def turns(self) -> list[ContextTurn]:
        """The turns in the exact context, oldest first."""
        return self.context.turns

    @property
    def memory(self) -> MemoryState | None:
        """Memory of older turns; None in a model without memory layers."""
        return self.context.memory

    @property
    def rows(self) -> int:
        """Number of rows in the exact context, those of a turn that is being spoken included."""
        return self.context.cache.length

    @torch.no_grad()
    def listen(self, turn: TurnFrames) -> None:
        """Adds a finished turn of any speaker to the context, with its text and voice.

        Raises:
            ValueError: The turn has no frames, no text, an unknown speaker, or codes of a wrong shape or
                range; it is longer than the context; or another turn is still being spoken. The session stays
                as it was.
        """
        self.refuse_while_busy()
        if turn.codes.ndim != 2 or turn.codes.shape[1] == 0:
            raise ValueError(
                f"turn {turn.id}: codes have shape {tuple(turn.codes.shape)}, expected [K, T] with at least "
                f"one frame"
            )
        # Copied: a slice would keep its whole recording in memory.
        turn = turn._replace(codes=turn.codes.clone())
        self.context.add(ContextTurn(turn, turn.codes.shape[1]))

    def fork(self, seed: int) -> Session:
        """Returns a session with the same conversation and random numbers of its own.

        Raises:
            ValueError: Another turn is still being spoken or heard.
        """
        self.refuse_while_busy()
        sampling, sampler = replace(self.sampling, seed=seed), self._sampler
        other = Session(self.model, sampling, sampler=sampler, next_code=self.next_code, static=self.static)
        other.context = self.context.copy()
        return other

    def adopt(self, fork: Session) -> None:
        """Takes over the conversation of a fork, which is not used any more; the random numbers stay its own.

        Raises:
            ValueError: A turn of one of them is still being spoken or heard.
        """
        self.refuse_while_busy()
        fork.refuse_while_busy()
        self.context = fork.context

    def speak(
        self, text: str, speaker: int, *, frames: int | None = None
    ) -> Generator[Int[Tensor, " K"], None, Ending]:
        """Speaks a text; yields one frame of codes (80 ms) at a time and returns why the turn ended.

        A consumer that stops early (`close()` on the iterator, or leaving a `for` loop) leaves a whole turn
        behind: what was yielded so far.

        Args:
            text: Text to speak.
            speaker: Speaker index.
            frames: Expected length in frames; None uses the model's duration head. It sets the pace, not the
                end.

        Raises:
            ValueError: The text is empty or too long for the context, the speaker is unknown, fewer than 1
                frame is expected, or (at the first frame) another turn is still being spoken. The session
                stays as it was.
        """
        return self._speak(self.plan_turn(text, speaker, frames))

    @torch.no_grad()
    def _speak(self, plan: TurnPlan) -> Generator[Int[Tensor, " K"], None, Ending]:
        turn = self.begin_turn(plan)
        try:
            if self.is_static():
                StaticTurns(self.model).begin(turn)
            while (frame := self.next_frame(turn)) is not None:
                yield turn.say(frame)
                self._run_next(turn)
        finally:
            ended = self.stop_turn(turn)
        return ended

    @torch.no_grad()
    def transcribe(self, codes: Int[Tensor, "K T"], speaker: int = 0) -> str:
        """Transcribes a voice, and keeps the turn in the context with the transcript as its text.

        A model with a letter head spells while it reads the frames; another writes the text after them.

        Args:
            codes: int64 [K, T] with K at least the model's, T at least 1.
            speaker: Speaker index.

        Raises:
            ValueError: The codes have a wrong shape or range, the voice is longer than the context, the
                speaker is unknown, or a turn is still being spoken. The session stays as it was.
        """
        self.refuse_while_busy()
        model = self.model
        batch = heard_turn(model, codes, speaker).to(self.device)
        self.context.make_room(room_of_heard(batch, model.config.max_context))
        rows = model.embed_rows(batch.text, batch.codes)
        reading = model.text_reading(rows, batch.text_spans)
        states = self.context.forward(rows, text=reading)
        if model.letter_head is not None:
            text = spelled_text(model.letter_head, states, batch)
        else:
            text = self._write(states[-1], reading, longest_text(codes.shape[1]))
        # From now on the turn counts like any other: as text and voice.
        context = ContextTurn(transcribed_turn(model, text, speaker, codes), codes.shape[1])
        self.context.rebuild([*self.context.kept_beside(self.context.rows_of(context.turn)), context])
        return text

    def _write(self, hidden: Float[Tensor, " D"], reading: TextReading | None, limit: int) -> str:
        """Writes the text of the voice that the end row's state has read, id after id by argmax."""
        model, longest = self.model, self.model.config.max_context
        written: list[int] = []
        while len(written) < limit and self.context.cache.length + 1 < longest:
            token = int(F.linear(hidden, model.text_embedding.weight[: model.codec.vocab_size]).argmax())
            if token == model.codec.end_id:
                break
            written.append(token)
            row = model.text_embedding(torch.tensor([token], device=self.device))
            if reading is not None:
                reading = reading.step(len(written))
            hidden = self.context.forward(row, text=reading)[-1]
        return model.codec.decode(written).strip()

    def take_back(self, count: int) -> list[TurnFrames]:
        """Removes the newest turns and returns them, oldest first; raises ValueError if there are fewer.

        Turns that made room for them stay in the memory, and drawn random numbers stay drawn.
        """
        self.refuse_while_busy()
        return self.context.take_back(count)

    # ---- the parts of `speak`, for drivers that run the rows of several sessions at once ----

    def refuse_while_busy(self) -> None:
        """Raises ValueError while a turn is being spoken or heard."""
        if self._speaking:
            raise ValueError("a turn is still being spoken: exhaust or close() its iterator first")
        if self._hearing:
            raise ValueError("a turn is still being heard: finish() or cancel() it first")

    def plan_turn(self, text: str, speaker: int, frames: int | None) -> TurnPlan:
        """Checks what `speak` is asked to say; nothing changes yet. Raises ValueError as `speak` does."""
        return TurnPlan.of(self.model, text, speaker, frames)

    def begin_turn(self, plan: TurnPlan) -> SpokenTurn:
        """Makes room and runs the text; the session speaks until `end_turn`. Raises ValueError while busy."""
        self.refuse_while_busy()
        model, longest, ids = self.model, self.model.config.max_context, plan.ids
        limit = int(self.sampling.max_seconds * FRAMES_PER_SECOND)
        # Room for the longest the turn can become; what the text leaves free is the turn's limit.
        self.context.make_room(min(len(ids) + limit + 1, longest))
        free = longest - self.context.cache.length - len(ids) - 1
        codes = torch.full((len(ids), model.config.num_codebooks), -1, device=self.device)
        rows = self.context.forward(model.embed_rows(ids, codes))
        phones = phone_log_frames(model, rows)
        expected = min(plan.frames or expected_frames(model, rows, phones, self.sampling.speed), longest)
        timed = plan.frames is not None or model.predicts_durations()
        ends = None if phones is None else text_ends(phones, expected)
        reading = read_text(model, plan, expected, ends)
        guided = bool(self.sampling.guidance) and reading is not None
        turn = SpokenTurn(
            plan=plan,
            model=model,
            cache=self.context.cache,
            memory=self.memory,
            reading=reading,
            ends=ends,
            hidden=rows[-1],
            expected=expected,
            shortest=self.sampling.shortest * expected if timed else 0,
            limit=max(1, min(limit, free, cut_off(expected) if timed else limit)),
            sampling=self.sampling,
            generator=self.generator,
            unread=self.context.cache.copy() if guided else None,
        )
        self._speaking = True
        return turn

    def next_draw(self, turn: SpokenTurn) -> Draw | None:
        """Returns what the frame that follows is chosen from, or None at the turn's limit."""
        if turn.at_limit:
            turn.ended = "limit"
            return None
        return Draw(turn.hidden, self._sampler, self.sampling, self.generator, turn.may_end, self.next_code)

    def next_frame(self, turn: SpokenTurn) -> Int[Tensor, " K"] | None:
        """Chooses the frame that follows, or None at the turn's end; the caller appends it to `turn.said`."""
        if turn.steps is not None:
            return turn.steps.next_frames([turn])[0]
        draw = self.next_draw(turn)
        frame = None if draw is None else draw.alone()
        if frame is None:
            turn.ended = turn.ended or "end_code"
        return frame

    def stop_turn(self, turn: SpokenTurn) -> Ending:
        """Runs the rows that are left of a turn, then keeps it; returns why it ended."""
        self._speaking = False
        while turn.rows_left:
            self._run_next(turn)
        return self.end_turn(turn)

    def end_turn(self, turn: SpokenTurn) -> Ending:
        """Keeps a turn whose rows have all been run; returns why it ended."""
        assert not turn.rows_left, f"{turn.rows_left} rows of the turn have not been run"
        self._speaking = False
        if turn.steps is not None:
            turn.steps.end(turn)
        said = TurnFrames("spoken", turn.plan.text, turn.plan.speaker, turn.codes(), ends=turn.ends)
        self.turns.append(ContextTurn(said, turn.expected))
        turn.ended = turn.ended or "stopped"
        return turn.ended

    def is_static(self) -> bool:
        """Returns whether the next turn is spoken by `StaticTurns`."""
        plain = self.next_code is None and self._sampler.weights == "fp32"
        return self.static and plain and can_capture(self.model)

    # ---- the parts of hearing a turn piece by piece, for `csm.generation.hearing` ----

    def begin_hearing(self) -> None:
        """Begins a turn whose voice comes in, until `end_hearing`; raises ValueError while busy."""
        self.refuse_while_busy()
        self._hearing = True

    @torch.no_grad()
    def hear_rows(self, batch: RowBatch, run: int) -> Float[Tensor, "R D"]:
        """Runs the rows of a turn so far (`heard_turn`) without its end row, of which `run` have been run.

        Where older turns move to the memory, as `transcribe` moves them, all rows are run again.

        Returns:
            The hidden rows of those that were run now: the last ones, or all.
        """
        batch, longest = batch.to(self.device), self.model.config.max_context
        room = room_of_heard(batch, longest)
        if self.context.cache.length - run + room > longest:
            self.context.cache.length -= run
            self.context.make_room(room)
            run = 0
        return self.context.forward(self.model.embed_rows(batch.text[run:-1], batch.codes[run:-1]))

    def end_hearing(self, run: int) -> None:
        """Forgets the `run` rows of the turn that was heard: `transcribe` keeps it, as text and voice."""
        self.context.cache.length -= run
        self._hearing = False

    def _run_next(self, turn: SpokenTurn) -> None:
        if turn.steps is not None:
            turn.steps.run([turn])
            return
        if turn.unread is not None:
            turn.hidden = run_together([turn])[0]
            return
        (coming,) = turn.next_rows()
        turn.hidden = self.context.forward(coming.row, voice=coming.reading)[-1]
