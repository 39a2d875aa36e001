"""Encoded conversations as packed row batches: the batch contract of the model's training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import overload

import numpy as np
import torch

from csm.data.local_speakers import with_local_speakers
from csm.data.sampler import Chunk, ChunkSampler, cut
from csm.data.step_plan import MicroBatchPlan, PlannedChunk, PlannedTurn, StepPlan, TargetCounts
from csm.data.turn_table import TurnTable, ends_within
from csm.data.window_sampler import WINDOW_TURNS, WindowSampler, totals_of
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.row_builder import RowBuilder
from csm.sequences.turns import TurnFrames
from csm.spelling import spell
from csm.text import TextCodec

# Share by which the length that a text is spread over varies, plus and minus, where the times of its letters
# are not known: generation has only the predicted length of a turn.
LENGTH_JITTER = 0.1


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """How conversations become batches.

    Attributes:
        rows_per_micro_batch: Number of rows that a micro-batch is filled to.
        max_rows: Maximum number of rows of one chunk of a conversation.
        transcribe_share: Share of turns that are transcribed instead of spoken.
        depth_share: Share of frames that train the depth decoder.
        past_turns: Maximum number of turns before a chunk that are written into its memory. With 16 slots,
            the turns before the newest 64 add less than 1/10,000 of the gist in training, while generation
            includes all of them.
        past_gradient_turns: Number of the newest past turns through which gradients pass; 0: the memory is
            read, and its writing is not trained.
        local_speaker_share: Share of chunks whose speakers have ids local to their conversation instead of
            their own, so that a model learns a voice from the turns before; needs model.local_speakers.
        exclude_speakers: Names of speakers whose turns are context and never a target.
        time_shifts: Number of encodings of each training turn, of which every visit draws one: encoding n
            begins n/time_shifts of a frame earlier, so that frames are cut elsewhere and most codes are
            others for the same sound. A model of few hours of speech overfits less.

    Raises:
        ValueError: A share or count out of its range.
    """

    rows_per_micro_batch: int = 1200
    max_rows: int = 400
    transcribe_share: float = 0.15
    depth_share: float = 0.25
    past_turns: int = 64
    past_gradient_turns: int = 24
    local_speaker_share: float = 0.0
    exclude_speakers: tuple[str, ...] = ()
    time_shifts: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.depth_share <= 1:
            raise ValueError(
                f"depth_share is {self.depth_share}: expected above 0, at most 1 (1/16 is csm-1b's)"
            )
        if not 0 <= self.transcribe_share <= 1:
            raise ValueError(f"transcribe_share is {self.transcribe_share}: expected 0 to 1")
        if not 0 <= self.local_speaker_share <= 1:
            raise ValueError(f"local_speaker_share is {self.local_speaker_share}: expected 0 to 1")
        if self.past_turns < 0:
            raise ValueError(f"past_turns is {self.past_turns}: expected 0 (no memory) or above")
        if self.past_gradient_turns < 0:
            raise ValueError(f"past_gradient_turns is {self.past_gradient_turns}: expected 0 or above")
        if self.time_shifts < 1:
            raise ValueError(f"time_shifts is {self.time_shifts}: expected at least 1")
        if self.max_rows < 1:
            raise ValueError(f"max_rows is {self.max_rows}: expected at least 1")
        if self.max_rows > self.rows_per_micro_batch:
            raise ValueError(
                f"max_rows is {self.max_rows}: expected at most rows_per_micro_batch, "
                f"{self.rows_per_micro_batch}"
            )


class ConversationDataset:
    """Turns of one split with codes and text, drawn as a pure function of (seed, step, micro-batch).

    Args:
        table: The usable turns of the split.
        codec, num_codebooks, end_code: Those of the model.
        config: How to draw.
        micro_batches, seed: Those of the run.
        local_numbers: Numbers of speakers that are local to a conversation, of the model.

    Attributes:
        too_long: The turns of more than max_rows rows: written to memories, never a target.
        untrained: Numbers of the excluded speakers.

    Raises:
        ValueError: No usable turns, none that fits max_rows.
    """

    def __init__(
        self,
        table: TurnTable,
        *,
        codec: TextCodec,
        num_codebooks: int,
        end_code: int,
        config: DatasetConfig,
        micro_batches: int,
        seed: int,
        local_numbers: Sequence[int] = (),
    ) -> None:
        if config.local_speaker_share and not local_numbers:
            raise ValueError(
                f"data.local_speaker_share is {config.local_speaker_share} with model.local_speakers 0: "
                f"expected a model with local numbers; set model.local_speakers=4"
            )
        self.local_numbers = tuple(local_numbers)
        self.table, self.codec, self.num_codebooks, self.end_code = table, codec, num_codebooks, end_code
        self.config, self.seed = config, seed
        self.untrained = {table.numbers[name] for name in config.exclude_speakers if name in table.numbers}
        facts = table.facts
        if not len(table):
            raise ValueError(
                f"{facts.source} has no usable turns in split {facts.split!r} ({facts.left_out} without "
                f"codes or text): encode the corpus with launch/encode_corpus.py and check its texts"
            )
        self.too_long = table.longer_than(config.max_rows)
        if self.too_long.turns == len(self.table):
            raise ValueError(
                f"every turn of split {facts.split!r} has more than max_rows = {config.max_rows} rows: raise "
                f"data.max_rows"
            )
        self.sampler = self._sampler(micro_batches)
        # The micro-batches of one step share its plan, and those of the next may be made meanwhile.
        self.plan = lru_cache(maxsize=4)(self._step_plan)

    def batch(self, step: int, micro_batch: int) -> RowBatch:
        """Returns the rows of one micro-batch (from 0) of one step (from 1), in any order of calls.

        Raises:
            ValueError: A step below 1.
        """
        plan = self.plan(step)
        return _counted(self._build(plan.micro_batches[micro_batch]), plan.counts)

    def pieces(self, step: int, micro_batch: int, count: int) -> list[RowBatch]:
        """Returns `batch` cut into up to `count` batches of whole chunks, whose losses add up to its loss.

        Raises:
            ValueError: A step below 1.
        """
        plan = self.plan(step)
        whole = plan.micro_batches[micro_batch]
        parts = [_counted(self._build(part), plan.counts) for part in whole.pieces(count, self._counts)]
        weight = whole.counts.frames / max(1, len(whole.depth_frames))
        return [replace(part, depth_weight=weight) for part in parts]

    def most_pieces(self, step: int, micro_batch: int) -> int:
        """Returns the most pieces of a micro-batch: its chunks."""
        return len(self.plan(step).micro_batches[micro_batch].chunks)

    def in_order(self, rows: int) -> RowBatch:
        """Returns about `rows` rows of whole conversations from the start: the same at every call."""
        chunks: list[Chunk] = []
        filled = 0
        for index in range(self.table.conversations):
            sizes = self.table.rows_of(index)
            for chunk in cut(index, sizes, self.config.max_rows, self.config.max_rows):
                if filled < rows:
                    chunks.append(chunk)
                    filled += sum(sizes[chunk.first : chunk.first + chunk.turns])
            if filled >= rows:
                break
        return self._build(self._plan_of(chunks, np.random.default_rng([self.seed, 12])))

    def _sampler(self, micro_batches: int) -> ChunkSampler | WindowSampler:
        rows, config = RowsOfConversations(self.table), self.config
        sizes = {"max_rows": config.max_rows, "rows_per_micro_batch": config.rows_per_micro_batch}
        if len(self.table) <= 2 * WINDOW_TURNS:
            return ChunkSampler(rows[:], **sizes, micro_batches=micro_batches, seed=self.seed)
        totals = totals_of(self.table.rows, self.table.arrays["conversations"], config.max_rows)
        turns = len(self.table)
        return WindowSampler(rows, totals, turns, **sizes, micro_batches=micro_batches, seed=self.seed)

    def _step_plan(self, step: int) -> StepPlan:
        """Draws a step. Each micro-batch has its own generators, one of them for time shifts alone."""
        return StepPlan(
            [
                self._plan_of(
                    chunks,
                    np.random.default_rng([self.seed, 11, step, number]),
                    np.random.default_rng([self.seed, 13, step, number]),
                    np.random.default_rng([self.seed, 14, step, number]),
                )
                for number, chunks in enumerate(self.sampler.step(step))
            ]
        )

    def _plan_of(
        self,
        chunks: Sequence[Chunk],
        rng: np.random.Generator,
        shifts: np.random.Generator | None = None,
        names: np.random.Generator | None = None,
    ) -> MicroBatchPlan:
        """Draws one micro-batch.

        Without `shifts` every turn keeps its first encoding, without `names` every speaker its number.
        """
        planned = []
        for chunk in chunks:
            oldest = max(0, chunk.first - self.config.past_turns)
            past = self.table.turns_of(chunk.conversation, oldest, chunk.first)
            start = int(self.table.arrays["conversations"][chunk.conversation]) + chunk.first
            drawn = range(start, start + chunk.turns)
            whole = PlannedChunk(past, [self._plan_of_turn(turn, rng, shifts) for turn in drawn])
            if names is not None and names.random() < self.config.local_speaker_share:
                whole = with_local_speakers(whole, self.local_numbers, names)
            planned.append(whole)
        counts = self._counts(turn for chunk in planned for turn in chunk.turns)
        frames = int(counts.frames)
        count = max(1, round(frames * self.config.depth_share)) if frames else 0
        depth_frames = torch.from_numpy(np.sort(rng.permutation(frames)[:count]))
        return MicroBatchPlan(planned, counts, depth_frames)

    def _plan_of_turn(
        self, number: int, rng: np.random.Generator, shifts: np.random.Generator | None
    ) -> PlannedTurn:
        share, jitter = rng.random(2)
        turn = self.table.turn(number) if shifts is None else self._time_shifted(number, shifts)
        stretch = 0.0 if turn.ends is not None else float(2 * jitter - 1) * LENGTH_JITTER
        return PlannedTurn(
            turn,
            transcribed=bool(share < self.config.transcribe_share),
            length=max(1, round(turn.codes.shape[1] * (1 + stretch))),
            trained=turn.speaker not in self.untrained,
        )

    def _time_shifted(self, number: int, rng: np.random.Generator) -> TurnFrames:
        """Draws one of a turn's encodings; a turn that has one only draws nothing."""
        turn = self.table.turn(number)
        others = self.table.encoded_turn(number).shifted[: self.config.time_shifts - 1]
        shift = int(rng.integers(len(others) + 1)) if others else 0
        if not shift:
            return turn
        codes, ends = others[shift - 1], turn.ends
        if ends is not None:
            # The sound begins so much later after the begin of its first frame.
            ends = ends_within(ends + shift / self.config.time_shifts, codes.shape[1])
        return turn._replace(codes=codes, ends=ends)

    def _counts(self, turns: Iterable[PlannedTurn]) -> TargetCounts:
        voice = frames = text = spoken = pace = letters = 0
        for turn, transcribed, _, trained in turns:
            if not trained:
                continue
            if transcribed:
                text += len(self.codec.encode_text(turn.text))
                letters += len(spell(turn.text))
                continue
            voice += turn.codes.shape[1] + 1
            # An end row of zeros trains the depth decoder too: see RowBuilder.
            frames += turn.codes.shape[1] + int(self.end_code == 0)
            spoken += 1
            pace += 0 if turn.ends is None else len(turn.ends) - 1
        return TargetCounts(voice, frames, text, spoken, pace, letters)

    def _build(self, plan: MicroBatchPlan) -> RowBatch:
        """Returns the rows of a plan."""
        builder = RowBuilder(
            self.codec, self.num_codebooks, self.end_code, gradient_turns=self.config.past_gradient_turns
        )
        for past, turns in plan.chunks:
            builder.begin_sequence(past)
            for turn, transcribed, length, trained in turns:
                if transcribed:
                    builder.add_transcribed(turn, train=trained)
                else:
                    builder.add_spoken(turn, length=length, train=trained)
        batch = builder.build()
        frames = (batch.code_target[:, 1] != IGNORE).nonzero()[:, 0]
        assert len(frames) == plan.counts.frames, "the plan counts what the builder makes"
        batch.depth_rows = frames[plan.depth_frames]
        return batch


def _counted(batch: RowBatch, counts: TargetCounts) -> RowBatch:
    return replace(
        batch,
        voice_count=counts.voice,
        frame_count=counts.frames,
        text_count=counts.text,
        turn_count=counts.turns,
        pace_count=counts.pace,
        letter_count=counts.letters,
    )


class RowsOfConversations(Sequence[Sequence[int]]):
    """The rows of every turn of every conversation of a table, made where they are asked for."""

    def __init__(self, table: TurnTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.conversations

    @overload
    def __getitem__(self, place: int) -> Sequence[int]: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Sequence[int]]: ...

    def __getitem__(self, place: int | slice) -> Sequence[int] | Sequence[Sequence[int]]:
        if isinstance(place, slice):
            return [self.table.rows_of(number) for number in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.table.rows_of(place)
