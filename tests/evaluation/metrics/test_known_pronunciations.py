"""The test of the scorer itself: contrasts, exchanges that balance, and what chance scores."""

from collections import Counter

import numpy as np
import torch

from csm.data.manifest import Turn
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics import known_pronunciations as known
from csm.evaluation.metrics.known_pronunciations import (
    ANOTHER,
    KNOWN,
    contrasts_of,
    draw_exchanges,
    known_entries,
    known_scores,
)
from csm.evaluation.metrics.pronunciation import PronunciationScorer
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, VARIANTS


def turns(texts):
    return [
        Turn(id=str(n), conversation=str(n % 12), index=n, speaker="JOE", text=text, audio="a.wav", end=2.0)
        for n, text in enumerate(texts)
    ]


def test_contrasts_are_the_single_phones_that_tell_readings_apart():
    assert contrasts_of([("led", "lid"), ("bas", "bes"), ("ab", "abc"), ("abc", "xyc")]) == [
        ("a", "e"),
        ("e", "i"),
    ]
    words = [tuple(one.phones for one in word.readings) for word in (*HOMOGRAPHS, *VARIANTS)]
    assert ("i", "ɛ") in contrasts_of(words) and ("aʊ", "u") in contrasts_of(words)


def test_one_phone_is_exchanged_and_both_directions_are_as_frequent():
    contrast = ("i", "ɛ")
    drawn = draw_exchanges(
        turns(["He said yes to me.", "Keep the red bed.", "No, thank you."] * 20), [contrast], 0
    )
    assert len(drawn) == 40, "a turn without the phones has no exchange"
    directions = Counter()
    for one in drawn:
        pairs = [
            pair
            for said, changed in zip(one.said, one.changed, strict=True)
            for pair in zip(said, changed, strict=True)
            if pair[0] != pair[1]
        ]
        assert len(pairs) == 1 and one.contrast == contrast
        directions[pairs[0]] += 1
    assert directions == {("i", "ɛ"): 20, ("ɛ", "i"): 20}


class LikesWhatWasSaid(PronunciationScorer):
    """Reads the number of the right turn from the features; a wrong turn decides by a coin."""

    def ratio(self, steps, first, second):
        if steps[0, 0] == sum(map(len, first)):
            return 1.0
        return float(np.random.default_rng(len(first) + int(steps[0, 0])).normal())


def test_a_scorer_that_reads_the_sound_is_right_and_another_recording_is_not(monkeypatch):
    texts = [f"He said {'very ' * n}well." for n in range(40)]
    exchanges = draw_exchanges(turns(texts), [("i", "ɛ")], 0)
    sizes = {one.turn.id: sum(map(len, one.said)) for one in exchanges}
    monkeypatch.setattr(
        known, "read_turn", lambda corpus, turn, rate: torch.full((1, 1), float(sizes[turn.id]))
    )
    scorer = LikesWhatWasSaid(None, lambda sound: sound)
    entries = {e.condition: e for e in known_entries(known_scores(scorer, None, exchanges), RunnerOptions())}
    assert entries[KNOWN].mean == 1.0 and entries[KNOWN].n_in == 40
    low, high = entries[ANOTHER].ci95
    assert low < 0.5 < high


def test_what_cannot_be_aligned_counts_as_wrong(monkeypatch):
    class Refuses(PronunciationScorer):
        def ratio(self, steps, first, second):
            raise ValueError("too few steps")

    exchanges = draw_exchanges(turns(["He said yes."] * 4), [("i", "ɛ")], 0)
    monkeypatch.setattr(known, "read_turn", lambda *_: torch.zeros(1, 1))
    (entry,) = known_entries(
        known_scores(Refuses(None, lambda x: x), None, exchanges), RunnerOptions(repeats=20)
    )
    assert entry.mean == 0.0 and entry.failures == {"too few steps": 4}
