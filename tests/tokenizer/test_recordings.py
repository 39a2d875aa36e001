"""Recordings in blocks: codes and audio equal those of the whole recording, in constant memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from csm.audio.files import read_audio
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.recordings import decode_recording, encode_recording, iter_codes

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "sample_rate": 8000,
    "n_codebooks": 6,
    "codebook_size": 32,
    "semantic_codebooks": 2,
    "codebook_dim": 16,
    "hops_per_frame": 4,
    "strides": (2, 2),
    "encoder_widths": (24, 32, 40),
    "encoder_depths": (1, 1, 1),
    "decoder_widths": (40, 32, 24),
    "decoder_depths": (1, 1, 1),
    "attention_frames": 6,
    "speaker_dim": 8,
    "emotion_dim": 4,
}
# Prints the peak memory of encoding and decoding one recording.
GROWTH = """
import sys
import torch
from csm.tokenizer.recordings import decode_recording, encode_recording
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import ConversationalRVQ

torch.set_num_threads(1)
tokenizer = ConversationalRVQ(TokenizerConfig(**{sizes!r})).eval()
codes = encode_recording(tokenizer, sys.argv[1])
decode_recording(tokenizer, codes, sys.argv[1] + ".out.wav")
# Not ru_maxrss: it begins at the size of the process that forked this one.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(codes.shape[-1], peak)
"""


@pytest.fixture(scope="module")
def tokenizer() -> ConversationalRVQ:
    torch.manual_seed(0)
    tokenizer = ConversationalRVQ(TokenizerConfig(**SIZES)).eval()
    with torch.no_grad():
        for block in tokenizer.modules():
            if hasattr(block, "distance_bias"):
                block.distance_bias.normal_()
        latent, _ = tokenizer.encoder(speech(64_000)[None])
        quantizer, generator = tokenizer.quantizer, torch.Generator().manual_seed(0)
        quantizer.semantic.fit(quantizer.semantic_in(latent).flatten(0, 1), generator)
        quantizer.acoustic.fit(quantizer.acoustic_in(latent).flatten(0, 1), generator)
    return tokenizer


def speech(samples: int, seed: int = 0) -> torch.Tensor:
    """Returns noise [S] of slowly changing loudness, in which every frame differs from the others."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.randn(1, 1, samples // 800 + 2, generator=generator).exp()
    loudness = torch.nn.functional.interpolate(loudness, samples, mode="linear")[0, 0]
    return (0.05 * torch.randn(samples, generator=generator) * loudness).clamp(-1, 1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100])
@pytest.mark.parametrize("block_frames", [1, 7, 1000])
@torch.no_grad()
def test_codes_of_a_recording_equal_those_of_the_whole_waveform(tokenizer, tmp_path, rate, block_frames):
    stereo = torch.stack([speech(5 * rate + 3), speech(5 * rate + 3, 1)], 1).numpy()
    soundfile.write(tmp_path / "a.flac", stereo, rate)
    whole = read_audio(tmp_path / "a.flac", sample_rate=8_000, channel=1)
    codes = encode_recording(tokenizer, tmp_path / "a.flac", channel=1, block_frames=block_frames)
    assert codes.dtype == torch.int64 and codes.unique().numel() > 16
    assert torch.equal(codes, tokenizer.encode(whole[None])[0])


@torch.no_grad()
def test_a_waveform_is_encoded_like_its_file_and_channels_are_averaged(tokenizer, tmp_path):
    stereo = torch.stack([speech(30_000), speech(30_000, 1)])
    soundfile.write(tmp_path / "a.wav", stereo.T.numpy(), 16_000, subtype="FLOAT")
    of_file = encode_recording(tokenizer, tmp_path / "a.wav")
    for samples in (stereo, stereo.numpy(), stereo.double()):
        assert torch.equal(encode_recording(tokenizer, samples, sample_rate=16_000), of_file)
    mixed = encode_recording(tokenizer, stereo.mean(0, keepdim=True), sample_rate=16_000)
    assert torch.equal(mixed, of_file)
    second = encode_recording(tokenizer, stereo, sample_rate=16_000, channel=1, num_codebooks=3)
    assert torch.equal(second, encode_recording(tokenizer, stereo[1:], sample_rate=16_000)[:, :3])


