"""The watermark is found where it was written, also after another rate and noise, and changes little."""

import pytest
import torch

from csm.audio.files import read_audio
from csm.audio.resampling import resample

pytest.importorskip("perth")
from csm.audio.watermark import MARKED, Watermark

# Of the excerpt's turns of 2 s and more, 16 kHz; docs/MEASURED.md has more.
TURNS = 6


@pytest.fixture(scope="module")
def mark() -> Watermark:
    return Watermark()


@pytest.fixture(scope="module")
def speech(excerpt) -> list[torch.Tensor]:
    turns = [t for t in excerpt.turns("train") if 2 < t.duration < 4][: 40 * TURNS : 40]
    return [read_audio(excerpt.root / t.audio, sample_rate=16_000)[0] for t in turns]


def test_marked_speech_is_found_and_other_speech_is_not(mark, speech) -> None:
    for clip in speech:
        marked = mark.mark(clip, 16_000)
        assert marked.shape == clip.shape and marked.dtype == clip.dtype
        assert mark.confidence(marked, 16_000) > MARKED > mark.confidence(clip, 16_000)


def test_it_is_found_at_another_rate_and_level_and_beside_noise(mark, speech) -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for clip in speech:
        other = 0.5 * resample(mark.mark(clip, 16_000), 16_000, 24_000)
        other += 0.001 * torch.randn(len(other), generator=generator)
        found.append(mark.confidence(other, 24_000) > MARKED)
    assert sum(found) >= TURNS - 1


def test_it_changes_nothing_above_2_khz_and_is_inaudible_to_pesq(mark, speech) -> None:
    pesq = pytest.importorskip("pesq")
    for clip in speech[:2]:
        marked = mark.mark(clip, 16_000)
        spectrum = torch.fft.rfft(marked - clip).abs().square()
        above = round(2_200 / 8_000 * len(spectrum))
        assert spectrum[above:].sum() < 1e-4 * spectrum.sum()
        assert pesq.pesq(16_000, clip.numpy(), marked.numpy(), "wb") > 4.2


@pytest.mark.parametrize("samples", [1, 100, 2_047, 32_001])
def test_every_length_keeps_its_length(mark, samples: int) -> None:
    for clip in (torch.zeros(samples), torch.randn(samples, generator=torch.Generator().manual_seed(1)) / 10):
        marked = mark.mark(clip, 32_000)
        assert marked.shape == clip.shape and torch.isfinite(marked).all()
        assert 0 <= mark.confidence(clip, 32_000) <= 1


def test_other_weights_are_refused(monkeypatch) -> None:
    monkeypatch.setattr("csm.audio.watermark.WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected 000000000000...; install resemble-perth==1.0.1"):
        Watermark()
