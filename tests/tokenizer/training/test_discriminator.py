"""The judges: feature maps and a verdict each, on waveforms of any length."""

import pytest
import torch

from csm.tokenizer.training.discriminator import Discriminator, PeriodDiscriminator, SpectrumDiscriminator


@pytest.mark.parametrize("samples", [1100, 1101, 2000])
def test_every_judge_gives_finite_maps_and_a_verdict(samples):
    judges = Discriminator(periods=(2, 5), windows=(256, 64), width=4)
    opinions = judges(torch.randn(2, 1, samples))
    assert len(opinions) == 4
    assert all(maps[-1].shape[:2] == (2, 1) and len(maps) > 3 for maps in opinions)
    assert all(each.isfinite().all() for maps in opinions for each in maps)


@pytest.mark.parametrize("judge", [PeriodDiscriminator(3, (4, 8)), SpectrumDiscriminator(64, 4)])
def test_the_verdict_has_a_gradient_at_the_waveform(judge):
    waveform = torch.randn(1, 1, 600, requires_grad=True)
    judge(waveform)[-1].mean().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.any()


@torch.no_grad()
def test_a_period_judge_sees_columns_of_its_period_alone():
    """Samples of one phase stay apart from the others: its kernels are one column wide."""
    judge, waveform = PeriodDiscriminator(3, (4, 8)), torch.randn(1, 1, 600)
    changed = waveform.clone()
    changed[..., 1::3] += 1
    moved = (judge(waveform)[-1] - judge(changed)[-1]).abs().amax((0, 1, 2)) > 0
    assert moved.tolist() == [False, True, False]
