"""The bench gives known subjects the known ends of its scales."""

import pytest
import torch

from csm.evaluation.conversation.bench import run_bench, summary
from csm.evaluation.conversation.stubs import AlwaysStops, IgnoresUsers
from csm.evaluation.conversation.users import RATE, YIELDS, scripted_users

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


def test_a_subject_that_ignores_users_never_yields_and_never_stops(users) -> None:
    found = summary(run_bench(users, IgnoresUsers))
    assert found["yield_rate"] == {"count": 0, "of": COUNT} and found["stop_latency_ms"] is None
    assert all(share == {"count": 0, "of": COUNT} for share in found["false_stops"].values())
    assert not found["failed"] and found["n"] == len(users)


def test_a_subject_that_always_stops_yields_at_once_and_to_everything(users) -> None:
    found = summary(run_bench(users, AlwaysStops))
    assert found["yield_rate"] == {"count": COUNT, "of": COUNT} and found["stop_latency_ms"]["p95"] <= 60
    stops = {kind: share["count"] for kind, share in found["false_stops"].items()}
    assert stops.pop("silence") == 0 and stops.pop("side_talk") in range(COUNT + 1)
    assert found["stale_ms"]["p95"] == 0


def test_a_subject_that_never_speaks_fails_and_is_counted(users) -> None:
    class Mute:
        rate = RATE

        def step(self, samples, rate):
            return torch.zeros(len(samples))

        def close(self) -> None:
            pass

    found = summary(run_bench(users[:2], Mute))
    assert len(found["failed"]) == 2 == found["n"] and found["yield_rate"]["of"] == 0
