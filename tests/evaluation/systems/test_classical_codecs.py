"""The anchors: real commands where they are installed, a plain word where they are not."""

import shutil

import numpy as np
import pytest

from csm.evaluation.core.clips import at_rate
from csm.evaluation.systems import classical_codecs
from csm.evaluation.systems.classical_codecs import ANCHORS, codec2, ogg_audio_bits, opus

needs_opus = pytest.mark.skipif(shutil.which("opusenc") is None, reason="apt install opus-tools")
needs_codec2 = pytest.mark.skipif(shutil.which("c2enc") is None, reason="apt install codec2")


@pytest.fixture
def speech(real_clips):
    clip = real_clips["JOE"][0]
    return at_rate(clip.waveform, clip.sample_rate)


@needs_opus
def test_opus_keeps_the_waveform_and_its_bits_are_counted_without_the_container(speech):
    coded = opus(speech, kbits=12)
    assert abs(len(coded.waveform) - len(speech)) < 160
    length = min(len(coded.waveform), len(speech))
    assert np.corrcoef(coded.waveform[:length], speech[:length])[0, 1] > 0.8
    assert 9 < coded.bits / (len(speech) / 16000) / 1000 < 16
    again = opus(speech, kbits=12)
    assert again.bits == coded.bits and np.array_equal(again.waveform, coded.waveform)


@needs_codec2
@pytest.mark.parametrize("mode", ["3200", "1300"])
def test_codec2_hands_out_all_of_the_speech(speech, mode):
    coded = codec2(speech, mode=mode)
    assert len(coded.waveform) >= len(speech) + 320 and coded.bits is None
    assert 0.01 < np.abs(coded.waveform).max() <= 1.0


def test_packets_are_counted_across_pages():
    def page(lacing: list[int]) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(lacing), *lacing]) + bytes(sum(lacing))

    # headers of 19 and 30 bytes, then packets of 100 bytes and of 255 + 10 over two pages
    stream = page([19]) + page([30]) + page([100, 255]) + page([10])
    assert ogg_audio_bits(stream) == 8 * 365
    with pytest.raises(ValueError, match="no Ogg page at byte 0"):
        ogg_audio_bits(b"RIFF" + bytes(40))


def test_a_command_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda command: None)
    assert [anchor.missing for anchor in ANCHORS] == [
        *["not installed: apt install opus-tools"] * 3,
        *["not installed: apt install codec2"] * 2,
    ]


def test_a_command_that_fails_is_an_error_with_its_own_words():
    with pytest.raises(ValueError, match="python3 ended with status 1: no such codec"):
        classical_codecs._run(["python3", "-c", "raise SystemExit('no such codec')"], b"")
    with pytest.raises(ValueError, match="no-such-command: FileNotFoundError"):
        classical_codecs._run(["no-such-command"], b"")
