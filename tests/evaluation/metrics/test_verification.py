"""Equal error rates of known cases, and trials in which every voice counts alike."""

import numpy as np
import pytest
import torch
from torch import nn

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.metrics import verification
from csm.evaluation.metrics.trials import draw_trials, equal_error_rate
from csm.evaluation.metrics.verification import VerificationConfig, speaker_verification
from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.conversational_rvq import EncodeInfo

RATE = 11025
CONFIG = VerificationConfig(speakers=("A", "B"), shortest=0.1, trials=40, repeats=20)


class SignTokenizer(nn.Module):
    """A tokenizer whose speaker embedding is the sign of the waveform."""

    def __init__(self):
        super().__init__()
        self.config = TokenizerConfig(sample_rate=RATE)
        self.weight = nn.Parameter(torch.ones(1))

    def encode(self, audio):
        mean = audio.mean(dim=-1)
        blank = torch.zeros(1, 1, 1)
        speaker = torch.cat([mean, torch.full_like(mean, 0.01)], dim=1)
        return blank.long(), EncodeInfo(blank, blank, speaker, blank, blank)


class ConstantEncoder:
    """Another embedding: the same for every clip."""

    evaluator = "constant 1.0"

    def embed(self, waveform):
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        return np.ones(3)


def make_corpus(folder, *, silent=()):
    conversations = []
    for number in range(4):
        turns = []
        for index, (speaker, level) in enumerate((("A", 0.1), ("B", -0.1), ("A", 0.2), ("B", -0.2))):
            name = f"c{number}_{index}"
            level = 0.0 if name in silent else level
            write_audio(folder / f"{name}.wav", torch.full((1, 4000), level), RATE)
            turns.append(
                Turn(
                    id=name,
                    conversation=f"c{number}",
                    index=index,
                    speaker=speaker,
                    text="one",
                    audio=f"{name}.wav",
                    end=4000 / RATE,
                )
            )
        conversations.append(Conversation(id=f"c{number}", split="test", turns=tuple(turns)))
    return Corpus(root=folder, conversations=tuple(conversations))


def error(same, different):
    kinds = np.array([True] * len(same) + [False] * len(different))
    return equal_error_rate(np.array([*same, *different], dtype=np.float64), kinds)


def test_the_error_of_known_cases() -> None:
    assert error([2, 3], [0, 1]) == pytest.approx(0.0)
    assert error([0, 1], [2, 3]) == pytest.approx(1.0)
    assert error([1, 3, 4, 5], [-1, 0, 0.5, 2]) == pytest.approx(0.25)
    assert error([1, 1, 1], [1, 1]) == pytest.approx(0.5), "a constant score tells nothing apart"


def test_the_error_is_where_scikit_learn_s_curve_meets_the_diagonal() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    for _ in range(20):
        same = generator.random(200) < 0.3
        scores = np.round(generator.standard_normal(200) + same, 1)  # with equal scores
        weight = generator.random(200)
        accepted, hit, _ = metrics.roc_curve(same, scores, sample_weight=weight, drop_intermediate=False)
        missed = 1 - hit
        after = int(np.argmax(missed <= accepted))
        before = missed[after - 1] - accepted[after - 1]
        step = before / (before - (missed[after] - accepted[after]))
        expected = missed[after - 1] + step * (missed[after] - missed[after - 1])
        assert equal_error_rate(scores, same, weight) == pytest.approx(expected, abs=1e-9)


def test_random_scores_have_an_error_of_one_half() -> None:
    scores = np.random.default_rng(0).standard_normal((2, 20_000))
    assert error(*scores) == pytest.approx(0.5, abs=0.015)


def test_the_error_depends_on_the_order_of_scores_alone() -> None:
    generator = np.random.default_rng(1)
    same, different = generator.standard_normal(300) + 1, generator.standard_normal(500)
    assert error(np.exp(same), np.exp(different)) == pytest.approx(error(same, different), abs=1e-12)
    assert 0.2 < error(same, different) < 0.4, "about the normal distribution's value at -0.5, 0.31"


