"""Sampling a code: the argmax, one of the k most probable, the same for a seed."""

from collections import Counter

import pytest
import torch

from csm.generation.sampling import SamplingConfig, sample


def draws(logits, temperature, top_k, count=3000) -> Counter:
    g = torch.Generator().manual_seed(0)
    return Counter(int(sample(logits, temperature, top_k, g)) for _ in range(count))


def test_temperature_0_takes_the_argmax() -> None:
    assert draws(torch.tensor([0.0, 3.0, 2.9]), 0.0, 0, 20) == {1: 20}


def test_draws_follow_the_distribution_and_its_temperature() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    for temperature in (0.5, 1.0, 2.0):
        found = draws(logits, temperature, 0)
        for index, share in enumerate((logits / temperature).softmax(0).tolist()):
            assert found[index] / 3000 == pytest.approx(share, abs=0.03)


def test_top_k_samples_from_the_k_most_probable_only() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 1.5])
    assert set(draws(logits, 1.0, 2)) == {2, 3}
    assert set(draws(logits, 1.0, 99)) == {0, 1, 2, 3}


def test_a_seed_repeats() -> None:
    logits = torch.randn(50)
    runs = [
        [int(sample(logits, 1.0, 20, g)) for _ in range(20)]
        for g in (torch.Generator().manual_seed(s) for s in (1, 1, 2))
    ]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_logits_are_refused(temperature) -> None:
    for logits in (torch.tensor([0.0, torch.nan]), torch.full((3,), -torch.inf)):
        with pytest.raises(ValueError, match="logits hold NaN or rule out every index"):
            sample(logits, temperature, 0, torch.Generator())


@pytest.mark.parametrize(
    "field",
    [
        {"temperature": -1.0},
        {"depth_temperature": -1.0},
        {"top_k": -1},
        {"speed": 0.4},
        {"speed": 2.5},
        {"max_seconds": 0.0},
        {"shortest": -0.1},
        {"variance_restoration": 1.1},
        {"contrast": 0.0},
    ],
)
def test_values_out_of_range_are_refused(field) -> None:
    with pytest.raises(ValueError, match=next(iter(field)).removeprefix("depth_")):
        SamplingConfig(**field)
