"""Encoded conversations as packed row batches: the batch contract of the model's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from csm.data.code_shards import EncodedTurn, version_id, version_speed
from csm.data.manifest import Corpus
from csm.data.sampler import Chunk, ChunkSampler
from csm.data.speakers import speaker_numbers
from csm.sequences.packed_batch import IGNORE, RowBatch
from csm.sequences.row_builder import RowBuilder
from csm.sequences.turns import TurnFrames
from csm.text import TextCodec


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """How conversations become batches.

    Attributes:
        rows_per_shard: Rows a shard is filled to; max_rows: most rows of one chunk of a conversation.
        transcribe_share: Share of turns that are heard and written instead of spoken.
        depth_share: Share of frames that train the depth decoder.
        length_jitter: The length a spoken turn's text is spread over varies by this share, plus and minus,
            where it is not known when each letter is said.
        past_turns: Most turns before a chunk that are written into its memory. Of 16 slots, what lies before
            the newest 64 turns has less than 1/10,000 of the gist, where generation still has it.
        past_gradient_turns: The newest of these, through which gradients pass; 0: the memory is read and its
            writing not trained.
        exclude_speakers: Speakers whose turns are heard in context but never trained on.
        versions: Encodings of each training turn, of which every visit draws one: version v begins v/versions
            of a frame earlier, so that frames are cut elsewhere and most codes are others for the same sound.
            A model of few hours learns less of them by heart.
        speeds: Version v is played at the v-th of these, which begin with 1 and come again after the last.
            Played faster or slower, a voice is another speaker, with a number of its own: few voices become
            many.

    Raises:
        ValueError: A share, jitter or count out of its range.
    """

    rows_per_shard: int = 1200
    max_rows: int = 400
    transcribe_share: float = 0.15
    depth_share: float = 0.25
    length_jitter: float = 0.1
    past_turns: int = 64
    past_gradient_turns: int = 24
    exclude_speakers: tuple[str, ...] = ()
    versions: int = 1
    speeds: tuple[float, ...] = (1.0,)

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
        if self.versions < 1:
            raise ValueError(f"versions is {self.versions}: expected at least 1")
        if not self.speeds or self.speeds[0] != 1 or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds is {list(self.speeds)}: expected 1 first, then numbers from 0.5 to 2")
        if len(self.speeds) > self.versions:
            raise ValueError(
                f"speeds has {len(self.speeds)} entries and versions is {self.versions}: expected versions "
                f"of at least that"
            )
        if self.max_rows < 1:
            raise ValueError(f"max_rows is {self.max_rows}: expected at least 1")
        if not 0 <= self.length_jitter < 1:
            raise ValueError(f"length_jitter is {self.length_jitter}: expected 0 to below 1")
        if self.max_rows > self.rows_per_shard:
            raise ValueError(
                f"max_rows is {self.max_rows}: expected at most rows_per_shard {self.rows_per_shard}"
            )

    @property
    def different_speeds(self) -> list[float]:
        """Each speed once, 1 first: the voices that one speaker has."""
        return list(dict.fromkeys(self.speeds))


class ConversationDataset:
    """Turns of one split with codes and text, drawn as a pure function of (seed, step, shard).

    Args:
        corpus, encoded: The corpus and its codes; a turn without frames or text is left out and counted.
        split: Its split.
        codec, num_codebooks, end_code: Of the model.
        config: How to draw.
        shards, seed: Of the run.
        speakers: Number of every speaker's name; None counts them in the corpus's order, over all splits.
        ends: By turn, frames at which `forced_alignment.symbols` of its text end; None: nobody knows.

    Attributes:
        conversations: Usable turns of every conversation, in order.
        left_out: Turns without codes, frames or text.
        too_long: Turns of more than max_rows rows: remembered, never drawn.
        untrained: Ids of the turns of excluded speakers.

    Raises:
        ValueError: No usable turns, none that fits max_rows.
    """

    def __init__(
        self,
        corpus: Corpus,
        encoded: dict[str, EncodedTurn],
        split: str,
        *,
        codec: TextCodec,
        num_codebooks: int,
        end_code: int,
        config: DatasetConfig,
        shards: int,
        seed: int,
        speakers: Mapping[str, int] | None = None,
        ends: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.codec, self.num_codebooks, self.end_code = codec, num_codebooks, end_code
        self.config, self.seed = config, seed
        speakers = speakers or speaker_numbers(corpus.speakers())
        self.conversations: list[list[TurnFrames]] = []
        self.untrained: set[str] = set()
        ends = ends or {}
        self._others: dict[str, list[EncodedTurn]] = {}
        # Numbers that lie between a speaker's and those of the same voice at other speeds.
        self._apart = max(speakers.values(), default=0) + 1
        self.left_out = 0
        for conversation in corpus.conversations:
            if conversation.split != split:
                continue
            turns = []
            for turn in conversation.turns:
                found = encoded.get(turn.id)
                if found is None or not found.codes.shape[1] or not turn.text.strip():
                    self.left_out += 1
                    continue
                speaker = speakers[turn.speaker]
                frames = TurnFrames(turn.id, turn.text, speaker, found.codes.long(), found.prosody.float())
                turns.append(frames._replace(ends=_ends_of_ids(ends.get(turn.id), frames)))
                names = (version_id(turn.id, number) for number in range(1, config.versions))
                self._others[turn.id] = [encoded[name] for name in names if name in encoded]
                if turn.speaker in config.exclude_speakers:
                    self.untrained.add(turn.id)
            if turns:
                self.conversations.append(turns)
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
            rows, max_rows=config.max_rows, rows_per_shard=config.rows_per_shard, shards=shards, seed=seed
        )
        self._counts = lru_cache(maxsize=4)(self._step_counts)

    def batch(self, step: int, shard: int) -> RowBatch:
        """The rows of one shard (from 0) of one step (from 1), whichever rank asks and in any order.

        Raises:
            ValueError: A step below 1.
        """
        batch = self._build(
            self.sampler.step(step)[shard],
            np.random.default_rng([self.seed, 11, step, shard]),
            np.random.default_rng([self.seed, 13, step, shard]),
        )
        counts = self._counts(step)
        batch.voice_count, batch.frame_count, batch.text_count, batch.turn_count, batch.pace_count = counts
        return batch

    def in_order(self, rows: int) -> RowBatch:
        """About `rows` rows of whole conversations from the start, for validation: the same at every call."""
        chunks, filled = [], 0
        for index, turns in enumerate(self.conversations):
            for chunk in self.sampler.cut(index, [self._rows(t) for t in turns], limit=self.config.max_rows):
                chunks.append(chunk)
                filled += sum(self._rows(t) for t in turns[chunk.first : chunk.first + chunk.turns])
                if filled >= rows:
                    return self._build(chunks, np.random.default_rng([self.seed, 12]))
        return self._build(chunks, np.random.default_rng([self.seed, 12]))

    def _rows(self, turn: TurnFrames) -> int:
        return len(self.codec.encode_turn(turn.text, turn.speaker)) + turn.codes.shape[1] + 1

    def _step_counts(self, step: int) -> tuple[float, float, float, float, float]:
        """Targets of a whole step per shard, from the plan alone (each shard's draws are repeated)."""
        voice = frames = text = spoken = pace = 0
        plan = self.sampler.step(step)
        for shard, chunks in enumerate(plan):
            rng = np.random.default_rng([self.seed, 11, step, shard])
            versions = np.random.default_rng([self.seed, 13, step, shard])
            for chunk in chunks:
                for first in self._turns(chunk):
                    transcribe, _ = self._draw(rng)
                    turn = self._version(first, versions)
                    if turn.id in self.untrained:
                        continue
                    if transcribe:
                        text += len(self.codec.encode_text(turn.text))
                    else:
                        voice += turn.codes.shape[1] + 1
                        # An end row of zeros is for the depth decoder too: see RowBuilder.
                        frames += turn.codes.shape[1] + int(self.end_code == 0)
                        spoken += 1
                        if turn.ends is not None:
                            pace += len(turn.ends) - 1
        shards = len(plan)
        return voice / shards, frames / shards, text / shards, spoken / shards, pace / shards

    def _turns(self, chunk: Chunk) -> list[TurnFrames]:
        return self.conversations[chunk.conversation][chunk.first : chunk.first + chunk.turns]

    def _draw(self, rng: np.random.Generator) -> tuple[bool, float]:
        """Whether a turn is transcribed, and how much its length is jittered; always two draws."""
        share, jitter = rng.random(2)
        return bool(share < self.config.transcribe_share), float(2 * jitter - 1) * self.config.length_jitter

    def _version(self, turn: TurnFrames, rng: np.random.Generator | None) -> TurnFrames:
        others = self._others[turn.id]
        number = 0 if rng is None or not others else int(rng.integers(len(others) + 1))
        if not number:
            return turn
        codes, prosody = others[number - 1].codes.long(), others[number - 1].prosody.float()
        speed = version_speed(number, self.config.speeds)
        voice = self.config.different_speeds.index(speed)
        ends = turn.ends
        if ends is not None:
            # It begins so much later after its first frame's begin.
            ends = _within(ends / speed + number / self.config.versions, codes.shape[1])
        return turn._replace(
            speaker=turn.speaker + voice * self._apart, codes=codes, prosody=prosody, ends=ends
        )

    def _build(
        self, chunks: list[Chunk], rng: np.random.Generator, versions: np.random.Generator | None = None
    ) -> RowBatch:
        """Rows of chunks; `versions` draws which encoding of each turn, None takes the first."""
        builder = RowBuilder(
            self.codec,
            self.num_codebooks,
            self.end_code,
            gradient_turns=self.config.past_gradient_turns,
        )
        for chunk in chunks:
            oldest = max(0, chunk.first - self.config.past_turns)
            builder.begin_sequence(self.conversations[chunk.conversation][oldest : chunk.first])
            for turn in self._turns(chunk):
                transcribe, jitter = self._draw(rng)
                train = turn.id not in self.untrained
                turn = self._version(turn, versions)
                if transcribe:
                    builder.add_transcribed(turn, train=train)
                else:
                    jitter = jitter if turn.ends is None else 0.0
                    length = max(1, round(turn.codes.shape[1] * (1 + jitter)))
                    builder.add_spoken(turn, length=length, train=train)
        batch = builder.build()
        frames = (batch.code_target[:, 1] != IGNORE).nonzero()[:, 0]
        count = max(1, round(len(frames) * self.config.depth_share)) if len(frames) else 0
        batch.depth_rows = frames[torch.from_numpy(np.sort(rng.permutation(len(frames))[:count]))]
        return batch


def _ends_of_ids(symbols: torch.Tensor | None, turn: TurnFrames) -> torch.Tensor | None:
    """Ends of the ids of `encode_turn` from those of the symbols: its begin lasts no time."""
    if symbols is None:
        return None
    return _within(torch.cat([torch.zeros(1), symbols.float()]), turn.codes.shape[1])


def _within(ends: torch.Tensor, frames: int) -> torch.Tensor:
    """The same ends in a turn of so many frames, the last one at its end; the begin stays where it is."""
    ends = ends.clamp(max=frames)
    ends[0], ends[-1] = 0, frames
    return ends
