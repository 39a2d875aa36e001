"""The turns of one split that a training can use, as arrays: what a rank holds of a corpus.

Python objects of a turn take a kilobyte; here it takes its text and some 50 bytes, which a file of the same
arrays maps into memory (`turn_table_file`). Codes stay in their shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csm.data.code_shards import CodeShards, EncodedTurn
from csm.data.id_index import HashIndex, id_hash
from csm.sequences.turns import TurnFrames

Array: TypeAlias = NDArray[Any]
NAMED = 5  # turns whose ids are given where many are meant
BLOCK = 1 << 20  # turns that are looked at together


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What a table says of its split beside the turns.

    Attributes:
        split: The split.
        source: Folder of the corpus, for messages.
        speakers: Names of all speakers of the corpus, in its order.
        left_out: Turns without codes, frames or text; left_out_minutes: their duration; left_out_ids: those
            of the first.
        silent: Conversations of which no turn has frames.
    """

    split: str
    source: str
    speakers: tuple[str, ...]
    left_out: int
    left_out_minutes: float
    left_out_ids: tuple[str, ...]
    silent: tuple[str, ...]


class LongTurns(NamedTuple):
    """The turns of a table that have more rows than a limit.

    Attributes:
        turns: Their number; frames: their frames together; ids: those of the first.
    """

    turns: int
    frames: int
    ids: tuple[str, ...]


class TurnTable:
    """The usable turns of a split, in order: those with codes, frames and a text.

    Args:
        arrays: By name. `conversations` int64 [C + 1]: first turn of each conversation, and the total.
            `speaker`, `frames`, `text_rows` int32 [N]: of each turn; `speaker` is a place in
            `facts.speakers`, `text_rows` counts the ids of its `encode_turn`. `shard`, `row` int32 [N]: where
            its codes are, -1 outside of shards. `id`, `text` uint8: all of them end to end; `id_starts`,
            `text_starts` int64 [N + 1]. `ends` float32, `ends_starts` int64 [N + 1]: frames at which the
            symbols of the texts end.
        encoded: The turns' codes.
        facts: Of the split.
        numbers: The model's number of every speaker.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        encoded: Mapping[str, EncodedTurn],
        facts: TableFacts,
        numbers: Mapping[str, int],
    ) -> None:
        self.arrays, self.encoded, self.facts, self.numbers = arrays, encoded, facts, numbers
        self.conversations = len(arrays["conversations"]) - 1

    def __len__(self) -> int:
        return len(self.arrays["frames"])

    def rows(self, first: int, last: int) -> NDArray[np.int32]:
        """Returns the rows of turns `first` to `last` - 1: those of the text, the frames and an end row."""
        texts, frames = (self.arrays[name][first:last] for name in ("text_rows", "frames"))
        return np.asarray(texts + frames + 1, dtype=np.int32)

    def longer_than(self, limit: int) -> LongTurns:
        """Returns the turns of more than `limit` rows."""
        count = frames = 0
        ids: list[str] = []
        for first in range(0, len(self), BLOCK):
            places = first + np.flatnonzero(self.rows(first, first + BLOCK) > limit)
            count += len(places)
            frames += int(self.arrays["frames"][places].sum(dtype=np.int64))
            ids += [self.id_of(int(place)) for place in places[: NAMED - len(ids)]]
        return LongTurns(count, frames, tuple(ids))

    def rows_of(self, conversation: int) -> list[int]:
        """Returns the rows of every turn of a conversation."""
        first, last = self.arrays["conversations"][conversation : conversation + 2].tolist()
        found: list[int] = self.rows(first, last).tolist()
        return found

    def turns_of(self, conversation: int, first: int, last: int) -> list[TurnFrames]:
        """Returns the turns `first` to `last` - 1 of a conversation, with their codes."""
        start = int(self.arrays["conversations"][conversation])
        return [self.turn(start + number) for number in range(first, last)]

    def turn(self, number: int) -> TurnFrames:
        """Returns a turn in its first time shift."""
        found = self.encoded_turn(number)
        speaker = self.numbers[self.facts.speakers[int(self.arrays["speaker"][number])]]
        ends = self._part("ends", number)
        frames = TurnFrames(found.id, self.text_of(number), speaker, found.codes, found.prosody.float())
        if not len(ends):
            return frames
        return frames._replace(ends=ends_of_ids(torch.from_numpy(ends.copy()), found.codes.shape[1]))

    def encoded_turn(self, number: int) -> EncodedTurn:
        """Returns the codes of a turn in all time shifts."""
        name = self.id_of(number)
        if isinstance(self.encoded, CodeShards):
            return self.encoded.at(int(self.arrays["shard"][number]), int(self.arrays["row"][number]), name)
        return self.encoded[name]

    def id_of(self, number: int) -> str:
        """Returns the id of a turn."""
        return bytes(self._part("id", number)).decode()

    def place_of(self, turn: str) -> int | None:
        """Returns the number of a turn by its id, None where it has none; holds 12 bytes a turn for it."""
        return next(
            (number for number in self._hashes.places(id_hash(turn)) if self.id_of(number) == turn), None
        )

    @cached_property
    def _hashes(self) -> HashIndex:
        hashes = bytearray()
        for number in range(len(self)):
            hashes += id_hash(self.id_of(number))
        return HashIndex(np.frombuffer(hashes, np.uint64))

    def text_of(self, number: int) -> str:
        """Returns the text of a turn."""
        return bytes(self._part("text", number)).decode()

    def _part(self, name: str, number: int) -> Array:
        first, last = self.arrays[f"{name}_starts"][number : number + 2].tolist()
        return self.arrays[name][first:last]


def ends_of_ids(symbols: Tensor, frames: int) -> Tensor:
    """Returns the ends of the ids of `encode_turn` from those of the symbols; its begin lasts no time."""
    return ends_within(torch.cat([torch.zeros(1), symbols.float()]), frames)


def ends_within(ends: Tensor, frames: int) -> Tensor:
    """Returns the ends limited to a number of frames, the first at 0 and the last at the turn's end."""
    ends = ends.clamp(max=frames)
    ends[0], ends[-1] = 0, frames
    return ends
