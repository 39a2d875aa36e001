"""A lazy sequence behaves as the tuple of its items; a file's lines are those of one file only."""

import os
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from csm.data.lazy_sequence import Chosen, FileLines, LazySequence, items_of


class Squares(LazySequence[int]):
    def __len__(self) -> int:
        return 5

    def read(self, numbers: Iterable[int]) -> Iterator[int]:
        return (number**2 for number in numbers)


def test_items_slices_and_equality_are_those_of_the_tuple() -> None:
    lazy, held = Squares(), (0, 1, 4, 9, 16)
    assert tuple(lazy) == held and lazy == held and lazy == list(held) and lazy != held[1:]
    assert [lazy[number] for number in range(-5, 5)] == [held[number] for number in range(-5, 5)]
    for part in (slice(1, 3), slice(None, None, -1), slice(-2, None), slice(7, 9)):
        assert lazy[part] == held[part]
    assert 9 in lazy and 3 not in lazy and lazy.index(4) == 2 and lazy != "01234"
    with pytest.raises(IndexError):
        lazy[5]
    assert list(items_of(lazy, [3, 0])) == list(items_of(held, [3, 0])) == [9, 0]


@pytest.mark.parametrize("sequence", [Squares(), (0, 1, 4, 9, 16)])
def test_chosen_items_are_those_of_their_numbers_in_any_order(sequence) -> None:
    chosen = Chosen(sequence, np.array([4, 0, 3], np.int32))
    assert chosen == (16, 0, 9) and chosen[-1] == 9 and chosen[::-1] == (9, 0, 16)
    assert list(chosen.read([1, 0])) == [0, 16]


def made(path: Path) -> FileLines:
    path.write_bytes(b"one\n\ntwo\r\nlast")
    lines = FileLines(path)
    assert list(lines.first_reading()) == [b"one\n", b"\n", b"two\r\n", b"last"]
    return lines


def test_lines_are_read_in_any_order_in_this_process_and_in_others(tmp_path: Path) -> None:
    lines = made(tmp_path / "lines")
    other = pickle.loads(pickle.dumps(lines))
    for found in (lines, other):
        assert list(found.read([3, 0, 2])) == [b"last", b"one\n", b"two\r\n"] and len(found) == 4


def test_a_file_that_is_written_again_is_refused(tmp_path: Path) -> None:
    lines = made(tmp_path / "lines")
    os.utime(tmp_path / "lines", ns=(1, 1))
    with pytest.raises(ValueError, match="lines has changed since this process opened it: run the same"):
        lines[0]
    lines = made(tmp_path / "lines")
    (tmp_path / "lines").write_bytes(b"")
    with pytest.raises(ValueError, match="has changed"):
        list(lines)
