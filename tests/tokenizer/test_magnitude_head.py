"""Compressed magnitudes: one linear map per codec frame, corrections per STFT frame, bounded sizes."""

import torch

from csm.tokenizer.magnitude_head import MAX_MAGNITUDE, MagnitudeHead, magnitudes
from csm.tokenizer.spectrum import COMPRESSION, MAGNITUDE_FLOOR


def test_a_codec_frame_gives_its_own_stft_frames_and_corrections_only_their_own():
    torch.manual_seed(0)
    head = MagnitudeHead(5, 3, bins=7, hops_per_frame=4)
    frames, features = torch.randn(2, 6, 5), torch.randn(2, 24, 3)
    whole = head(frames, features)
    assert whole.shape == (2, 24, 7)
    for changed, inputs in (
        (slice(8, 12), (torch.cat([frames[:, :2], frames[:, 2:3] + 1, frames[:, 3:]], 1), features)),
        (slice(9, 10), (frames, torch.cat([features[:, :9], features[:, 9:10] + 1, features[:, 10:]], 1))),
    ):
        same = (head(*inputs) == whole).all(-1).all(0)
        assert [i for i, ok in enumerate(same.tolist()) if not ok] == list(range(24))[changed]


def test_magnitudes_undo_the_compression_between_their_bounds():
    sizes = torch.logspace(-4, 2, 50)
    torch.testing.assert_close(magnitudes(sizes**COMPRESSION), sizes)
    far = magnitudes(torch.tensor([-3.0, 0.0, 1e3]))
    torch.testing.assert_close(far, torch.tensor([MAGNITUDE_FLOOR, MAGNITUDE_FLOOR, MAX_MAGNITUDE]))


def test_contrast_moves_magnitudes_from_their_neighbours_mean_and_leaves_flat_ones():
    head = MagnitudeHead(2, 2, bins=9, hops_per_frame=1, contrast=1.5, neighbours=3)
    flat = torch.full((1, 2, 9), 0.8)
    torch.testing.assert_close(head.linear_magnitudes(flat), magnitudes(flat))
    peak = flat.clone()
    peak[0, 1, 4] = 1.1
    moved = head.linear_magnitudes(peak)
    torch.testing.assert_close(moved[0, 0], magnitudes(flat)[0, 0])
    assert moved[0, 1, 4] > magnitudes(peak)[0, 1, 4] and moved[0, 1, 3] < magnitudes(peak)[0, 1, 3]
    torch.testing.assert_close(moved[0, 1, 4], magnitudes(torch.tensor(0.9 + 1.5 * 0.2)))
    assert torch.equal(head.linear_magnitudes(peak, 1.0), magnitudes(peak))
    head.contrast = 1.0
    assert torch.equal(head.linear_magnitudes(peak), magnitudes(peak))
