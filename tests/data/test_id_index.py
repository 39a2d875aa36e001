"""Ids are found by hashes as a dictionary finds them, also where hashes are equal."""

import random
import tracemalloc

import numpy as np
import pytest

from csm.data import id_index
from csm.data.id_index import HashIndex, IdIndex, first_repeat, id_hash


def blocks_of(ids: list[str], count: int) -> list[np.ndarray]:
    sizes = -(-len(ids) // count)
    parts = [ids[first : first + sizes] for first in range(0, len(ids), sizes)]
    return [np.frombuffer("\n".join(part).encode(), np.uint8) for part in parts]


def hashes_of(ids: list[str]) -> bytearray:
    return bytearray(b"".join(map(id_index.id_hash, ids)))


@pytest.fixture(params=["distinct", "equal"])
def hashing(request, monkeypatch) -> None:
    if request.param == "equal":
        monkeypatch.setattr(id_index, "id_hash", lambda name: id_hash(name[-1:]))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_id_has_the_place_that_a_dictionary_gives(hashing, monkeypatch, count) -> None:
    monkeypatch.setattr(id_index, "PART_BYTES", 7)
    monkeypatch.setattr(id_index, "PART_IDS", 3)
    ids = [f"é{number:x}" for number in range(120)]
    random.Random(0).shuffle(ids)
    index = IdIndex(blocks_of(ids, count))
    assert list(index) == ids and len(index) == 120
    draw = random.Random(1)
    for _ in range(300):
        name = draw.choice([*ids, "x", "", "\ud800"])
        assert index.place(name) == (ids.index(name) if name in ids else None)


def test_ids_in_order_need_no_hashes(monkeypatch) -> None:
    ids = [f"t{number}" for number in range(50)]
    index = IdIndex(blocks_of(ids, 4))
    monkeypatch.setattr(id_index, "id_hash", None)
    assert [index.place(name) for name in ids for _ in "ab"] == [place for place in range(50) for _ in "ab"]


def test_no_ids_have_no_places() -> None:
    assert len(IdIndex([])) == 0 and list(IdIndex([])) == [] and IdIndex([]).place("a") is None
    assert HashIndex(np.zeros(0, np.uint64)).places(id_hash("a")) == []


def test_an_index_holds_16_bytes_an_id() -> None:
    blocks = blocks_of([f"conversation-{number:07d}" for number in range(100_000)], 10)
    tracemalloc.start()
    index = IdIndex(blocks)
    assert index.place("conversation-0099999") == 99_999
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 16 * 100_000 + 100_000 and peak < 40 * 100_000 + 1_000_000


def test_the_first_id_that_comes_again_is_found(hashing) -> None:
    ids = [f"t{number}" for number in range(30)]
    assert first_repeat(hashes_of(ids), ((name, 0) for name in ids)) is None
    twice = [*ids[:20], "t7", "t3", *ids[20:]]
    assert first_repeat(hashes_of(twice), ((name, place) for place, name in enumerate(twice))) == ("t7", 20)