def test_a_weight_is_worth_as_many_copies() -> None:
    generator = np.random.default_rng(2)
    scores, same = generator.standard_normal(60), np.arange(60) % 2 == 0
    copies = generator.integers(1, 4, 60)
    assert equal_error_rate(scores, same, copies.astype(float)) == pytest.approx(
        equal_error_rate(np.repeat(scores, copies), np.repeat(same, copies)), abs=1e-12
    )


def test_scores_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        error([1.0, float("nan")], [0.0])
    with pytest.raises(ValueError, match="one kind only"):
        error([1.0, 2.0], [])


def test_trials_ask_each_pair_once_and_every_voice_counts_alike() -> None:
    speakers = ["A"] * 30 + ["B"] * 12 + ["C"] * 3
    trials = draw_trials(speakers, trials=600, seed=3)
    pairs = list(zip(trials.left, trials.right, strict=True))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(a != b for a, b in pairs)
    names = [tuple(sorted((speakers[a], speakers[b]))) for a, b in pairs]
    assert [a == b for a, b in names] == trials.same.tolist()
    for kind in set(names):
        total = sum(w for name, w in zip(names, trials.weight, strict=True) if name == kind)
        assert total == pytest.approx(1 / 3), kind
    assert int(trials.same.sum()) == 100 + 66 + 3, "a voice with few clips has few pairs"


def test_trials_follow_their_seed() -> None:
    speakers = ["A"] * 20 + ["B"] * 20
    first, again, other = (draw_trials(speakers, trials=50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.left, again.left) and np.array_equal(first.right, again.right)
    assert not np.array_equal(first.left, other.left)


def test_two_voices_are_needed() -> None:
    with pytest.raises(ValueError, match="1 voices with two clips"):
        draw_trials(["A", "A", "A", "B"])
    with pytest.raises(ValueError, match="two different speakers"):
        VerificationConfig(speakers=("A",))


def test_both_embeddings_are_asked_the_same_pairs(tmp_path) -> None:
    corpus = make_corpus(tmp_path)
    table = speaker_verification(SignTokenizer(), corpus, CONFIG, encoder=ConstantEncoder())
    own, other, difference = table.rows
    assert own[1] == ("0.000", "0.000 to 0.000")
    assert (other[0].text, other[1]) == ("constant 1.0", ("0.500", "0.500 to 0.500"))
    assert difference[1].text == "-0.500"
    assert own[2:] == other[2:] == difference[2:]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table == speaker_verification(SignTokenizer(), corpus, CONFIG, encoder=ConstantEncoder())


def test_a_clip_that_cannot_be_embedded_is_named_and_asked_of_neither(tmp_path) -> None:
    corpus = make_corpus(tmp_path, silent=("c1_0",))
    table = speaker_verification(SignTokenizer(), corpus, CONFIG, encoder=ConstantEncoder())
    assert "15 clips" in table.note and "1 left out: c1_0 (the audio is silent)" in table.note


def test_without_resemblyzer_its_row_says_so(tmp_path, monkeypatch) -> None:
    def missing():
        raise EvaluatorUnavailable("speaker similarity needs Resemblyzer")

    monkeypatch.setattr(verification, "SpeakerEncoder", missing)
    table = speaker_verification(SignTokenizer(), make_corpus(tmp_path), CONFIG)
    assert [row[0].text for row in table.rows] == [verification.OWN, "Resemblyzer"]
    assert table.rows[1][1].text == "not measured" and "needs Resemblyzer" in table.note


def test_the_speakers_are_those_that_the_corpus_holds_out_unless_they_are_named(tmp_path) -> None:
    corpus = make_corpus(tmp_path)
    config = VerificationConfig(shortest=0.1, trials=40, repeats=20)
    with pytest.raises(ValueError, match="names no held_out_speakers"):
        speaker_verification(SignTokenizer(), corpus, config, encoder=ConstantEncoder())
    corpus.info["held_out_speakers"] = ["A", "B"]
    named = speaker_verification(SignTokenizer(), corpus, CONFIG, encoder=ConstantEncoder())
    assert speaker_verification(SignTokenizer(), corpus, config, encoder=ConstantEncoder()) == named
