"""Encoded conversations as packed row batches: the batch contract of the model's training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from csm.data.code_shards import EncodedTurn, shifted_id
from csm.data.manifest import Corpus, Turn
from csm.data.sampler import Chunk, ChunkSampler
from csm.data.speakers import speaker_numbers
from csm.data.step_plan import MicroBatchPlan, PlannedChunk, PlannedTurn, StepPlan, TargetCounts
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.row_builder import RowBuilder
from csm.sequences.turns import TurnFrames
from csm.text import TextCodec

# Share by which the length that a text is spread over varies, plus and minus, where the times of its letters
# are not known: generation has only the predicted length of a turn.
LENGTH_JITTER = 0.1


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """How conversations become batches.

    Attributes:
        rows_per_micro_batch: Rows that a micro-batch is filled to.
        max_rows: Most rows of one chunk of a conversation.
        transcribe_share: Share of turns that are transcribed instead of spoken.
        depth_share: Share of frames that train the depth decoder.
        past_turns: Most turns before a chunk that are written into its memory. Of 16 slots, what lies before
            the newest 64 turns has less than 1/10,000 of the gist, where generation still has it.
        past_gradient_turns: The newest of these, through which gradients pass; 0: the memory is read and its
            writing not trained.
        exclude_speakers: Speakers whose turns are context and never a target.
        time_shifts: Encodings of each training turn, of which every visit draws one: encoding n begins
            n/time_shifts of a frame earlier, so that frames are cut elsewhere and most codes are others for
            the same sound. A model of few hours of speech overfits less.

    Raises:
        ValueError: A share or count out of its range.
    """

    rows_per_micro_batch: int = 1200
    max_rows: int = 400
    transcribe_share: float = 0.15
    depth_share: float = 0.25
    past_turns: int = 64
    past_gradient_turns: int = 24
    exclude_speakers: tuple[str, ...] = ()
    time_shifts: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.depth_share <= 1:
            raise ValueError(
                f"depth_share is {self.depth_share}: expected above 0, at most 1 (1/16 is csm-1b's)"
            )
        if not 0 <= self.transcribe_share <= 1:
            raise ValueError(f"transcribe_share is {self.transcribe_share}: expected 0 to 1")
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
        corpus, encoded: The corpus and its codes; a turn without frames or text is left out and counted.
        split: Its split.
        codec, num_codebooks, end_code: Those of the model.
        config: How to draw.
        micro_batches, seed: Those of the run.
        speakers: Number of every speaker's name; None counts them in the corpus's order, over all splits.
        ends: By turn, frames at which `forced_alignment.symbols` of its text end; None: no turn is aligned.

    Attributes:
        conversations: Usable turns of every conversation, in order.
        left_out: Number of turns without codes, frames or text.
        too_long: Number of turns of more than max_rows rows: written to memories, never a target.
        untrained: Ids of the turns of excluded speakers.

    Raises:
        ValueError: No usable turns, none that fits max_rows.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoded: Mapping[str, EncodedTurn],
        split: str,
        *,
        codec: TextCodec,
        num_codebooks: int,
        end_code: int,
        config: DatasetConfig,
        micro_batches: int,
        seed: int,
        speakers: Mapping[str, int] | None = None,
        ends: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.codec, self.num_codebooks, self.end_code = codec, num_codebooks, end_code
        self.config, self.seed = config, seed
        self.untrained: set[str] = set()
        self.left_out = 0
        self._shifted: dict[str, list[EncodedTurn]] = {}
        speakers = speakers or speaker_numbers(corpus.speakers())
        chosen = (c.turns for c in corpus.conversations if c.split == split)
        usable = (self._usable(turns, encoded, speakers, ends or {}) for turns in chosen)
        self.conversations: list[list[TurnFrames]] = [turns for turns in usable if turns]
        if not self.conversations:
            raise ValueError(
                f"{corpus.root} has no usable turns in split {split!r} ({self.left_out} without codes or "
                f"text): encode the corpus with launch/encode_corpus.py and check its texts"
            )
        rows = [[self._rows(turn) for turn in turns] for turns in self.conversations]
        self.too_long = sum(size > config.max_rows for sizes in rows for size in sizes)
        if self.too_long == sum(map(len, rows)):
            raise ValueError(
                f"every turn of split {split!r} has more than max_rows = {config.max_rows} rows: raise "
                f"data.max_rows"
            )
        self.sampler = ChunkSampler(
            rows,
            max_rows=config.max_rows,
            rows_per_micro_batch=config.rows_per_micro_batch,
            micro_batches=micro_batches,
            seed=seed,
        )
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
        chunks, filled = [], 0
        for index, turns in enumerate(self.conversations):
            for chunk in self.sampler.cut(index, [self._rows(t) for t in turns], limit=self.config.max_rows):
                if filled >= rows:
                    break
                chunks.append(chunk)
                filled += sum(self._rows(t) for t in turns[chunk.first : chunk.first + chunk.turns])
        return self._build(self._plan_of(chunks, np.random.default_rng([self.seed, 12])))

    def _usable(
        self,
        turns: Sequence[Turn],
        encoded: Mapping[str, EncodedTurn],
        speakers: Mapping[str, int],
        ends: Mapping[str, torch.Tensor],
    ) -> list[TurnFrames]:
        """Returns a conversation's turns that have codes, frames and text; counts the others."""
        usable = []
        for turn in turns:
            found = encoded.get(turn.id)
            if found is None or not found.codes.shape[1] or not turn.text.strip():
                self.left_out += 1
                continue
            speaker = speakers[turn.speaker]
            frames = TurnFrames(turn.id, turn.text, speaker, found.codes.long(), found.prosody.float())
            usable.append(frames._replace(ends=_ends_of_ids(ends.get(turn.id), frames)))
            names = (shifted_id(turn.id, shift) for shift in range(1, self.config.time_shifts))
            self._shifted[turn.id] = [encoded[name] for name in names if name in encoded]
            if turn.speaker in self.config.exclude_speakers:
                self.untrained.add(turn.id)
        return usable

    def _rows(self, turn: TurnFrames) -> int:
        return len(self.codec.encode_turn(turn.text, turn.speaker)) + turn.codes.shape[1] + 1

    def _step_plan(self, step: int) -> StepPlan:
        """Draws a step. Each micro-batch has its own generators, one of them for time shifts alone."""
        return StepPlan(
            [
                self._plan_of(
                    chunks,
                    np.random.default_rng([self.seed, 11, step, number]),
                    np.random.default_rng([self.seed, 13, step, number]),
                )
                for number, chunks in enumerate(self.sampler.step(step))
            ]
        )

    def _plan_of(
        self, chunks: Sequence[Chunk], rng: np.random.Generator, shifts: np.random.Generator | None = None
    ) -> MicroBatchPlan:
        """Draws one micro-batch; without `shifts` every turn keeps its first encoding."""
        planned = []
        for chunk in chunks:
            turns = self.conversations[chunk.conversation]
            past = turns[max(0, chunk.first - self.config.past_turns) : chunk.first]
            drawn = turns[chunk.first : chunk.first + chunk.turns]
            planned.append(PlannedChunk(past, [self._plan_of_turn(turn, rng, shifts) for turn in drawn]))
        counts = self._counts(turn for chunk in planned for turn in chunk.turns)
        frames = int(counts.frames)
        count = max(1, round(frames * self.config.depth_share)) if frames else 0
        depth_frames = torch.from_numpy(np.sort(rng.permutation(frames)[:count]))
        return MicroBatchPlan(planned, counts, depth_frames)

    def _plan_of_turn(
        self, turn: TurnFrames, rng: np.random.Generator, shifts: np.random.Generator | None
    ) -> PlannedTurn:
        share, jitter = rng.random(2)
        shifted = turn if shifts is None else self._time_shifted(turn, shifts)
        stretch = 0.0 if shifted.ends is not None else float(2 * jitter - 1) * LENGTH_JITTER
        return PlannedTurn(
            shifted,
            transcribed=bool(share < self.config.transcribe_share),
            length=max(1, round(shifted.codes.shape[1] * (1 + stretch))),
            trained=turn.id not in self.untrained,
        )

    def _time_shifted(self, turn: TurnFrames, rng: np.random.Generator) -> TurnFrames:
        """Draws one of a turn's encodings; a turn that has one only draws nothing."""
        others = self._shifted[turn.id]
        shift = int(rng.integers(len(others) + 1)) if others else 0
        if not shift:
            return turn
        codes, prosody = others[shift - 1].codes.long(), others[shift - 1].prosody.float()
        ends = turn.ends
        if ends is not None:
            # The sound begins so much later after the begin of its first frame.
            ends = _within(ends + shift / self.config.time_shifts, codes.shape[1])
        return turn._replace(codes=codes, prosody=prosody, ends=ends)

    def _counts(self, turns: Iterable[PlannedTurn]) -> TargetCounts:
        voice = frames = text = spoken = pace = 0
        for turn, transcribed, _, trained in turns:
            if not trained:
                continue
            if transcribed:
                text += len(self.codec.encode_text(turn.text))
                continue
            voice += turn.codes.shape[1] + 1
            # An end row of zeros trains the depth decoder too: see RowBuilder.
            frames += turn.codes.shape[1] + int(self.end_code == 0)
            spoken += 1
            pace += 0 if turn.ends is None else len(turn.ends) - 1
        return TargetCounts(voice, frames, text, spoken, pace)

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
    batch.voice_count, batch.frame_count, batch.text_count, batch.turn_count, batch.pace_count = counts
    return batch


def _ends_of_ids(symbols: torch.Tensor | None, turn: TurnFrames) -> torch.Tensor | None:
    """Returns the ends of the ids of `encode_turn` from those of the symbols; its begin lasts no time."""
    if symbols is None:
        return None
    return _within(torch.cat([torch.zeros(1), symbols.float()]), turn.codes.shape[1])


def _within(ends: torch.Tensor, frames: int) -> torch.Tensor:
    """Returns the ends limited to a number of frames, the first at 0 and the last at the turn's end."""
    ends = ends.clamp(max=frames)
    ends[0], ends[-1] = 0, frames
    return ends
