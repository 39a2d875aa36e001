"""Phases that make frames agree: near the signal they came from, the same in a stream, final in time."""

import pytest
import torch
import torch.nn.functional as F

from csm.tokenizer.layers import streaming
from csm.tokenizer.phase_recovery import PhaseRecovery

HOP, BINS = 20, 41


def recovery(ahead: int = 3) -> PhaseRecovery:
    return PhaseRecovery(HOP, 4, block=6, ahead=ahead)


def voice(frames: int) -> torch.Tensor:
    """A gliding tone with its harmonics, [1, frames * HOP]."""
    time = torch.arange(frames * HOP) / 1000.0
    phase = 2 * torch.pi * (60 + 4 * time) * time
    return sum(torch.sin(k * phase) / k for k in range(1, 6))[None] * 0.2


def magnitudes(waveform: torch.Tensor) -> torch.Tensor:
    """STFT magnitudes [B, T, BINS], frame t seeing samples up to (t + 1) * HOP."""
    frames = F.pad(waveform, (3 * HOP, 0)).unfold(-1, 4 * HOP, HOP) * torch.hann_window(4 * HOP)
    return torch.fft.rfft(frames).abs()


def distance(output: torch.Tensor, waveform: torch.Tensor) -> float:
    a, b = magnitudes(output), magnitudes(waveform)
    return float((a - b).abs().sum() / b.sum())


def test_the_sound_has_the_magnitudes_it_was_made_of_where_random_phases_have_not() -> None:
    waveform = voice(120)
    output = recovery()(magnitudes(waveform))
    assert output.shape == waveform.shape
    size = magnitudes(waveform)
    angles = 2 * torch.pi * torch.rand(size.shape, generator=torch.Generator().manual_seed(0))
    head = recovery()
    random = head._overlap_add(torch.polar(size, angles), torch.zeros(1, 3 * HOP))[:, 3 * HOP :]
    assert distance(output, waveform) < 0.15 < 0.5 < distance(random, waveform)


@pytest.mark.parametrize("ahead", [0, 3, 6])
def test_a_stream_and_its_flush_are_the_whole_bit_for_bit(ahead) -> None:
    head, features = recovery(ahead), magnitudes(torch.cat([voice(60), voice(60).flip(1)]))
    whole = head(features)
    with streaming(head, 2):
        parts = [head(part) for part in features.split(6, dim=1)]
        lengths = [part.shape[1] for part in parts]
        parts.append(head.flush())
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert lengths[0] == max(0, 6 * HOP - head.delay) and set(lengths[2:]) == {6 * HOP}
    assert parts[-1].shape[1] == head.delay


def test_an_item_of_a_batch_is_what_it_is_alone() -> None:
    head, features = recovery(), magnitudes(torch.cat([voice(60), voice(60).flip(1)]))
    torch.testing.assert_close(head(features)[1:], head(features[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_frame_changes_nothing_that_was_final_before_it_came(ahead) -> None:
    head, features = recovery(ahead), magnitudes(voice(60))
    changed = features.clone()
    changed[:, 24:] *= 2.0
    same = (head(features) == head(changed)).all(0)
    # Frames come in blocks of six: what is final before frame 24 is what a stream has handed out by then.
    assert bool(same[: 24 * HOP - head.delay].all()) and not bool(same.all())


def test_silence_and_loud_frames_are_finite_and_a_stream_of_one_block_gives_every_sample() -> None:
    head = recovery()
    for level in (0.0, 1e-4, 150.0):
        assert bool(head(torch.full((1, 12, BINS), level)).isfinite().all())
    with streaming(head, 1):
        parts = [head(magnitudes(voice(6))), head.flush()]
    assert torch.cat(parts, dim=1).shape == (1, 6 * HOP)


def test_flush_outside_a_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="flush is outside a stream"):
        recovery().flush()
