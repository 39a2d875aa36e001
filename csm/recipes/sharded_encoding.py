"""A corpus encoded shard by shard, by any number of ranks, and again only where its content has changed.

Which turns a shard holds is a function of the corpus alone, and its name holds the hash of what they are made
of. So ranks share nothing but the folder, a shard that is there is finished, and a killed encoding is
resumed with the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from csm.data import code_shards
from csm.data.code_shards import (
    KEY_BYTES,
    CodeShards,
    EncodedTurn,
    ShardInfo,
    read_index,
    shard_info,
    turn_bytes,
    write_index,
    write_shard,
)
from csm.data.manifest import SPLITS, Corpus, Turn
from csm.recipes.encoding import encoded_turns
from csm.system.digests import damage, folder_digests, record_digests, sha256_of
from csm.system.files import remove_leftovers
from csm.system.log import log, progress
from csm.system.threads import one_thread
from csm.tokenizer.opening import VoiceTokenizer

# Seconds between two looks for the shards of the other ranks.
LOOK_S = 0.5


class PlannedShard(NamedTuple):
    """A shard to be made.

    Attributes:
        name: Of its file; its last part is a hash of the keys.
        turns: Its turns, in the order of the manifest.
        keys: Hash of what each is encoded from.
        time_shifts: Encodings of each turn.
    """

    name: str
    turns: list[Turn]
    keys: list[str]
    time_shifts: int


def planned_shards(
    corpus: Corpus, tokenizer: VoiceTokenizer, tokenizer_sha256: str, time_shifts: int
) -> list[PlannedShard]:
    """Returns the shards of a corpus: whole conversations of one split, in the order of the manifest.

    Turns of the train split have `time_shifts` encodings, the others one.
    """
    config = tokenizer.config
    digests: dict[str, str] = {}
    plans: list[PlannedShard] = []
    for split in SPLITS:
        versions = time_shifts if split == "train" else 1
        material = f"{tokenizer_sha256}/{config.n_codebooks}/{versions}"
        for turns in _parts(corpus, split, config.n_codebooks, versions, config.frame_rate):
            keys = [_key(corpus, turn, material, digests) for turn in turns]
            named = "\n".join(f"{turn.id} {key}" for turn, key in zip(turns, keys, strict=True))
            digest = hashlib.sha256(named.encode()).hexdigest()[:16]
            plans.append(PlannedShard(f"codes_{len(plans):04d}_{digest}.safetensors", turns, keys, versions))
    return plans


def _parts(corpus: Corpus, split: str, codebooks: int, versions: int, rate: float) -> Iterator[list[Turn]]:
    part: list[Turn] = []
    size = 0
    for conversation in corpus.conversations:
        if conversation.split != split:
            continue
        part.extend(conversation.turns)
        size += sum(turn_bytes(codebooks, int(t.duration * rate) + 1, versions) for t in conversation.turns)
        if size >= code_shards.SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _key(corpus: Corpus, turn: Turn, material: str, digests: dict[str, str]) -> str:
    """Returns the hash of a turn's sound and of what encodes it."""
    if turn.audio not in digests:
        folder, path = corpus.folder_of(turn), corpus.root / turn.audio
        entered = folder_digests(folder).get(path.relative_to(folder).as_posix())
        digests[turn.audio] = entered or sha256_of(path)
    content = f"{material}/{digests[turn.audio]}/{turn.start!r}/{turn.end!r}/{turn.channel}"
    return hashlib.sha256(content.encode()).digest()[:KEY_BYTES].hex()


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
    with progress("encode", sum(len(plan.turns) for plan in wanted), unit="turn") as counter, one_thread():
        for plan in wanted:
            turns = []
            for turn in _encoded(corpus, tokenizer, plan, made):
                turns.append(turn)
                counter.update()
            order = {turn.id: place for place, turn in enumerate(plan.turns)}
            write_shard(output / plan.name, sorted(turns, key=lambda turn: order[turn.id]))


def is_written(path: Path) -> bool:
    """Whether a shard is there and, where its SHA-256 was entered, whole."""
    return path.is_file() and damage(path) is None


def _encoded_before(output: Path, planned: set[str]) -> dict[str, tuple[CodeShards, int, int]]:
    """Returns the places by key of the turns in the folder's shards that the plan no longer has."""
    index = read_index(output)
    old: list[ShardInfo] = [] if index is None else index["shards"]
    old = [s for s in old if s.name not in planned and damage(output / s.name, listed=True) is None]
    shards = CodeShards(output, old)
    places = {}
    for number in range(len(old)):
        for row, key in enumerate(shards.tensors(number)["keys"].numpy()):
            places[bytes(key).hex()] = (shards, number, row)
    return places


def _encoded(
    corpus: Corpus,
    tokenizer: VoiceTokenizer,
    plan: PlannedShard,
    made: Mapping[str, tuple[CodeShards, int, int]],
) -> Iterator[EncodedTurn]:
    keys = dict(zip((turn.id for turn in plan.turns), plan.keys, strict=True))
    new = [turn for turn in plan.turns if keys[turn.id] not in made]
    if len(new) < len(plan.turns):
        log.info("%s: %d of %d turns are encoded, the others are kept", plan.name, len(new), len(plan.turns))
    for turn in encoded_turns(corpus, new, tokenizer, plan.time_shifts):
        yield turn._replace(key=keys[turn.id])
    for name, key in keys.items():
        if key in made:
            shards, shard, row = made[key]
            yield shards.at(shard, row, name)


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
