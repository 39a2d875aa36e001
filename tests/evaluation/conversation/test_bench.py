"""The bench gives known subjects the known ends of its scales."""

import itertools

import pytest
import torch

from csm.conversation.backchannels import is_backchannel
from csm.evaluation.conversation.bench import run_bench, summary
from csm.evaluation.conversation.stubs import AlwaysStops, IgnoresUsers, _Stub
from csm.evaluation.conversation.users import RATE, YIELDS, recorded_speech, scripted_users

COUNT = 2


@pytest.fixture(scope="module")
def users(excerpt) -> list:
    return scripted_users(excerpt, COUNT)


def test_users_are_drawn_once_of_every_kind(users, excerpt) -> None:
    kinds = [user.kind for user in users]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys([*YIELDS, "hesitation"], COUNT)
    again = scripted_users(excerpt, COUNT)
    assert all(
        torch.equal(a.event, b.event) and torch.equal(a.opening, b.opening)
        for a, b in zip(users, again, strict=True)
    )
    with pytest.raises(ValueError, match="lower --users"):
        scripted_users(excerpt, 10**6)


def test_short_interruptions_are_short_turns_whose_words_are_no_backchannel(users, excerpt) -> None:
    turns = [turn for split in ("test", "validation", "train") for turn in excerpt.turns(split)]
    short = [turn for turn in turns if turn.duration <= 1.0]
    for kind, expected in (("short_interruption", False), ("backchannel", True)):
        for user in (user for user in users if user.kind == kind):
            (text,) = {turn.text for turn in short if torch.equal(recorded_speech(excerpt, turn), user.event)}
            assert text and is_backchannel(text) == expected


def test_a_subject_that_ignores_users_never_yields_and_never_stops(users) -> None:
    found = summary(run_bench(users, IgnoresUsers))
    for row in (found, found["short_interruptions"]):
        assert row["yield_rate"] == row["answered"] == {"count": 0, "of": COUNT}
        assert row["stop_latency_ms"] is None and row["first_audio_after_ms"] is None
    assert all(share == {"count": 0, "of": COUNT} for share in found["false_stops"].values())
    assert not found["failed"] and found["n"] == len(users)


def test_a_subject_that_always_stops_yields_at_once_and_to_everything(users) -> None:
    found = summary(run_bench(users, AlwaysStops))
    for row in (found, found["short_interruptions"]):
        assert row["yield_rate"] == row["answered"] == {"count": COUNT, "of": COUNT}
        assert row["stop_latency_ms"]["p95"] <= 60 and row["stale_ms"]["p95"] == 0
        assert abs(row["first_audio_after_ms"]["p50"] - 1000) <= 60
    stops = {kind: share["count"] for kind, share in found["false_stops"].items()}
    assert stops.pop("silence") == 0 and stops.pop("side_talk") in range(COUNT + 1)
    assert set(stops.values()) == {COUNT}, "the answer to a cough is no old speech"


def test_a_subject_that_never_speaks_fails_and_is_counted(users) -> None:
    class Mute:
        rate = RATE

        def step(self, samples, rate):
            return torch.zeros(len(samples))

        def close(self) -> None:
            pass

    found = summary(run_bench(users[:2], Mute))
    assert len(found["failed"]) == 2 == found["n"] and found["yield_rate"]["of"] == 0


class Follows(_Stub):
    """Its replies are noises, and what it does once a sound comes over the first one is stated.

    Args:
        plan: Seconds, and "old" speech, "new" speech or silence ("") for as long; the last one stays.
        seed: Of the noises.
    """

    def __init__(self, plan: list[tuple[float, str]], seed: int = 0) -> None:
        super().__init__(60.0)
        self._plan, self._began = plan, None
        generator = torch.Generator().manual_seed(seed)
        self._said = {"old": 0, "new": 0}
        self._noise = {name: 0.1 * torch.randn(60 * RATE, generator=generator) for name in self._said}

    def step(self, samples, rate):
        speaks = self._left > 0
        super().step(samples, rate)
        if not speaks:
            return torch.zeros(len(samples))
        if self._began is None and bool(samples.any()):
            self._began = self._time
        what = "old" if self._began is None else self._planned((self._time - self._began) / RATE)
        if not what:
            return torch.zeros(len(samples))
        first = self._said[what]
        self._said[what] += len(samples)
        return self._noise[what][first : self._said[what]]

    def _planned(self, seconds: float) -> str:
        ends = itertools.accumulate(length for length, _ in self._plan)
        return next(
            (what for end, (_, what) in zip(ends, self._plan, strict=True) if seconds < end - 1e-6), ""
        )


@pytest.fixture(scope="module")
def brief(users):
    """One user who says a short word, and one who murmurs, with the length of their speech in seconds."""
    found = [
        next(user for user in users if user.kind == kind) for kind in ("short_interruption", "backchannel")
    ]
    return found, [len(user.event) / RATE for user in found]


def outcomes(users, plan):
    return run_bench(users, lambda: Follows([*plan, (60.0, plan[-1][1])]))


@pytest.mark.parametrize("answer_after", [0.1, 0.4])
def test_an_answer_that_comes_soon_is_a_stop(brief, answer_after) -> None:
    users, seconds = brief
    for user, length in zip(users, seconds, strict=True):
        pause = length - 0.2 + answer_after
        (one,) = outcomes([user], [(0.2, "old"), (pause, ""), (9.0, "new")])
        assert not one.failure and abs(one.stopped - 200) <= 40 and one.stale == 0
        if user.kind == "short_interruption":
            assert abs(one.again - 1000 * answer_after) <= 60


def test_a_reply_that_is_paused_and_resumed_is_no_stop(brief) -> None:
    users, _ = brief
    found = outcomes(users, [(0.2, "old"), (1.2, ""), (9.0, "old")])
    assert all(one.stopped is None and one.again is None and one.paused >= 1100 for one in found)
    assert summary(found)["false_pauses"]["backchannel"] == {"count": 1, "of": 1}
    assert summary(found)["short_interruptions"]["yield_rate"] == {"count": 0, "of": 1}


def test_the_voice_stops_where_its_old_speech_ends_for_good(brief) -> None:
    (user, _), _ = brief
    (one,) = outcomes([user], [(0.2, "old"), (0.6, ""), (0.2, "old"), (0.3, ""), (9.0, "new")])
    assert abs(one.stopped - 1000) <= 40
    assert abs(one.again - (1300 - 1000 * len(user.event) / RATE)) <= 60


def test_an_answer_within_the_interruption_cuts_in_and_is_stale(brief) -> None:
    (user, _), (seconds, _) = brief
    (one,) = outcomes([user], [(0.2, "old"), (0.2, ""), (9.0, "new")])
    assert abs(one.stopped - 200) <= 40 and abs(one.again - 1000 * (0.4 - seconds)) <= 60
    assert one.again < 0 < one.stale


def test_old_speech_after_a_long_silence_is_no_answer(brief) -> None:
    (user, _), _ = brief
    (one,) = outcomes([user], [(0.2, "old"), (2.0, ""), (9.0, "old")])
    assert one.stopped is not None and one.again is None
    (silent,) = outcomes([user], [(0.2, "old"), (9.0, "")])
    assert silent.stopped is not None and silent.again is None


def test_a_voice_whose_replies_differ_by_themselves_is_not_scored(brief) -> None:
    users, _ = brief
    seeds = itertools.count()
    found = run_bench(users, lambda: Follows([(60.0, "old")], next(seeds)))
    assert all("cannot be distinguished" in one.failure for one in found)
    assert summary(found)["short_interruptions"]["yield_rate"]["of"] == 0
