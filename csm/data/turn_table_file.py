"""Tables of a corpus' turns: made of manifest, codes and alignment, and kept as a file that is mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from csm.data.code_shards import CodeShards, EncodedTurn, opened
from csm.data.emphasis import is_marked_turn, marked_text
from csm.data.manifest import Corpus, Turn
from csm.data.tensor_columns import TensorColumns, new_tensor_file
from csm.data.turn_table import NAMED, TableFacts, TurnTable
from csm.system.digests import record_digests, require_intact
from csm.text import EmphasisCodec, TextCodec

KINDS: dict[str, type[np.generic]] = {
    **dict.fromkeys(("conversations", "id_starts", "text_starts", "ends_starts"), np.int64),
    **dict.fromkeys(("speaker", "frames", "text_rows", "shard", "row"), np.int32),
    **dict.fromkeys(("id", "text"), np.uint8),
    "ends": np.float32,
}
# A table is hashed at every start of a training up to this size, some 10,000 hours; of a larger one the size
# is compared.
HASHED_BYTES = 2**30
REMEDY = "delete its folder: the training writes it again"


def table_of(
    corpus: Corpus,
    encoded: Mapping[str, EncodedTurn],
    split: str,
    codec: TextCodec,
    *,
    numbers: Mapping[str, int],
    ends: Mapping[str, Tensor] | None = None,
    path: Path | None = None,
) -> TurnTable:
    """Makes the table of a split.

    Args:
        corpus, encoded: The corpus and its codes.
        split: Its split; a conversation without a usable turn is left out.
        codec: Text codec of the model.
        numbers: The model's number of every speaker.
        ends: By turn, frames at which `forced_alignment.symbols` of its text end; None: no turn is aligned.
        path: File that the table is written to and mapped from, with its SHA-256 in the folder's sha256.json;
            a conversation is held for it, and the ids of all conversations without frames, of which
            `require_fit` takes none. None: the table is in memory.

    Raises:
        ValueError: A turn has another number of symbols than are aligned.
        OSError: The file cannot be written.
    """
    maker = _TableMaker(corpus, encoded, split, codec, numbers, ends or {})
    if path is None:
        columns = TensorColumns(KINDS)
        facts = maker.append_to(columns)
        return TurnTable(columns.arrays(), encoded, facts, numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_tensor_file(path, {**KINDS, "facts": np.uint8}) as columns:
        columns.append("facts", _bytes(json.dumps(asdict(maker.append_to(columns)))))
    record_digests(path.parent, [path.name])
    return read_table(path, encoded, numbers)


class _Found(NamedTuple):
    """A turn, the shard and row of its codes (-1 outside of shards), and its frames (0 without codes)."""

    turn: Turn
    shard: int
    row: int
    frames: int


class _TableMaker(NamedTuple):
    """Makes the rows of a table, conversation by conversation; its fields are as `table_of` takes them."""

    corpus: Corpus
    encoded: Mapping[str, EncodedTurn]
    split: str
    codec: TextCodec
    numbers: Mapping[str, int]
    ends: Mapping[str, Tensor]

    def append_to(self, columns: TensorColumns) -> TableFacts:
        """Appends all turns to the columns of an empty table."""
        for name in KINDS:
            columns.append(name, [0] if name == "conversations" or name.endswith("_starts") else [])
        names = self.corpus.speakers()
        places = {name: place for place, name in enumerate(names)}
        count = left_out = 0
        seconds = 0.0
        ids: list[str] = []
        silent: list[str] = []
        for conversation in self.corpus.conversations_of(self.split):
            found = [self._found(turn) for turn in conversation.turns]
            usable = [one for one in found if one.frames and one.turn.text.strip()]
            if usable:
                count += len(usable)
                columns.append("conversations", [count])
                self._append(columns, usable, places)
            if not any(one.frames for one in found):
                silent.append(conversation.id)
            for turn in (one.turn for one in found if not (one.frames and one.turn.text.strip())):
                left_out += 1
                seconds += turn.duration
                ids += [turn.id] if len(ids) < NAMED else []
        return TableFacts(
            split=self.split,
            source=str(self.corpus.root),
            speakers=tuple(names),
            left_out=left_out,
            left_out_minutes=seconds / 60,
            left_out_ids=tuple(ids),
            silent=tuple(silent),
        )

    def _found(self, turn: Turn) -> _Found:
        if not isinstance(self.encoded, CodeShards):
            frames = self.encoded[turn.id].codes.shape[1] if turn.id in self.encoded else 0
            return _Found(turn, -1, -1, frames)
        place = self.encoded.place_of(turn.id)
        return (
            _Found(turn, -1, -1, 0) if place is None else _Found(turn, *place, self.encoded.frames_at(*place))
        )

    def _append(self, columns: TensorColumns, found: Sequence[_Found], places: Mapping[str, int]) -> None:
        ends = [self.ends.get(one.turn.id) for one in found]
        texts = [self._text(one.turn, times) for one, times in zip(found, ends, strict=True)]
        # Some text codecs spell the number of the speaker.
        rows = [
            len(self.codec.encode_turn(text, self.numbers[one.turn.speaker]))
            for text, one in zip(texts, found, strict=True)
        ]
        for one, times, count in zip(found, ends, rows, strict=True):
            _require_aligned(one.turn, times, count)
        columns.append("speaker", [places[one.turn.speaker] for one in found])
        columns.append("text_rows", rows)
        for name in ("frames", "shard", "row"):
            columns.append(name, [getattr(one, name) for one in found])
        columns.append_parts("id", [_bytes(one.turn.id) for one in found])
        columns.append_parts("text", [_bytes(text) for text in texts])
        none = np.zeros(0, np.float32)
        columns.append_parts("ends", [none if times is None else times.float().numpy() for times in ends])

    def _text(self, turn: Turn, ends: Tensor | None) -> str:
        """Returns the text of a turn; of some aligned turns with emphasised words in capitals."""
        if ends is None or not isinstance(self.codec, EmphasisCodec) or not is_marked_turn(turn.id):
            return turn.text
        return marked_text(self.codec, turn.id, turn.text, ends, self.encoded[turn.id].prosody.float())


def _require_aligned(turn: Turn, ends: Tensor | None, rows: int) -> None:
    """Refuses an alignment with another number of symbols than the turn's text is encoded to."""
    if ends is not None and len(ends) != rows - 1:  # the begin of `encode_turn` is not aligned
        raise ValueError(
            f"turn {turn.id}: {len(ends)} symbols of its text are aligned, the text codec gives {rows - 1}: "
            f"texts or their pronunciation have changed; run csm encode again, which aligns again"
        )


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def read_table(path: Path, encoded: Mapping[str, EncodedTurn], numbers: Mapping[str, int]) -> TurnTable:
    """Returns the table of a file, mapped and not read.

    Args:
        path: Of the file.
        encoded, numbers: As `TurnTable` takes them.

    Raises:
        ValueError: It is missing or damaged.
    """
    require_intact(path, REMEDY, listed=True, hashed_bytes=HASHED_BYTES)
    with opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in KINDS}
        content = bytes(file.get_tensor("facts").numpy())
    turns = len(tensors["frames"])
    lengths = {"id_starts": turns + 1, "text_starts": turns + 1, "ends_starts": turns + 1}
    lengths |= dict.fromkeys(("speaker", "text_rows", "shard", "row"), turns)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    if any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in KINDS.items()) or any(
        len(tensors[name]) != length for name, length in lengths.items()
    ):
        raise ValueError(f"{path} is damaged (its tensors do not fit each other); {REMEDY}")
    try:
        kept = json.loads(content)
        found: dict[str, Any] = {item.name: _frozen(kept[item.name]) for item in fields(TableFacts)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); {REMEDY}") from error
    facts = TableFacts(**found)
    return TurnTable(arrays, encoded, facts, numbers)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
