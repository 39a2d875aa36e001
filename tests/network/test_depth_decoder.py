"""Codes inside a frame: code by code as all at once, frame by frame, never ahead."""

import pytest
import torch

from csm.network.depth_decoder import DepthDecoder
from csm.network.model_config import CSMConfig


@pytest.fixture(params=[(4, False), (2, False), (2, True)])
def decoder(request) -> DepthDecoder:
    torch.manual_seed(0)
    config = CSMConfig(
        d_model=12,
        n_heads=2,
        depth_d_model=16,
        depth_n_layers=2,
        depth_n_heads=4,
        depth_n_kv_heads=request.param[0],
        depth_inputs="sum" if request.param[1] else "last",
        depth_d_ff=64,
        num_codebooks=6,
        semantic_codebooks=2,
        codebook_size=8,
    )
    return DepthDecoder(config)


@torch.no_grad()
def test_step_by_step_is_all_at_once(decoder) -> None:
    hidden, codes = torch.randn(3, 12), torch.randn(3, 5, 12)
    whole = decoder(hidden, codes)
    assert whole.shape == (3, 5, 11)
    for frame in range(3):
        cache = decoder.start()
        rows = torch.stack([hidden[frame], codes[frame, 0]])
        rows = rows.cumsum(0) if decoder.cumulative else rows
        for codebook in range(1, 6):
            row = decoder.step(rows, cache)[-1]
            torch.testing.assert_close(
                decoder.logits(row, codebook), whole[frame, codebook - 1], atol=1e-5, rtol=1e-5
            )
            if codebook < 5:
                before = rows[-1] if decoder.cumulative else 0
                rows = before + codes[frame, codebook : codebook + 1]


@torch.no_grad()
def test_frames_do_not_see_each_other_and_codes_see_earlier_ones_only(decoder) -> None:
    hidden, codes = torch.randn(3, 12), torch.randn(3, 5, 12)
    before = decoder(hidden, codes)
    codes[1, 3] += 1.0
    changed = (decoder(hidden, codes) - before).abs().amax(dim=2) > 1e-6
    # The embedding of code 3 tells of codes 4 and on: outputs 3 and 4 here.
    assert changed.int().tolist() == [[0] * 5, [0, 0, 0, 1, 1], [0] * 5]


def test_no_frames_give_no_logits_and_a_gradient_of_zero(decoder) -> None:
    hidden = torch.zeros(0, 12, requires_grad=True)
    out = decoder(hidden, torch.zeros(0, 5, 12))
    assert out.shape == (0, 5, 11)
    out.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in decoder.parameters())


def test_heads_learn_from_their_own_codebook_only(decoder) -> None:
    out = decoder(torch.randn(2, 12), torch.randn(2, 5, 12))
    out[:, 2].sum().backward()
    assert [bool(g.any()) for g in decoder.heads.grad] == [False, False, True, False, False]


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"depth_n_kv_heads": 1}])
def test_rows_of_several_frames_at_once_are_those_of_each(tiny_model, changes) -> None:
    decoder = tiny_model(**changes).depth_decoder
    rows = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    caches, alone = decoder.start_frames(3), [decoder.start() for _ in range(3)]
    for part in (rows[:, :2], *(rows[:, place : place + 1] for place in (2, 3, 4))):
        expected = torch.stack([decoder.step(x, cache) for x, cache in zip(part, alone, strict=True)])
        torch.testing.assert_close(decoder.step_frames(part, caches), expected, atol=1e-5, rtol=1e-5)
