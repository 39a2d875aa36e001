"""Hinge losses, feature matching, and the norm of the balanced gradient."""

import pytest
import torch

from csm.tokenizer.training.adversarial_losses import (
    adversarial_loss,
    balanced_adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)


def maps(value):
    return [[torch.ones(1, 2, 3), torch.full((1, 1, 4), value)] for _ in range(3)]


def test_the_hinge_is_0_for_right_discriminators_and_2_for_undecided_ones():
    assert discriminator_loss(maps(1.5), maps(-1.5)) == 0
    assert discriminator_loss(maps(0.0), maps(0.0)) == 2
    assert adversarial_loss(maps(1.5)) == 0 and adversarial_loss(maps(-1.0)) == 2


def test_feature_matching_is_relative_to_the_size_on_real_audio():
    real = [[torch.full((1, 2, 3), 4.0), torch.zeros(1)]]
    fake = [[torch.full((1, 2, 3), 3.0), torch.ones(1)]]
    torch.testing.assert_close(feature_matching_loss(real, fake), torch.tensor(0.25))
    assert feature_matching_loss(real, real) == 0


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_adversarial_gradient_has_the_asked_norm_and_its_own_direction(ratio):
    source = torch.randn(2, 1, 50, requires_grad=True)
    output = source * 1.0
    spectral, adversarial = (output - 1).abs().mean(), (output * 7).sigmoid().sum()
    balanced = balanced_adversarial_loss(output, spectral, adversarial, ratio)
    (own,) = torch.autograd.grad(balanced, source, retain_graph=True)
    (wanted,) = torch.autograd.grad(spectral, source)
    torch.testing.assert_close(own.norm(), ratio * wanted.norm())
    sigmoid = (source.detach() * 7).sigmoid()
    direction = sigmoid * (1 - sigmoid)
    torch.testing.assert_close(own / own.norm(), direction / direction.norm())
