"""The expected length of a turn: by both heads, by one, or by the mean pace."""

import math

import pytest
import torch

from csm.generation.turn_length import expected_frames, phone_log_frames


@torch.no_grad()
def test_the_expected_length_is_the_geometric_mean_of_the_two_heads(tiny_model) -> None:
    model, text = tiny_model(), torch.randn(9, 32)
    model.duration_head.weight.fill_(1e-9)
    model.duration_head.bias.fill_(math.log(32.0))
    phones = torch.full((9,), math.log(1.0))  # the first id lasts no time: eight frames
    assert expected_frames(model, text, phones) == 16 and expected_frames(model, text, None) == 32


@torch.no_grad()
def test_without_trained_heads_the_mean_pace_counts(tiny_model) -> None:
    model, text = tiny_model(), torch.randn(9, 32)
    assert phone_log_frames(model, text).shape == (9,)
    model.duration_head.weight.zero_()
    model.pace_head.pace.weight.zero_()
    assert phone_log_frames(model, text) is None
    assert expected_frames(model, text, None) == round(9 * model.config.frames_per_text_id)


@torch.no_grad()
@pytest.mark.parametrize(("bias", "frames"), [(1e4, 160), (-1e4, 1)])
def test_a_length_is_at_least_a_frame_and_fits_the_context(tiny_model, bias, frames) -> None:
    model = tiny_model()
    model.duration_head.bias.fill_(bias)
    assert expected_frames(model, torch.randn(9, 32), None) == frames


@torch.no_grad()
@pytest.mark.parametrize(("speed", "frames"), [(0.5, 64), (1.0, 32), (2.0, 16)])
def test_the_speed_divides_the_length(tiny_model, speed, frames) -> None:
    model, text = tiny_model(), torch.randn(9, 32)
    model.duration_head.weight.fill_(1e-9)
    model.duration_head.bias.fill_(math.log(32.0))
    assert expected_frames(model, text, None, speed) == frames
