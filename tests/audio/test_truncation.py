"""Files that end too early are refused by name in every format, whole ones are not."""

import struct

import numpy as np
import pytest
import soundfile

from csm.audio.files import check_audio
from csm.audio.truncation import refuse_truncated

FORMATS = {
    "WAV": ("wav", "PCM_16"),
    "RF64": ("rf64", "PCM_16"),
    "W64": ("w64", "PCM_16"),
    "AIFF": ("aiff", "PCM_16"),
    "AU": ("au", "PCM_16"),
    "FLAC": ("flac", "PCM_16"),
    "CAF": ("caf", "PCM_16"),
    "OGG": ("ogg", "VORBIS"),
    "OPUS": ("opus", "OPUS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}
RATE = 24_000


def written(folder, kind: str):
    suffix, subtype = FORMATS[kind]
    time = np.arange(6 * RATE) / RATE
    sound = 0.3 * np.sin(2 * np.pi * (200 + 100 * time) * time)
    path = folder / f"talk.{suffix}"
    container = "OGG" if kind == "OPUS" else kind
    soundfile.write(path, sound, RATE, format=container, subtype=subtype)
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_file_is_refused_and_a_whole_one_is_taken(tmp_path, kind, share):
    path = written(tmp_path, kind)
    assert check_audio(path).duration == pytest.approx(6.0, abs=0.2)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ValueError, match="talk.*(is truncated|cannot be read|no audio that libsndfile reads)"
    ):
        check_audio(path)


def test_a_tag_after_the_stream_and_an_mp3_without_a_xing_header_are_taken(tmp_path):
    path = written(tmp_path, "MP3")
    data = path.read_bytes()
    tagged = b"ID3\x03\x00\x00" + bytes((0, 0, 1, 0)) + bytes(128) + data + b"TAG" + bytes(125)
    path.write_bytes(tagged)
    refuse_truncated(path, "talk")
    path.write_bytes(tagged[: len(tagged) * 2 // 3])
    with pytest.raises(ValueError, match="is truncated"):
        refuse_truncated(path, "talk")
    path.write_bytes(data.replace(b"Xing", b"....").replace(b"Info", b"....")[: len(data) // 2])
    refuse_truncated(path, "talk")  # nothing states its length


def test_lengths_that_a_pipe_left_open_are_taken(tmp_path):
    for kind, at in (("WAV", None), ("AU", 8)):
        path = written(tmp_path, kind)
        data = bytearray(path.read_bytes())
        place = data.index(b"data") + 4 if at is None else at
        data[place : place + 4] = struct.pack(">I", 0xFFFFFFFF)
        path.write_bytes(data)
        refuse_truncated(path, "talk")
