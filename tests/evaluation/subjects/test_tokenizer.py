"""One run measures the recording, every number of codebooks and the anchors, and gives the same twice."""

import dataclasses

import pytest
import torch

from csm.data.turn_audio import read_turn
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.text_reader import letters_of
from csm.evaluation.subjects import tokenizer as tokenizers
from csm.evaluation.subjects.tokenizer import TokenizerOptions, measure_tokenizer
from csm.spelling import LETTERS
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from tests.evaluation.small_voice import NotInstalled

SMALL = TokenizerOptions(codebooks=(2, 4), clips=4, runner=RunnerOptions(repeats=20))


@pytest.fixture
def cheap(monkeypatch):
    """Only the metric that costs nothing, and one that is not installed."""
    rows = tokenizers.tokenizer_metric_rows
    monkeypatch.setattr(
        tokenizers,
        "tokenizer_metric_rows",
        lambda options: {
            "log-mel distance": rows(options)["log-mel distance"],
            "distillMOS": NotInstalled,
        },
    )


def test_every_condition_is_measured_and_two_runs_agree(cheap, small_corpus, tiny_tokenizer):
    report, conditions = measure_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    names = [
        "original",
        "codebooks_2",
        "codebooks_4",
        "opus_6k",
        "opus_12k",
        "opus_16k",
        "codec2_3200",
        "codec2_1300",
    ]
    assert report.conditions == names and [one.name for one in conditions] == names
    assert report.details["clips"]["count"] == 4 and report.details["clips"]["conversations"] == 2
    assert all(entry.n_ok + entry.n_failed == 4 for entry in report.metrics)
    assert {e.condition for e in report.metrics} == {one.name for one in conditions if not one.missing}
    original = report.find("log_mel_l1", "held-out clips", "original")
    assert original.mean == pytest.approx(0.0) and original.conversations == 2
    assert [missing.section for missing in report.missing[-2:]] == ["distillMOS", "codebooks"]
    assert len(report.details["codebooks"]["usage"]) == 4
    again, _ = measure_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    assert again == report


def test_a_clip_that_is_lost_withholds_the_mean(cheap, small_corpus, tiny_tokenizer):
    (small_corpus.root / small_corpus.conversations[0].turns[0].audio).unlink()
    report, _ = measure_tokenizer(tiny_tokenizer, small_corpus, dataclasses.replace(SMALL, clips=7))
    entry = report.find("log_mel_l1", "held-out clips", "original")
    assert entry.n_failed == 1 and entry.mean is None and entry.mean_of_scored is not None
    untrained = report.find("log_mel_l1", "held-out clips", "codebooks_4")  # what it decodes is noise
    assert untrained.n_failed == untrained.n_in and untrained.mean is None


def test_anchors_that_are_not_installed_are_listed_and_never_scored(
    cheap, small_corpus, tiny_tokenizer, monkeypatch
):
    monkeypatch.setattr(tokenizers, "ANCHORS", tokenizers.ANCHORS[:1])
    monkeypatch.setattr("shutil.which", lambda command: None)
    report, _ = measure_tokenizer(tiny_tokenizer, small_corpus, SMALL)
    assert report.details["conditions"][-1]["missing"] == "not installed: apt install opus-tools"
    assert report.missing[0].reason == "Opus 6k not installed: apt install opus-tools"
    assert not [entry for entry in report.metrics if entry.condition == "opus_6k"]


def test_more_codebooks_than_there_are_are_refused(small_corpus, tiny_tokenizer):
    with pytest.raises(ValueError, match="codebooks 32: the tokenizer has 4"):
        measure_tokenizer(tiny_tokenizer, small_corpus, TokenizerOptions())


@pytest.mark.parametrize("bad", [{"codebooks": ()}, {"codebooks": (4, 4)}, {"clips": 0}, {"codebooks": (0,)}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TokenizerOptions(**bad)


def test_heads_read_back_growing_prefixes_of_the_semantic_codes(cheap, small_corpus, tiny_tokenizer):
    """The texts are those that the letter head reads from codes cut by hand."""
    torch.manual_seed(0)
    config = tiny_tokenizer.config
    heads = SemanticHeads(config.codebook_dim, 16, 5, len(LETTERS)).eval()
    options = dataclasses.replace(SMALL, players=2)
    report, conditions = measure_tokenizer(tiny_tokenizer, small_corpus, options, heads=heads)
    texts = report.details["read_back"]
    assert list(texts) == [clip.id for clip in conditions[0].clips[:2]]
    assert all(list(read) == ["1", str(config.semantic_codebooks)] for read in texts.values())
    turn = next(turn for turn in small_corpus.turns() if turn.id == next(iter(texts)))
    codes, _ = tiny_tokenizer.encode(read_turn(small_corpus, turn, config.sample_rate).unsqueeze(0))
    with torch.no_grad():
        rows = tiny_tokenizer.quantizer.semantic.lookup(codes[0, :1].T).unsqueeze(0)
        scores = heads.letter_scores(heads.steps(rows))[0]
    assert texts[turn.id]["1"] == letters_of(scores)
    without, _ = measure_tokenizer(tiny_tokenizer, small_corpus, options)
    assert without.details["read_back"] == {}
