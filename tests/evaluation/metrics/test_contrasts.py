"""Coherence of contrasts with the recordings, its control, and what is refused."""

import dataclasses

import numpy as np
import pytest
import soundfile

from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.runner import RunnerOptions, measure_metric
from csm.evaluation.metrics.contours import Contours
from csm.evaluation.metrics.contrasts import ContrastCoherence, correlation

RATE = 16_000
OPTIONS = RunnerOptions(repeats=100)


def tone(end, generator, base=120.0):
    """A buzz of 1.2 s whose last quarter moves by `end` semitones."""
    steps = np.concatenate([np.zeros(12), np.full(4, end)]) + 0.3 * generator.normal(size=16)
    pitch = np.repeat(base * 2 ** (steps / 12), RATE * 12 // 160)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return (0.2 * sum(np.sin(k * phase) / k for k in range(1, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four speakers, half of whose turns are questions that rise."""
    root, generator = tmp_path_factory.mktemp("contrasts"), np.random.default_rng(0)
    turns = []
    for number in range(80):
        asks, speaker = number % 2, number // 2 % 4
        sound = tone(4.0 if asks else -3.0, generator, 100.0 + 40 * speaker)
        soundfile.write(root / f"{number}.wav", sound, RATE)
        turns.append(
            Turn(
                id=str(number),
                conversation="c",
                index=number,
                speaker=f"s{speaker}",
                text="Is it?" if asks else "It is.",
                audio=f"{number}.wav",
                end=len(sound) / RATE,
            )
        )
    return Corpus(
        root=root, conversations=(Conversation(id="c", split="train", turns=tuple(turns)),), info={}
    )


def sets(ends, generated):
    pytest.importorskip("parselmouth")
    made = []
    for condition, values in (("recording", ends), ("generated", generated)):
        generator = np.random.default_rng(len(condition))
        clips = tuple(
            Clip(id=str(n), conversation=str(n), speaker="s0", text="It is.", waveform=tone(end, generator))
            for n, end in enumerate(values)
        )
        made.append(ClipSet(group="lines", condition=condition, clips=clips))
    return ClipSets(sets=tuple(made))


@pytest.fixture(scope="module")
def metric(corpus):
    pytest.importorskip("parselmouth")
    return ContrastCoherence(Contours(), corpus, OPTIONS, clips=40)


def test_replies_that_end_as_the_recordings_do_are_coherent_and_those_of_others_are_not(metric):
    ends = np.random.default_rng(1).permutation([4.0, -3.0] * 8)
    found = {e.condition: e for e in measure_metric(metric, sets(ends, ends), OPTIONS)}
    assert found["generated"].mean > 0.8 and found["generated"].ci95[0] > 0.5
    control = found["generated, another reply"]
    assert control.ci95[0] < 0.3 and control.mean < 0.6
    flat = next(iter(measure_metric(metric, sets(ends, np.zeros(16)), OPTIONS)))
    assert flat.mean < 0.6
    assert "our own" in flat.evaluator and "held-out speakers" in flat.evaluator


def test_a_contrast_that_the_corpus_lacks_is_named(metric):
    (missing,) = metric.missing
    assert missing == (
        "prosodic contrast coherence: fast against slow: the train split has no clip of either side"
    )


def test_a_contrast_at_chance_is_not_reported(corpus):
    generator = np.random.default_rng(3)
    (conversation,) = corpus.conversations
    turns = tuple(
        dataclasses.replace(turn, text=("Is it?", "It is.")[int(generator.integers(2))])
        for turn in conversation.turns
    )
    shuffled = dataclasses.replace(corpus, conversations=(dataclasses.replace(conversation, turns=turns),))
    metric = ContrastCoherence(Contours(), shuffled, OPTIONS, clips=40)
    assert not metric.probes and "question against statement: the probe has AUROC 0." in metric.missing[0]
    assert not list(measure_metric(metric, sets([1.0, 2.0], [1.0, 2.0]), OPTIONS))


def test_a_corpus_is_needed_and_what_does_not_vary_has_no_correlation():
    with pytest.raises(NotMeasurable, match="give --corpus FOLDER"):
        ContrastCoherence(Contours(), None, OPTIONS, clips=40)
    assert correlation([[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]]) is None
    assert correlation([[(1.0, 2.0)], [(2.0, 4.0), (3.0, 6.0)]]) == pytest.approx(1.0)
