"""Probes of contrasts: held out by speaker, refused at chance, right on a contrast that is there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from csm.data.manifest import Conversation, Corpus, Turn
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.contrast_probe import (
    Example,
    contrast_numbers,
    fast_or_slow,
    question_or_statement,
    train_contrast,
)
from csm.evaluation.metrics.style import style_scale
from tests.evaluation.metrics.test_intonation import voiced

OPTIONS = RunnerOptions(repeats=200)


def examples(effect, *, by_speaker=False, speakers=8, each=20):
    """Clips of both labels; with `by_speaker` a speaker has one label alone."""
    generator = np.random.default_rng(0)
    made = []
    for speaker in range(speakers):
        for number in range(each):
            label = speaker % 2 if by_speaker else number % 2
            numbers = generator.normal(size=9) + 5 * np.sin(np.arange(9) * speaker)
            numbers[7] += effect * label
            made.append(Example(f"s{speaker}", numbers, label))
    return made


def trained(made):
    return train_contrast(
        "a contrast", made, style_scale([(one.speaker, one.numbers) for one in made]), OPTIONS
    )


def test_a_contrast_that_is_there_is_found_on_speakers_that_were_held_out():
    probe = trained(examples(2.0))
    assert probe.above_chance and probe.auroc > 0.85 and probe.speakers == 8 and probe.clips == 160
    assert f"AUROC {probe.auroc:.2f} [" in probe.accuracy and "held-out speakers" in probe.accuracy
    assert int(np.argmax(np.abs(probe.weights))) == 7


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_contrast_that_is_not_there_is_at_chance(by_speaker):
    """Also where the speaker alone says the label: held-out speakers do not."""
    probe = trained(examples(0.0, by_speaker=by_speaker))
    assert not probe.above_chance and probe.auroc < 0.65


def test_too_few_examples_are_refused():
    with pytest.raises(NotMeasurable, match="a contrast: 8 and 8 clips of 8 speakers"):
        trained(examples(2.0, each=2))
    with pytest.raises(NotMeasurable, match="of 1 speakers"):
        trained(examples(2.0, speakers=1, each=60))


def test_the_numbers_are_style_final_movement_and_rate():
    numbers = contrast_numbers(voiced(0, None, 0, 3), "Is it he, now?")
    assert numbers.shape == (9,) and numbers[7] == pytest.approx(3.0)
    assert numbers[8] == pytest.approx(9 / 1.2)  # the pause is not counted
    with pytest.raises(ValueError, match="voiced frames"):
        contrast_numbers(voiced(0, frames=20), "Is it?")
    with pytest.raises(ValueError, match="no letters"):
        contrast_numbers(voiced(0), "?")


def turn(number, speaker="A", text="Is it?"):
    return Turn(
        id=str(number), conversation="c", index=number, speaker=speaker, text=text, audio="a.wav", end=1.0
    )


def test_labels_are_those_of_text_and_rate(tmp_path):
    assert [question_or_statement(turn(0, text=t)) for t in ("Is it?", "It is.", "Why?")] == [1, 0, None]
    turns = tuple(turn(number) for number in range(5)) + (turn(5, "B"),)
    corpus = Corpus(root=tmp_path, conversations=(Conversation(id="c", split="train", turns=turns),), info={})
    assert fast_or_slow(corpus)(turns[0]) is None
    rates = (1.0, 1.0, 1.2, 0.8, 1.05, 1.3)
    rows = [json.dumps({"turn": str(number), "speed": rate}) for number, rate in enumerate(rates)]
    (tmp_path / "synthesis.jsonl").write_text("\n".join(rows), encoding="utf-8")
    label = fast_or_slow(corpus)
    # A rate is that of its own speaker: the only turn of B is as fast as B is.
    assert [label(one) for one in turns] == [None, None, 1, 0, None, None]
    assert label(replace(turns[0], id="9")) is None


def test_log_odds_are_higher_for_the_first_side():
    made = [
        Example(f"s{n % 4}", contrast_numbers(voiced(0, n % 3, end), "Is it?"), int(end > 0))
        for n in range(60)
        for end in (3, -3)
    ]
    probe = trained(made)
    assert probe.log_odds(voiced(0, 1, 4), "s0", "Is it?") > 0
    assert probe.log_odds(voiced(0, 1, -4), "s0", "Is it?") < 0 and probe.auroc == 1.0
