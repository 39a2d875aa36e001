"""Both ends in the spectral domain: what a frame sees and fills, and exact reconstruction between them."""

import pytest
import torch

from csm.tokenizer.layers import streaming
from csm.tokenizer.spectrum import OverlapAdd, SpectralFrames


@torch.no_grad()
def test_a_frame_sees_its_window_up_to_its_end_and_nothing_after():
    spectrum = SpectralFrames(hop=20, window_hops=4)
    waveform = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    changed = waveform.clone()
    changed[:, 205] += 1  # in frame 10, which is in the windows of frames 10 to 13
    moved = (spectrum(waveform) - spectrum(changed)).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [10, 11, 12, 13]
    assert spectrum(waveform).shape == (1, 20, spectrum.feature_width)


@torch.no_grad()
def test_features_of_silence_are_finite_and_of_a_stream_those_of_the_whole():
    spectrum = SpectralFrames(hop=20, window_hops=4)
    assert spectrum(torch.zeros(1, 100)).isfinite().all()
    waveform = torch.randn(2, 400)
    with streaming(spectrum, 2):
        parts = torch.cat([spectrum(part) for part in waveform.split([20, 100, 280], dim=1)], dim=1)
    torch.testing.assert_close(parts, spectrum(waveform), atol=1e-6, rtol=1e-6)


def test_the_gradient_at_silence_is_finite():
    waveform = torch.zeros(1, 100, requires_grad=True)
    SpectralFrames(hop=20, window_hops=4)(waveform).sum().backward()
    assert waveform.grad.isfinite().all()


@pytest.mark.parametrize("window_hops", [3, 4, 8])
@torch.no_grad()
def test_overlap_add_of_the_windowed_frames_of_a_signal_gives_the_signal_back(window_hops):
    hop = 20
    head = OverlapAdd(4, hop, window_hops)
    signal = torch.randn(1, 30 * hop, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(hop * window_hops)
    frames = torch.nn.functional.pad(signal, (head.delay, 0)).unfold(-1, hop * window_hops, hop) * window
    head.frames = lambda x: x * head.window
    back = head(frames)
    assert back.shape == signal.shape
    end = signal.shape[1] - head.delay  # the last samples lack the frames that complete them
    torch.testing.assert_close(back[:, :end], signal[:, :end], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_frame_changes_nothing_earlier_than_the_delay():
    head = OverlapAdd(6, hop=20, window_hops=4)
    x = torch.randn(1, 12, 6, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 7] += 1
    moved = (head(x) - head(changed))[0].abs().gt(1e-9).nonzero().flatten()
    assert 7 * 20 - head.delay <= int(moved.min()) <= 7 * 20 - head.delay + 2
    assert int(moved.max()) < 8 * 20


@torch.no_grad()
def test_a_stream_of_frames_and_its_flush_equal_the_whole():
    head = OverlapAdd(6, hop=20, window_hops=4)
    x = torch.randn(2, 12, 6)
    with streaming(head, 2):
        parts = [head(part) for part in x.split([1, 1, 4, 6], dim=1)]
        assert [part.shape[1] for part in parts] == [0, 0, 60, 120]
        whole = torch.cat([*parts, head.flush()], dim=1)
    torch.testing.assert_close(whole, head(x), atol=1e-6, rtol=0)


@torch.no_grad()
def test_loud_frames_are_bounded():
    head = OverlapAdd(6, hop=20, window_hops=4)
    assert head(torch.full((1, 4, 6), 1e6)).isfinite().all()
