"""The archive's index and RNC: what an independent encoder packs comes back, and damage is refused."""

import random

import pytest

from csm.data.corpora.steel_sky_files import (
    SPEECH_FROM,
    ArchivedFile,
    checksum,
    read_index,
    speech_files,
    unpack,
)
from tests.data.small_steel_sky import make_archive, pack, with_header


def drawn(seed: int) -> tuple[list, bytes]:
    """Random runs and matches, overlapping ones too, and the bytes that they stand for."""
    numbers = random.Random(seed)
    parts, whole = [], b""
    count = numbers.randint(1, 40)
    for place in range(count):
        run = numbers.randbytes(numbers.choice([0, 1, 2, 17, 127]) or (not whole))
        whole += run
        if place == count - 1:
            parts.append((run, None))
            break
        distance, length = numbers.randint(1, min(len(whole), 128)), numbers.randint(2, 129)
        for _ in range(length):
            whole += whole[-distance : len(whole) - distance + 1]
        parts.append((run, (distance, length)))
    return parts, whole


@pytest.mark.parametrize("seed", range(25))
def test_what_is_packed_comes_back(seed: int) -> None:
    parts, whole = drawn(seed)
    assert unpack(pack(parts, whole)) == whole


@pytest.mark.parametrize("place", [5, 9, 13, 20, -1])
def test_a_damaged_byte_is_found(place: int) -> None:
    parts, whole = drawn(3)
    packed = bytearray(pack(parts, whole))
    packed[place] ^= 0x10
    with pytest.raises(ValueError, match="damaged"):
        unpack(bytes(packed))


def test_another_file_and_a_short_one_are_refused() -> None:
    parts, whole = drawn(4)
    for content in (b"RNC\x02" + bytes(40), b"", pack(parts, whole)[:-1]):
        with pytest.raises(ValueError, match=r"packed by RNC|damaged"):
            unpack(content)


def test_the_checksum_is_crc_16_arc() -> None:
    assert checksum(b"123456789") == 0xBB3D  # the published check value


def test_speech_is_found_by_number_and_by_its_packing() -> None:
    packed = pack(*drawn(5))
    files = {7: b"pictures", SPEECH_FROM + 3: with_header(packed), SPEECH_FROM + 4: b"raw" * 20}
    index, archive = make_archive(files)
    found = read_index(index)
    assert found[1] == ArchivedFile(SPEECH_FROM + 3, 8, len(packed) + 22)
    assert list(speech_files(found, archive)) == [(SPEECH_FROM + 3, packed)]


def test_large_offsets_count_in_paragraphs_of_16_bytes() -> None:
    index = bytes([1, 0, 0, 0]) + bytes([9, 0, 0x34, 0x12, 0x81, 5, 0, 0x40])
    assert read_index(index) == [ArchivedFile(9, 0x11234 << 4, 5)]


def test_a_cut_index_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sky\.dnr has 11 bytes: expected an index"):
        read_index(bytes([1, 0, 0, 0]) + bytes(7))
