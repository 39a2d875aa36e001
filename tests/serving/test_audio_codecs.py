"""Audio on the wire is the audio that was given, in whatever blocks it comes."""

import io
import sys

import numpy as np
import pytest
import soundfile
import torch

from csm.audio.resampling import resample
from csm.serving.audio_codecs import OPUS_RATE, OggOpus, OpusLine, PcmLine, available_codecs, line_of

RATE = 11_025


def sweep(seconds: float = 1.5) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    return 0.3 * torch.sin(2 * torch.pi * (200 + 400 * time) * time)


def agreement(found: np.ndarray, expected: np.ndarray, latest: int) -> tuple[float, int]:
    """Best correlation of a stretch of `expected`, and by how many samples `found` is late there."""
    part = expected[4800:38_400]
    late = [np.corrcoef(part, found[4800 + shift : 38_400 + shift])[0, 1] for shift in range(0, latest, 2)]
    return max(late), 2 * int(np.argmax(late))


def test_a_conversation_in_packets_has_the_sound_at_both_ends() -> None:
    pytest.importorskip("av")
    there, back = OpusLine(RATE), OpusLine(RATE)
    packets = [packet for block in sweep().split(220) for packet in there.encode(block)]
    assert max(map(len, packets)) < 300, "20 ms of PCM16 at 48 kHz are 1920 bytes"
    decoded = [back.decode(packet) for packet in packets]
    assert {len(samples) for samples in decoded} == {OPUS_RATE // 50}
    expected = resample(sweep(), RATE, OPUS_RATE).numpy()
    close, late = agreement(torch.cat(decoded).numpy(), expected, 1200)
    assert close > 0.98 and late <= 0.02 * OPUS_RATE


@pytest.mark.parametrize("size", [441, 882, 5000])
def test_an_ogg_file_that_grows_is_read_by_others_and_has_its_length(size) -> None:
    pytest.importorskip("av")
    file = OggOpus(RATE)
    parts = [file.push(block) for block in sweep().split(size)]
    assert sum(map(len, parts[: len(parts) // 2 + 1])) > 2000, "it comes while it is spoken"
    samples, rate = soundfile.read(io.BytesIO(b"".join(parts) + file.finish()))
    expected = resample(sweep(), RATE, OPUS_RATE).numpy()
    assert rate == OPUS_RATE and abs(len(samples) - len(expected)) <= OPUS_RATE // 50
    close, late = agreement(samples, expected, 200)
    assert close > 0.98 and late == 0, "the encoder's delay is skipped"


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\xff\x00", b"x" * 3000])
def test_what_is_no_packet_is_refused_and_the_next_one_is_decoded(packet) -> None:
    pytest.importorskip("av")
    line = OpusLine(RATE)
    with pytest.raises(ValueError, match=f"audio of {len(packet)} bytes is no Opus packet"):
        line.decode(packet)
    good = OpusLine(RATE).encode(torch.zeros(RATE // 10))[0]
    assert len(line.decode(good)) == OPUS_RATE // 50


def test_pcm_is_exact_to_its_step() -> None:
    line = PcmLine()
    (message,) = line.encode(sweep())
    assert (line.decode(message) - sweep()).abs().max() <= 1 / 32767
    with pytest.raises(ValueError, match="3 bytes: expected 16-bit samples"):
        line.decode(b"abc")


def test_opus_is_offered_where_its_package_is(monkeypatch) -> None:
    assert available_codecs() == ["pcm", "opus"]
    monkeypatch.setitem(sys.modules, "av", None)
    assert available_codecs() == ["pcm"]
    with pytest.raises(ValueError, match="av"):
        OpusLine(RATE)


def test_an_unknown_codec_is_named() -> None:
    assert isinstance(line_of("pcm", RATE), PcmLine)
    for wrong in ("mp3", None, 3):
        with pytest.raises(ValueError, match="expected one of pcm, opus"):
            line_of(wrong, RATE)
