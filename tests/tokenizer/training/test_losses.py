"""Shares out of range are refused, and distillation counts the frames that it should."""

import pytest
import torch

from csm.tokenizer.training.losses import TokenizerLossConfig, distillation_loss


def test_shares_outside_0_to_1_are_refused():
    for name in ("condition_dropout", "quantizer_dropout", "bypass"):
        with pytest.raises(ValueError, match=name):
            TokenizerLossConfig(**{name: 1.5})
    with pytest.raises(ValueError, match="discriminator_share"):
        TokenizerLossConfig(discriminator_share=0.0)


def test_the_distillation_loss_is_the_cosine_distance_of_frames_that_count():
    output = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])
    target = torch.tensor([[[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False]])
    assert distillation_loss(output, target, mask).item() == pytest.approx(1.0)
    assert distillation_loss(output, target, torch.zeros_like(mask)).item() == 0
