"""Sampling a code: the argmax, one of the k most probable, the same for a seed."""

from collections import Counter

import pytest
import torch

from csm.generation.sampling import SamplingConfig, sample, sample_rows


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


def rows_like(logits: torch.Tensor, temperatures, top_ks, seeds) -> list[int]:
    """`sample_rows` with the numbers that `sample` draws."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    uniforms = [torch.rand((), dtype=torch.float64, generator=g) for g in generators]
    kept = torch.tensor([min(k or logits.shape[1], logits.shape[1]) for k in top_ks])
    return sample_rows(logits, torch.tensor(temperatures), kept, torch.stack(uniforms)).tolist()


@pytest.mark.parametrize("grid", [None, 4], ids=["any logits", "equal logits"])
def test_rows_on_a_device_get_the_indices_that_each_gets_alone(grid) -> None:
    """Rows of different temperatures and top_k, with ties at the edge of top_k too."""
    g = torch.Generator().manual_seed(1)
    settings = [(t, k) for t in (0.0, 0.3, 0.9, 2.0) for k in (0, 1, 5, 50, 70, 99)]
    temperatures, top_ks = zip(*settings, strict=True)
    drawn = set()
    for start in range(0, 100 * len(settings), len(settings)):
        logits = 3 * torch.randn(len(settings), 70, generator=g)
        logits = logits if grid is None else (logits * grid / 3).round() / grid
        logits[:, 61:] = -torch.inf
        seeds = range(start, start + len(settings))
        alone = [
            int(sample(row, t, k, torch.Generator().manual_seed(seed)))
            for row, (t, k), seed in zip(logits, settings, seeds, strict=True)
        ]
        assert rows_like(logits, temperatures, top_ks, seeds) == alone
        drawn.update(alone)
    assert drawn == set(range(61))


def test_the_largest_uniform_number_draws_the_last_index_that_has_a_weight() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0, -torch.inf]])
    edge = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    for top_k, last in ((5, 3), (1, 3)):
        assert sample_rows(logits, torch.ones(1), torch.tensor([top_k]), edge).tolist() == [last]
    assert sample_rows(logits, torch.ones(1), torch.tensor([2]), 0 * edge).tolist() == [1]


def test_damaged_rows_alone_are_minus_one() -> None:
    logits = torch.tensor([[0.0, torch.nan], [1.0, 0.0], [-torch.inf, -torch.inf]])
    for temperature, sound in ((0.0, 0), (1.0, 0)):
        assert rows_like(logits, [temperature] * 3, [0, 1, 2], range(3)) == [-1, sound, -1]


@pytest.mark.parametrize(
    "field",
    [
        {"temperature": -1.0},
        {"depth_temperature": -1.0},
        {"top_k": -1},
        {"guidance": -0.1},
        {"guidance": float("inf")},
        {"speed": 0.4},
        {"speed": 2.5},
        {"max_seconds": 0.0},
        {"shortest": -0.1},
        {"variance_restoration": 1.1},
        {"contrast": 0.0},
        {"decoded_codebooks": 0},
    ],
)
def test_values_out_of_range_are_refused(field) -> None:
    with pytest.raises(ValueError, match=next(iter(field)).removeprefix("depth_")):
        SamplingConfig(**field)
