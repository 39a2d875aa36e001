"""Totals of codebooks with known statistics."""

import math

import pytest
import torch

from csm.evaluation.core.clips import ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics.codebooks import Codebooks, codebook_summary, few_frames
from csm.tokenizer.usage import codebook_statistics
from tests.evaluation.small_voice import measured


def test_codebook_summary_of_known_statistics():
    statistics = {"usage": [0.5, 0.25], "perplexity": [2.0, 1.0], "dead": [2, 3], "codebook_size": 4}
    statistics["frames"] = 1000
    summary = codebook_summary(statistics)
    assert summary["efficiency"] == pytest.approx(0.25) and summary["bitrate"] == 2 * 2 * 12.5
    assert summary["entropy_bitrate"] == 12.5
    assert summary["entropy_bias"] == pytest.approx(0.5 / (2000 * math.log(2)))


@pytest.mark.parametrize("frames", [2000, 8000])
def test_the_entropy_and_its_bias_add_up_to_the_truth_on_average(frames):
    """Uniform codes: the entropy that is counted lacks what Miller and Madow say, to a tenth of it."""
    size, generator = 256, torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        codes = torch.randint(0, size, (1, 1, frames), generator=generator)
        statistics = codebook_statistics(codes, size)
        summary = codebook_summary(statistics)
        found.append((math.log2(statistics["perplexity"][0]), summary["entropy_bias"]))
    entropy, bias = torch.tensor(found).mean(dim=0).tolist()
    assert 8.0 - entropy == pytest.approx(bias, rel=0.1)


def test_perplexities_of_few_frames_are_said_to_be_too_low():
    codes = torch.randint(0, 1024, (1, 2, 64), generator=torch.Generator().manual_seed(0))
    note = few_frames(codebook_statistics(codes, 1024))
    assert "perplexities of 64 frames over 1,024 codes are too low, by a factor of 1." in note
    assert few_frames(codebook_statistics(codes % 2, 2) | {"frames": 200}) is None


def test_usage_may_be_counts_or_shares():
    counted = {
        "usage": [512, 1024],
        "perplexity": [2, 2],
        "dead": [512, 0],
        "codebook_size": 1024,
        "frames": 9,
    }
    assert codebook_summary(counted)["mean_usage"] == pytest.approx(0.75)


def test_the_statistics_of_a_run_become_entries_and_a_missing_file_is_named(run_folder):
    path = run_folder / "codes" / "codebooks.json"
    found = measured(Codebooks(path), ClipSets(sets=()))
    assert found["dead_codes", "corpus", "resynthesis"].mean == 32.0
    assert found["mean_usage", "corpus", "resynthesis"].n_in == 4
    with pytest.raises(NotMeasurable, match="no/codebooks.json"):
        Codebooks(run_folder / "no" / "codebooks.json")
