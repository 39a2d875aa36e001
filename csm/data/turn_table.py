"""The turns of one split that a training can use, as arrays: what a rank holds of a corpus.

Python objects of a turn take a kilobyte; here it takes its text and some 50 bytes, which a file of the same
arrays maps into memory. Codes stay in their shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csm.data.code_shards import CodeShards, EncodedTurn
from csm.data.manifest import Conversation, Turn
from csm.sequences.turns import TurnFrames
from csm.text import TextCodec

Array: TypeAlias = NDArray[Any]


class TurnTable:
    """The usable turns of a split, in order: those with codes, frames and a text.

    Args:
        arrays: By name. `conversations` int64 [C + 1]: first turn of each conversation, and the total.
            `speaker`, `frames`, `text_rows` int32 [N]: of each turn; `text_rows` counts the ids of its
            `encode_turn`. `shard`, `row` int32 [N]: where its codes are, -1 outside of shards. `id`, `text`
            uint8: all of them end to end; `id_starts`, `text_starts` int64 [N + 1]. `ends` float32,
            `ends_starts` int64 [N + 1]: frames at which the symbols of the texts end.
        encoded: The turns' codes.
    """

    def __init__(self, arrays: Mapping[str, Array], encoded: Mapping[str, EncodedTurn]) -> None:
        self.arrays, self.encoded = arrays, encoded
        self.conversations = len(arrays["conversations"]) - 1

    def __len__(self) -> int:
        return len(self.arrays["frames"])

    def rows(self, first: int, last: int) -> NDArray[np.int32]:
        """Returns the rows of turns `first` to `last` - 1: those of the text, the frames and an end row."""
        texts, frames = (self.arrays[name][first:last] for name in ("text_rows", "frames"))
        return np.asarray(texts + frames + 1, dtype=np.int32)

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
        text, speaker = self.text_of(number), int(self.arrays["speaker"][number])
        ends = self._part("ends", number)
        aligned = torch.from_numpy(ends.copy()) if len(ends) else None
        frames = TurnFrames(found.id, text, speaker, found.codes, found.prosody.float())
        return frames._replace(ends=ends_of_ids(aligned, frames.codes.shape[1]))

    def encoded_turn(self, number: int) -> EncodedTurn:
        """Returns the codes of a turn in all time shifts."""
        name = self.id_of(number)
        if isinstance(self.encoded, CodeShards):
            return self.encoded.at(int(self.arrays["shard"][number]), int(self.arrays["row"][number]), name)
        return self.encoded[name]

    def id_of(self, number: int) -> str:
        """Returns the id of a turn."""
        return bytes(self._part("id", number)).decode()

    def text_of(self, number: int) -> str:
        """Returns the text of a turn."""
        return bytes(self._part("text", number)).decode()

    def _part(self, name: str, number: int) -> Array:
        first, last = self.arrays[f"{name}_starts"][number : number + 2].tolist()
        return self.arrays[name][first:last]


def table_of(
    conversations: Iterable[Conversation],
    encoded: Mapping[str, EncodedTurn],
    codec: TextCodec,
    speakers: Mapping[str, int],
    ends: Mapping[str, Tensor] | None = None,
) -> tuple[TurnTable, list[Turn]]:
    """Makes the table of conversations; returns it and the turns without codes, frames or text.

    Args:
        conversations: Those of a split, in order; one without a usable turn is left out.
        encoded: Their codes.
        codec: Text codec of the model.
        speakers: Number of every speaker's name.
        ends: By turn, frames at which `forced_alignment.symbols` of its text end; None: no turn is aligned.
    """
    kept: list[Turn] = []
    left_out: list[Turn] = []
    starts = [0]
    for conversation in conversations:
        usable = [turn for turn in conversation.turns if turn.text.strip() and _frames(encoded, turn.id)]
        chosen = {turn.id for turn in usable}
        left_out.extend(turn for turn in conversation.turns if turn.id not in chosen)
        kept.extend(usable)
        if usable:
            starts.append(len(kept))
    places = [_place(encoded, turn.id) for turn in kept]
    numbers = [speakers[turn.speaker] for turn in kept]
    text_rows = [len(codec.encode_turn(t.text, n)) for t, n in zip(kept, numbers, strict=True)]
    columns = {
        "speaker": numbers,
        "frames": [_frames(encoded, turn.id) for turn in kept],
        "text_rows": text_rows,
        "shard": [shard for shard, _ in places],
        "row": [row for _, row in places],
    }
    arrays: dict[str, Array] = {name: np.array(values, np.int32) for name, values in columns.items()}
    arrays["conversations"] = np.array(starts, np.int64)
    for name, values in (("id", [t.id for t in kept]), ("text", [t.text for t in kept])):
        arrays |= _joined(name, [np.frombuffer(value.encode(), np.uint8) for value in values], np.uint8)
    none = np.zeros(0, np.float32)
    aligned = [none if ends is None or t.id not in ends else ends[t.id].float().numpy() for t in kept]
    arrays |= _joined("ends", aligned, np.float32)
    return TurnTable(arrays, encoded), left_out


def _joined(name: str, parts: Sequence[Array], kind: type) -> dict[str, Array]:
    starts = np.array([0, *accumulate(map(len, parts))], np.int64)
    return {name: np.concatenate([np.zeros(0, kind), *parts]), f"{name}_starts": starts}


def _frames(encoded: Mapping[str, EncodedTurn], name: str) -> int:
    if isinstance(encoded, CodeShards):
        return encoded.frames_of(name)
    return encoded[name].codes.shape[1] if name in encoded else 0


def _place(encoded: Mapping[str, EncodedTurn], name: str) -> tuple[int, int]:
    return encoded.places[name] if isinstance(encoded, CodeShards) else (-1, -1)


def ends_of_ids(symbols: Tensor | None, frames: int) -> Tensor | None:
    """Returns the ends of the ids of `encode_turn` from those of the symbols; its begin lasts no time."""
    if symbols is None:
        return None
    return ends_within(torch.cat([torch.zeros(1), symbols.float()]), frames)


def ends_within(ends: Tensor, frames: int) -> Tensor:
    """Returns the ends limited to a number of frames, the first at 0 and the last at the turn's end."""
    ends = ends.clamp(max=frames)
    ends[0], ends[-1] = 0, frames
    return ends