@torch.no_grad()
def test_silence_and_a_single_sample_can_be_encoded(tokenizer):
    assert encode_recording(tokenizer, torch.zeros(1, 48_000), sample_rate=48_000).shape == (1, 6, 13)
    assert encode_recording(tokenizer, torch.ones(2, 1), sample_rate=48_000).shape == (1, 6, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_refused_with_its_time(tokenizer, tmp_path, value):
    samples = np.zeros((400_000, 2), np.float32)  # two blocks of reading
    samples[300_008, 1] = samples[350_000, 0] = value
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    message = r"a\.wav: the sample at 18\.750500 s \(number 300008, channel 1\) is (nan|inf)"
    with pytest.raises(ValueError, match=message):
        encode_recording(tokenizer, tmp_path / "a.wav")
    with tokenizer.streaming(1):
        pass  # the error has ended the streaming


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (torch.zeros(1, 0), {"sample_rate": 8000}, "holds no audio"),
        (torch.zeros(800), {"sample_rate": 8000}, r"floating point \[channels, samples\]"),
        (torch.zeros(1, 800, dtype=torch.int16), {"sample_rate": 8000}, "full scale = 1"),
        (torch.zeros(1, 800), {}, "give the rate of the samples"),
        (torch.zeros(2, 800), {"sample_rate": 8000, "channel": 2}, "expected 'mean' or 0 to 1"),
        (torch.zeros(2, 800), {"sample_rate": 8000, "block_frames": 0}, "block_frames is 0"),
        ("nowhere.wav", {}, "no such file"),
        ("nowhere.wav", {"sample_rate": 8000}, "leave it out"),
    ],
)
def test_invalid_input_is_refused_with_the_fix(tokenizer, source, options, message):
    with pytest.raises(ValueError, match=message):
        encode_recording(tokenizer, source, **options)


@pytest.mark.parametrize("block_frames", [1, 5, 100])
@torch.no_grad()
def test_a_file_decoded_in_blocks_equals_the_decoded_whole(tokenizer, tmp_path, block_frames):
    codes = encode_recording(tokenizer, speech(20_001)[None], sample_rate=8_000)
    speaker = torch.nn.functional.normalize(torch.ones(1, 8), dim=-1)
    expected = tokenizer.decode(codes, speaker=speaker)[0, :, :20_001]
    path = tmp_path / "a.wav"
    options = {"samples": 20_001, "speaker": speaker, "block_frames": block_frames}
    assert decode_recording(tokenizer, codes, path, **options) == 20_001
    decoded = read_audio(path, sample_rate=8_000)
    torch.testing.assert_close(decoded, expected.clamp(-1, 1), atol=2 / 32768, rtol=0)


@torch.no_grad()
def test_consecutive_blocks_are_decoded_like_the_whole(tokenizer, tmp_path):
    audio = speech(30 * 640)[None]
    blocks = list(iter_codes(tokenizer, audio, sample_rate=8_000, block_frames=4))
    assert [block.shape[-1] for block in blocks] == [4] * 7 + [2]
    assert decode_recording(tokenizer, iter(blocks), tmp_path / "blocks.flac") == 30 * 640
    decode_recording(tokenizer, torch.cat(blocks, -1), tmp_path / "whole.flac")
    one, two = (read_audio(tmp_path / f"{name}.flac", sample_rate=8_000) for name in ("blocks", "whole"))
    torch.testing.assert_close(one, two, atol=1 / 32768, rtol=0)


def test_invalid_codes_leave_no_file(tokenizer, tmp_path):
    for codes, message in (
        (torch.zeros(2, 6, 3, dtype=torch.int64), r"expected \[1, K, T\]"),
        (torch.full((1, 6, 3), 32), "0..31"),
        ([], "codes have no frames"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_recording(tokenizer, codes, tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
def test_twenty_minutes_need_no_more_memory_than_two(tmp_path):
    peaks = {}
    for minutes in (2, 20):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 16_000, 2, "PCM_16") as file:
            block = np.stack([speech(16_000 * 60).numpy()] * 2, 1)
            for _ in range(minutes):
                file.write(block)
        program = [sys.executable, "-c", GROWTH.format(sizes=SIZES), str(path)]
        # One arena: how far several of malloc's grow depends on when their threads run.
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "PATH": "", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=400)
        assert done.returncode == 0, done.stderr
        frames, peaks[minutes] = map(int, done.stdout.split())
        assert frames == minutes * 750
    # KiB. The samples alone are 77 MB in fp32 mono at 16 kHz; codes of 20 minutes are 0.7 MB.
    assert peaks[20] - peaks[2] < 16 * 1024, peaks
