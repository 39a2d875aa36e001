"""A corpus encoded shard by shard, by any number of ranks, and again only where its content has changed.

Which turns a shard holds is a function of the corpus alone, and its name holds the hash of what they are made
of. So ranks share nothing but the folder, a shard that is there is finished, and a killed encoding is
resumed with the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from csm.data.code_shards import (
    KEY_BYTES,
    CodeShards,
    EncodedTurn,
    ShardInfo,
    read_index,
    shard_bytes,
    shard_info,
    turn_bytes,
    write_index,
    write_shard,
)
from csm.data.lazy_sequence import items_of
from csm.data.manifest import SPLITS, Conversation, Corpus, Turn
from csm.data.turn_audio import audio_digests
from csm.recipes.encoding import encoded_turns
from csm.system.digests import damage, folder_digests, record_digests
from csm.system.files import remove_leftovers
from csm.system.log import log, progress
from csm.system.threads import one_thread
from csm.tokenizer.opening import VoiceTokenizer

# Seconds between two looks for the shards of the other ranks.
LOOK_S = 0.5


class PlannedShard(NamedTuple):
    """A shard to be made; its turns are read where they are needed (`keyed_turns`).

    Attributes:
        name: Of its file; its last part is a hash of the turns' ids and keys.
        split, first, last: Its conversations: of those of the split, `first` to `last` - 1.
        turns: Number of its turns.
        time_shifts: Encodings of each turn.
        material: What a key is a hash of beside the sound.
    """

    name: str
    split: str
    first: int
    last: int
    turns: int
    time_shifts: int
    material: str


class KeyedTurn(NamedTuple):
    """A turn, and the hash of what its codes are made of in hexadecimal."""

    turn: Turn
    key: str


class _Part:
    """The hash and the number of turns that are added one by one."""

    def __init__(self) -> None:
        self._digest, self.turns = hashlib.sha256(), 0

    def add(self, turns: Iterable[KeyedTurn]) -> None:
        for turn, key in turns:
            line_end = "\n" if self.turns else ""
            self._digest.update(f"{line_end}{turn.id} {key}".encode())
            self.turns += 1

    def name(self, number: int) -> str:
        """Returns the name of the shard of these turns, the `number`th."""
        return f"codes_{number:04d}_{self._digest.hexdigest()[:16]}.safetensors"


def planned_shards(
    corpus: Corpus, tokenizer: VoiceTokenizer, tokenizer_sha256: str, time_shifts: int
) -> list[PlannedShard]:
    """Returns the shards of a corpus: whole conversations of one split, in the order of the manifest.

    Turns of the train split have `time_shifts` encodings, the others one. No more than one conversation is
    held.
    """
    codebooks, rate = tokenizer.config.n_codebooks, tokenizer.config.frame_rate
    plans: list[PlannedShard] = []
    for split in SPLITS:
        versions = time_shifts if split == "train" else 1
        material = f"{tokenizer_sha256}/{codebooks}/{versions}"

        def size(turn: Turn, versions: int = versions) -> int:
            return turn_bytes(codebooks, int(turn.duration * rate) + 1, versions)

        for first, last, part in _parts(corpus, split, material, size):
            name = part.name(len(plans))
            plans.append(PlannedShard(name, split, first, last, part.turns, versions, material))
    return plans


def _parts(
    corpus: Corpus, split: str, material: str, size_of: Callable[[Turn], int]
) -> Iterator[tuple[int, int, _Part]]:
    """Yields `first`, `last` and the turns of each shard of a split."""
    part, first, size, before = _Part(), 0, 0, 0
    for last, conversation in enumerate(corpus.conversations_of(split), 1):
        part.add(_keyed(corpus, conversation, material))
        size += sum(map(size_of, conversation.turns))
        if size >= shard_bytes(before):
            yield first, last, part
            part, first, size, before = _Part(), last, 0, before + size
    if part.turns:
        yield first, len(corpus.numbers_of(split)), part


def _keyed(corpus: Corpus, conversation: Conversation, material: str) -> Iterator[KeyedTurn]:
    """Yields turns with the hash of their sound and of what encodes it."""
    digests = audio_digests(corpus, conversation)
    for turn in conversation.turns:
        content = f"{material}/{digests[turn.audio]}/{turn.start!r}/{turn.end!r}/{turn.channel}"
        yield KeyedTurn(turn, hashlib.sha256(content.encode()).digest()[:KEY_BYTES].hex())


def keyed_turns(corpus: Corpus, plan: PlannedShard) -> list[KeyedTurn]:
    """Returns the turns of a shard in the order of the manifest.

    Raises:
        ValueError: Their audio is no longer what it was when the shard was planned.
    """
    numbers = corpus.numbers_of(plan.split)[plan.first : plan.last]
    found = [
        keyed
        for conversation in items_of(corpus.conversations, numbers)
        for keyed in _keyed(corpus, conversation, plan.material)
    ]
    part = _Part()
    part.add(found)
    if part.name(int(plan.name.split("_")[1])) != plan.name:
        raise ValueError(f"{corpus.root} has changed since its encoding began: run the same command again")
    return found


def encode_shards(
    corpus: Corpus,
    tokenizer: VoiceTokenizer,
    plans: Sequence[PlannedShard],
    output: Path,
    *,
    rank: int = 0,
    ranks: int = 1,
) -> None:
    """Writes this rank's shards of a plan, each whole or not at all; those that are there are kept."""
    output.mkdir(parents=True, exist_ok=True)
    wanted = [plan for plan in plans[rank::ranks] if not is_written(output / plan.name)]
    if not wanted:
        return
    made = _encoded_before(output, {plan.name for plan in plans})
    with progress("encode", sum(plan.turns for plan in wanted), unit="turn") as counter, one_thread():
        for plan in wanted:
            keyed, turns = keyed_turns(corpus, plan), []
            for turn in _encoded(corpus, tokenizer, plan, keyed, made):
                turns.append(turn)
                counter.update()
            order = {turn.id: place for place, (turn, _) in enumerate(keyed)}
            write_shard(output / plan.name, sorted(turns, key=lambda turn: order[turn.id]))


