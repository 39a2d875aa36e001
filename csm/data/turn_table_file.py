"""Tables of a corpus' turns: made of manifest, codes and alignment, and kept as a file that is mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from csm.data.code_shards import CodeShards, EncodedTurn, bytes_tensor, opened
from csm.data.emphasis import is_marked_turn, marked_text
from csm.data.manifest import Corpus, Turn
from csm.data.turn_table import Array, TableFacts, TurnTable
from csm.system.digests import record_digests, require_intact
from csm.system.files import new_file
from csm.text import EmphasisCodec, TextCodec

KINDS = {
    **dict.fromkeys(("conversations", "id_starts", "text_starts", "ends_starts"), torch.int64),
    **dict.fromkeys(("speaker", "frames", "text_rows", "shard", "row"), torch.int32),
    **dict.fromkeys(("id", "text"), torch.uint8),
    "ends": torch.float32,
}
NAMED = 5  # turns left out whose ids are kept
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
) -> TurnTable:
    """Makes the table of a split.

    Args:
        corpus, encoded: The corpus and its codes.
        split: Its split; a conversation without a usable turn is left out.
        codec: Text codec of the model.
        numbers: The model's number of every speaker.
        ends: By turn, frames at which `forced_alignment.symbols` of its text end; None: no turn is aligned.
    """
    kept: list[Turn] = []
    left_out: list[Turn] = []
    silent: list[str] = []
    starts = [0]
    for conversation in (c for c in corpus.conversations if c.split == split):
        voiced = [turn for turn in conversation.turns if _frames(encoded, turn.id)]
        usable = [turn for turn in voiced if turn.text.strip()]
        chosen = {turn.id for turn in usable}
        left_out.extend(turn for turn in conversation.turns if turn.id not in chosen)
        kept.extend(usable)
        if usable:
            starts.append(len(kept))
        if not voiced:
            silent.append(conversation.id)
    names = corpus.speakers()
    facts = TableFacts(
        split=split,
        source=str(corpus.root),
        speakers=tuple(names),
        left_out=len(left_out),
        left_out_minutes=sum(turn.duration for turn in left_out) / 60,
        left_out_ids=tuple(turn.id for turn in left_out[:NAMED]),
        silent=tuple(silent),
    )
    ends = ends or {}
    if isinstance(codec, EmphasisCodec):
        kept = [replace(turn, text=_marked(codec, turn, encoded, ends)) for turn in kept]
    arrays = _arrays(kept, encoded, ends)
    places = {name: place for place, name in enumerate(names)}
    arrays["speaker"] = np.array([places[turn.speaker] for turn in kept], np.int32)
    # Some text codecs spell the number of the speaker.
    ids = (codec.encode_turn(turn.text, numbers[turn.speaker]) for turn in kept)
    arrays["text_rows"] = np.array([len(of_turn) for of_turn in ids], np.int32)
    arrays["conversations"] = np.array(starts, np.int64)
    return TurnTable(arrays, encoded, facts, numbers)


def _marked(
    codec: EmphasisCodec, turn: Turn, encoded: Mapping[str, EncodedTurn], ends: Mapping[str, Tensor]
) -> str:
    """Returns the text of a turn, emphasised words in capitals where it is aligned."""
    if turn.id not in ends or not is_marked_turn(turn.id):
        return turn.text
    return marked_text(codec, turn.id, turn.text, ends[turn.id], encoded[turn.id].prosody.float())


def _arrays(
    turns: Sequence[Turn], encoded: Mapping[str, EncodedTurn], ends: Mapping[str, Tensor]
) -> dict[str, Array]:
    places = [encoded.places[t.id] if isinstance(encoded, CodeShards) else (-1, -1) for t in turns]
    columns = {
        "frames": [_frames(encoded, turn.id) for turn in turns],
        "shard": [shard for shard, _ in places],
        "row": [row for _, row in places],
    }
    arrays: dict[str, Array] = {name: np.array(values, np.int32) for name, values in columns.items()}
    for name, values in (("id", [t.id for t in turns]), ("text", [t.text for t in turns])):
        arrays |= _joined(name, [np.frombuffer(value.encode(), np.uint8) for value in values], np.uint8)
    none = np.zeros(0, np.float32)
    aligned = [ends[turn.id].float().numpy() if turn.id in ends else none for turn in turns]
    return arrays | _joined("ends", aligned, np.float32)


def _joined(name: str, parts: Sequence[Array], kind: type) -> dict[str, Array]:
    starts = np.array([0, *accumulate(map(len, parts))], np.int64)
    return {name: np.concatenate([np.zeros(0, kind), *parts]), f"{name}_starts": starts}


def _frames(encoded: Mapping[str, EncodedTurn], name: str) -> int:
    if isinstance(encoded, CodeShards):
        return encoded.frames_of(name)
    return encoded[name].codes.shape[1] if name in encoded else 0


def write_table(path: Path, table: TurnTable) -> None:
    """Writes a table as a file, with its SHA-256 in the folder's sha256.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in table.arrays.items()}
    tensors["facts"] = bytes_tensor(json.dumps(asdict(table.facts)).encode())
    with new_file(path) as file:
        save_file(tensors, file)
    record_digests(path.parent, [path.name])


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
    if any(tensors[name].dtype != kind or tensors[name].ndim != 1 for name, kind in KINDS.items()) or any(
        len(tensors[name]) != length for name, length in lengths.items()
    ):
        raise ValueError(f"{path} is damaged (its tensors do not fit each other); {REMEDY}")
    try:
        kept = json.loads(content)
        found: dict[str, Any] = {item.name: _frozen(kept[item.name]) for item in fields(TableFacts)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); {REMEDY}") from error
    facts = TableFacts(**found)
    return TurnTable({name: tensor.numpy() for name, tensor in tensors.items()}, encoded, facts, numbers)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
