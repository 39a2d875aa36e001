"""The evaluation of pronunciation: a scorer at chance is refused, one above it scores what a voice says."""

import dataclasses

import numpy as np
import pytest
import torch

from csm.cli.evaluate import add_arguments
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics import known_pronunciations
from csm.evaluation.metrics.known_pronunciations import GROUP, KNOWN
from csm.evaluation.metrics.pronunciation import PronunciationScorer
from csm.evaluation.page.pronunciation_page import pronunciation_tables, write_pronunciation_page
from csm.evaluation.subjects import pronunciation, pronunciation_lines
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, VARIANTS
from csm.evaluation.subjects.pronunciation import PronunciationOptions, measure_pronunciation
from csm.generation.sampling import SamplingConfig
from tests.evaluation.small_voice import small_talker

SMALL = PronunciationOptions(train_clips=40, known_clips=40, runner=RunnerOptions(repeats=50))


class Coin(PronunciationScorer):
    """Prefers either pronunciation, whatever was said."""

    def ratio(self, steps, first, second):
        return float(np.random.default_rng(len(steps)).normal())


class Right(PronunciationScorer):
    """Prefers the first of two pronunciations, which is the one that was said on recordings."""

    def ratio(self, steps, first, second):
        return 5.0


@pytest.fixture
def small(tiny_model, excerpt, tmp_path, monkeypatch):
    monkeypatch.setattr(pronunciation_lines, "HOMOGRAPHS", HOMOGRAPHS[:1])
    monkeypatch.setattr(pronunciation_lines, "VARIANTS", VARIANTS[:1])
    noise = torch.Generator().manual_seed(0)
    sound = lambda corpus, turn, rate: torch.randn(1, 1600 + turn.index, generator=noise)  # noqa: E731
    monkeypatch.setattr(known_pronunciations, "read_turn", sound)
    return (
        small_talker(tiny_model, sampling=SamplingConfig(max_seconds=0.24)),
        excerpt,
        dataclasses.replace(SMALL, output=tmp_path),
    )


def measured(small, monkeypatch, scorer):
    talker, corpus, options = small
    monkeypatch.setattr(pronunciation, "trained_scorer", lambda *_: scorer(None, lambda sound: sound[0]))
    results = measure_pronunciation(talker, corpus, options, None)
    return results, results.report("pronunciation", "small", "excerpt", options.runner, conditions=[])


def test_a_scorer_at_chance_is_refused_before_anything_is_spoken(small, monkeypatch, tmp_path):
    monkeypatch.setattr(pronunciation, "spoken_sets", None)
    results, report = measured(small, monkeypatch, Coin)
    (missing,) = results.missing
    assert "0.50 is chance: a longer corpus is needed" in missing.reason
    assert {entry.group for entry in results.entries} == {GROUP}
    page = write_pronunciation_page(tmp_path, report).read_text(encoding="utf-8")
    assert "0.50 is chance" in page and "Word by word" not in page


def test_a_scorer_above_chance_scores_homographs_and_pairs(small, monkeypatch, tmp_path):
    results, report = measured(small, monkeypatch, Right)
    shares, words = pronunciation_tables(report)
    found = {(row[0].text, row[1].text): row[2].text for row in shares.rows}
    assert found[GROUP, KNOWN] == "1.00" and found["homographs, Sesame's words", "generated"] == "0.50"
    assert [row[1].text for row in words.rows][0] == "lead" and words.rows[0][2].text == "2"
    assert all(entry.n_ok + entry.n_failed == entry.n_in for entry in results.entries)
    page = write_pronunciation_page(tmp_path, report).read_text(encoding="utf-8")
    assert "Word by word" in page and "our own" in page


def test_the_command_names_its_folder_and_sizes_are_checked():
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert str(parser.parse_args(["--pronunciation", "v"]).pronunciation) == "v"
    with pytest.raises(ValueError, match="train_clips is 0"):
        PronunciationOptions(train_clips=0)