def is_written(path: Path) -> bool:
    """Whether a shard is there and, where its SHA-256 was entered, whole."""
    return path.is_file() and damage(path) is None


def _encoded_before(output: Path, planned: set[str]) -> CodeShards:
    """Returns the folder's shards that the plan no longer has."""
    index = read_index(output)
    old: list[ShardInfo] = [] if index is None else index["shards"]
    old = [s for s in old if s.name not in planned and damage(output / s.name, listed=True) is None]
    return CodeShards(output, old)


def _encoded(
    corpus: Corpus,
    tokenizer: VoiceTokenizer,
    plan: PlannedShard,
    keyed: Sequence[KeyedTurn],
    made: CodeShards,
) -> Iterator[EncodedTurn]:
    keys = {turn.id: key for turn, key in keyed}
    places = {turn.id: place for turn, key in keyed if (place := made.place_of_key(key)) is not None}
    new = [turn for turn, _ in keyed if turn.id not in places]
    if places:
        log.info("%s: %d of %d turns are encoded, the others are kept", plan.name, len(new), len(keyed))
    for turn in encoded_turns(corpus, new, tokenizer, plan.time_shifts):
        yield turn._replace(key=keys[turn.id])
    for name, place in places.items():
        yield made.at(*place, name)


def finish_index(output: Path, plans: Sequence[PlannedShard], description: Mapping[str, object]) -> None:
    """Waits for the shards of all ranks and writes the index."""
    names = {plan.name for plan in plans}
    while missing := [name for name in names if not (output / name).is_file()]:
        log.debug("%s: %d shards of other ranks are missing", output, len(missing))
        time.sleep(LOOK_S)
    found = read_index(output)
    known: dict[str, ShardInfo] = {} if found is None else {s.name: s for s in found["shards"]}
    shards = [known.get(plan.name) or shard_info(output / plan.name) for plan in plans]
    write_index(output, shards, description)
    shutil.rmtree(output / "tables", ignore_errors=True)  # of the turns of an earlier index


def remove_earlier(output: Path, plans: Sequence[PlannedShard]) -> None:
    """Removes the shards that the index no longer names, and what killed processes left."""
    names = {plan.name for plan in plans}
    for path in output.glob("codes_*.safetensors"):
        if path.name not in names:
            path.unlink()
    remove_leftovers(output)
    if not all((output / name).is_file() for name in folder_digests(output)):
        record_digests(output, [])
