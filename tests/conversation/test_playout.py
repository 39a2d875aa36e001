"""The jitter buffer plays every sample once, counts it, and skips the silence that a reply begins with."""

import torch

from csm.conversation.playout import Playout
from csm.conversation.speaker import Chunk


def filled(*chunks: torch.Tensor, start: int = 0) -> Playout:
    playout = Playout(start, fade=5)
    playout.released = True
    for number, samples in enumerate(chunks):
        playout.add(Chunk(number, samples))
    return playout


def test_samples_are_counted_by_clause() -> None:
    playout = filled(torch.full((30,), 0.1), torch.full((30,), 0.2))
    assert torch.equal(playout.play(40), torch.cat([torch.full((30,), 0.1), torch.full((10,), 0.2)]))
    assert playout.played == [30, 10] and playout.waiting == 20


def test_the_first_silence_counts_as_played() -> None:
    quiet = torch.cat([torch.zeros(100), torch.full((20,), 0.1)])
    playout = filled(torch.zeros(50), quiet)
    assert playout.played == [50, 95] and playout.waiting == 25 and playout.skipped == 145


def test_a_reply_waits_for_its_release_its_start_and_the_end_of_a_hold() -> None:
    playout = filled(torch.ones(30), start=40)
    assert not playout.play(10).any() and not playout.begun
    playout.add(Chunk(0, torch.ones(30)))
    playout.released = False
    assert not playout.play(10).any()
    playout.released = True
    assert playout.play(10).all()
    playout.held = True
    assert not playout.play(10).any() and playout.underruns == 0
    playout.resume()
    assert torch.equal(playout.play(10)[:5], torch.linspace(0, 1, 5))
    assert playout.played == [20]


def test_what_runs_dry_is_counted_once_and_collected_again() -> None:
    playout = filled(torch.ones(50), start=40)
    assert playout.play(60).sum() == 50 and playout.underruns == 1
    playout.add(Chunk(0, torch.ones(30)))
    assert not playout.play(10).any() and playout.underruns == 1
    playout.whole = True
    assert playout.play(60).sum() == 30 and playout.over and playout.underruns == 1
