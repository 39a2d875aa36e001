"""Totals of codebooks with known statistics."""

import pytest

from csm.evaluation.core.clips import ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics.codebooks import Codebooks, codebook_summary
from tests.evaluation.small_voice import measured


def test_codebook_summary_of_known_statistics():
    statistics = {"usage": [0.5, 0.25], "perplexity": [2.0, 1.0], "dead": [2, 3], "codebook_size": 4}
    summary = codebook_summary(statistics)
    assert summary["efficiency"] == pytest.approx(0.25) and summary["bitrate"] == 2 * 2 * 12.5
    assert summary["entropy_bitrate"] == 12.5


def test_usage_may_be_counts_or_shares():
    counted = {"usage": [512, 1024], "perplexity": [2, 2], "dead": [512, 0], "codebook_size": 1024}
    assert codebook_summary(counted)["mean_usage"] == pytest.approx(0.75)


def test_the_statistics_of_a_run_become_entries_and_a_missing_file_is_named(run_folder):
    path = run_folder / "codes" / "codebooks.json"
    found = measured(Codebooks(path), ClipSets(sets=()))
    assert found["dead_codes", "corpus", "resynthesis"].mean == 32.0
    assert found["mean_usage", "corpus", "resynthesis"].n_in == 4
    with pytest.raises(NotMeasurable, match="no/codebooks.json"):
        Codebooks(run_folder / "no" / "codebooks.json")
