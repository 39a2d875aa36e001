"""Usage, perplexity and dead codes of known codes."""

import pytest
import torch
from scipy import stats

from csm.tokenizer.usage import codebook_statistics, perplexity


def test_statistics_of_known_codes():
    codes = torch.tensor([[[0, 0], [2, 2]], [[1, 1], [2, 2]]])
    assert codebook_statistics(codes, 4) == {
        "codebook_size": 4,
        "frames": 4,
        "usage": [0.5, 0.25],
        "perplexity": [2.0, 1.0],
        "dead": [2, 3],
    }


def test_a_codebook_whose_codes_are_equally_frequent_has_its_size_as_perplexity():
    codes = torch.arange(64).reshape(1, 1, 64) % 32
    assert codebook_statistics(codes, 32)["perplexity"] == [pytest.approx(32.0)]


def test_perplexity_takes_weights_and_ignores_codes_without_any():
    weights = torch.tensor([[0.25, 0.25, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]])
    expected = [2.0, 4 / 3**0.75]
    torch.testing.assert_close(perplexity(weights), torch.tensor(expected))


def test_codes_of_another_shape_or_out_of_range_are_refused():
    with pytest.raises(ValueError, match="expected 0..3"):
        codebook_statistics(torch.full((1, 1, 2), 4), 4)
    with pytest.raises(ValueError, match=r"expected \[batch, codebooks, frames\]"):
        codebook_statistics(torch.zeros(2, 2, dtype=torch.int64), 4)


def test_perplexity_is_two_to_the_entropy_of_scipy():
    counts = torch.randint(0, 50, (3, 40), generator=torch.Generator().manual_seed(0)).double()
    expected = [2 ** stats.entropy(row, base=2) for row in counts.numpy()]
    assert perplexity(counts).tolist() == pytest.approx(expected)
