"""Discriminators return feature maps and an output each, on waveforms of any length."""

import pytest
import torch

from csm.tokenizer.training.adversarial_losses import discriminator_loss
from csm.tokenizer.training.discriminators import (
    Discriminators,
    FeatureDiscriminators,
    MagnitudeDiscriminators,
    PeriodDiscriminator,
    SpectrumDiscriminator,
)


@pytest.mark.parametrize("samples", [1100, 1101, 2000])
def test_every_discriminator_returns_finite_maps_and_an_output(samples):
    discriminators = Discriminators(periods=(2, 5), windows=(256, 64), width=4)
    outputs = discriminators(torch.randn(2, 1, samples))
    assert len(outputs) == 4
    assert all(maps[-1].shape[:2] == (2, 1) and len(maps) > 3 for maps in outputs)
    assert all(each.isfinite().all() for maps in outputs for each in maps)


@pytest.mark.parametrize("discriminator", [PeriodDiscriminator(3, (4, 8)), SpectrumDiscriminator(64, 4)])
def test_the_output_has_a_gradient_at_the_waveform(discriminator):
    waveform = torch.randn(1, 1, 600, requires_grad=True)
    discriminator(waveform)[-1].mean().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.any()


def test_discriminators_of_magnitudes_tell_flat_ones_from_sharp_ones():
    """What a regression does to magnitudes, an average over bins, is learned in a few steps."""
    torch.manual_seed(0)
    discriminators = MagnitudeDiscriminators(scales=(1, 2), width=4)
    optimizer = torch.optim.AdamW(discriminators.parameters(), 5e-3)
    for _ in range(40):
        sharp = torch.rand(4, 16, 65)
        flat = torch.nn.functional.avg_pool1d(sharp, 9, 1, 4)
        loss = discriminator_loss(discriminators(sharp), discriminators(flat))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5


def test_discriminators_of_features_tell_slow_ones_from_lively_ones():
    """What a regression does to features, an average over time, is learned in a few steps."""
    torch.manual_seed(0)
    discriminators = FeatureDiscriminators(22, scales=(1, 2), width=8)
    optimizer = torch.optim.AdamW(discriminators.parameters(), 5e-3)
    for _ in range(40):
        lively = torch.randn(4, 40, 22)
        slow = torch.nn.functional.avg_pool1d(lively.transpose(1, 2), 5, 1, 2).transpose(1, 2)
        maps = discriminators(torch.cat([lively, slow]))
        loss = discriminator_loss(
            [[m[:4] for m in each] for each in maps], [[m[4:] for m in each] for each in maps]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5
    assert [len(each) for each in maps] == [5, 5] and maps[1][-1].shape == (8, 1, 5)


@torch.no_grad()
def test_a_period_discriminator_sees_columns_of_its_period_alone():
    """Samples of one phase stay apart from the others: its kernels are one column wide."""
    discriminator, waveform = PeriodDiscriminator(3, (4, 8)), torch.randn(1, 1, 600)
    changed = waveform.clone()
    changed[..., 1::3] += 1
    moved = (discriminator(waveform)[-1] - discriminator(changed)[-1]).abs().amax((0, 1, 2)) > 0
    assert moved.tolist() == [False, True, False]
