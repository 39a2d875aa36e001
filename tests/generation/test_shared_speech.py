"""Speeches that are made together are those that each is alone, whoever joins, waits, leaves or fails."""

import random
import threading
from dataclasses import replace
from itertools import islice, zip_longest

import pytest
import torch

from csm.generation.shared_speech import AHEAD, SharedSteps
from csm.generation.talker import Talker

TEXTS = (
    "Hello there. Who are you?",
    "Me.",
    "A longer line, for once.",
    "Yes. No.",
    "You and whose army?",
)


@pytest.fixture
def talker(talker):
    """Its turns end after 0.56 s."""
    return replace(talker, sampling=replace(talker.sampling, max_seconds=0.56))


def shared(talker: Talker, **options) -> Talker:
    """Returns a talker whose streams are made together; without a thread unless one is asked for."""
    return replace(talker, shared=SharedSteps(talker.tokenizer, **{"thread": False, **options}))


def begun(talker: Talker, number: int):
    """Begins a speech of its own text, voice, seed and past."""
    text, voice = TEXTS[number % len(TEXTS)], (None, "FAYE", "JOE")[number % 3]
    session = talker.session(number)
    if number % 2:
        turn = talker.speak_turn("Before.", session=session)
        assert turn.codes.shape[1]
    return talker.generate(text, voice, session=session, stream=True)


def alone(talker: Talker, number: int, chunks: int | None):
    """Returns the chunks of a speech made alone, closed after `chunks` of them, and the speech."""
    stream = begun(talker, number)
    made = list(islice(stream, chunks))
    stream.close()
    return made, stream


def assert_same(stream, made, other, expected) -> None:
    """Two speeches have the same audio, codes, endings and turns, and their sessions go on alike."""
    assert len(made) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    assert torch.equal(stream.codes, other.codes) and stream.endings == other.endings
    kept, same = stream.session.turns, other.session.turns
    assert len(kept) == len(same) and stream.session.rows == other.session.rows
    for a, b in zip(kept, same, strict=True):
        assert torch.equal(a.turn.codes, b.turn.codes) and a.turn.text == b.turn.text
    ours, theirs = (list(one.session.speak("so", 0)) for one in (stream, other))
    assert len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("way", ["sampled", "nearest"])
def test_whatever_joins_and_leaves_each_is_what_it_is_alone(talker, tiny_model, way, monkeypatch) -> None:
    if way == "nearest":
        model = tiny_model(depth_inputs="sum", latent_dim=12)
        model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
        sampling = replace(talker.sampling, later_codes="nearest")
        monkeypatch.setattr(Talker, "_prepare", lambda self: None)
        talker = replace(talker, model=model, sampling=sampling)
    sizes: list[int] = []
    together = shared(talker, observe=lambda speeches, seconds: sizes.append(speeches))
    draw = random.Random(way)
    streams, made, done, taken = {}, {}, {}, {}
    while len(done) < 6:
        if len(streams) < 4 and len(streams) + len(done) < 6 and draw.random() < 0.4:
            number = len(streams) + len(done)
            streams[number], made[number] = begun(together, number), []
        if not streams:
            continue
        number = draw.choice([*streams])
        chunk = next(streams[number], None)
        if chunk is not None:
            made[number].append(chunk)
        if chunk is None or draw.random() < 0.06:
            taken[number] = None if chunk is None else len(made[number])
            done[number] = streams.pop(number)
            done[number].close()
    assert together.shared.speeches == 0 and {1, 2, 3} <= {*sizes}
    for number, stream in done.items():
        expected, other = alone(talker, number, taken[number])
        assert_same(stream, made[number], other, expected)
    whole = [count is None for count in taken.values()]
    assert any(whole) and not all(whole), "some were closed early, and some were whole"


def consume(stream, into: list, pace: threading.Event | None = None) -> None:
    for chunk in stream:
        into.append(chunk)
        if pace is not None:
            pace.wait(60)


def test_a_slow_consumer_holds_nobody_up_and_gets_all_of_its_own(talker) -> None:
    together, paced = shared(talker, thread=True), threading.Event()
    made: dict[int, list] = {number: [] for number in range(3)}
    streams = {number: begun(together, number) for number in made}
    threads = [
        threading.Thread(target=consume, args=(streams[n], made[n], paced if n == 0 else None)) for n in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(120)
    assert len(made[0]) == 1, "the slow one waits after its first chunk"
    paced.set()
    threads[0].join(120)
    for number, stream in streams.items():
        expected, other = alone(talker, number, None)
        assert_same(stream, made[number], other, expected)
    together.shared.close()


def test_who_takes_nothing_is_left_out_of_steps_after_two_frames(talker) -> None:
    together = shared(talker)
    slow, quick = begun(together, 0), begun(together, 4)
    next(slow), next(quick)
    steps = together.shared
    while steps.step():
        pass
    assert all(len(one.waiting) == AHEAD for one in steps._speeches)
    next(quick)
    assert steps.step() == 1
    slow.close(), quick.close()
    assert steps.speeches == 0


@pytest.mark.parametrize("place", ["draw", "row", "audio"])
def test_a_failure_ends_its_own_speech_and_no_other(talker, place, monkeypatch) -> None:
    together = shared(talker)
    streams = {number: begun(together, number) for number in (1, 2, 4)}
    made = {number: [next(stream) for _ in range(2)] for number, stream in streams.items()}
    broken = streams[2]
    if place == "draw":

        def breaks(turn):
            raise ValueError("logits hold NaN")

        monkeypatch.setattr(broken.session, "next_draw", breaks)
    elif place == "row":
        broken.session._cache.capacity = broken.session.rows
    else:
        speaking = next(s for s in together.shared._speeches if s.session is broken.session)
        speaking.stream.states = speaking.stream.states[:1]
    reason = {"draw": "hold NaN", "row": "raise max_context", "audio": "index out of range"}[place]
    with pytest.raises((ValueError, IndexError), match=reason):
        for chunk in broken:
            made[2].append(chunk)
    broken.close()
    for number in (1, 4):
        made[number] += streams[number]
        expected, other = alone(talker, number, None)
        assert_same(streams[number], made[number], other, expected)
    assert together.shared.speeches == 0
    if place != "row":
        monkeypatch.undo()
        # What was taken of it is a whole turn of its session.
        expected, other = alone(talker, 2, len(made[2]))
        assert_same(broken, made[2], other, expected)


def test_a_closed_voice_ends_its_speeches_with_the_reason(talker) -> None:
    together = shared(talker, thread=True)
    stream = begun(together, 2)
    next(stream)
    together.shared.close()
    with pytest.raises(RuntimeError, match="the voice was closed"):
        list(stream)


def test_a_stream_that_is_dropped_leaves(talker) -> None:
    together = shared(talker)
    stream = begun(together, 0)
    next(stream)
    assert together.shared.speeches == 1
    stream._chunks.close()
    assert together.shared.speeches == 0
    stream.session.listen(stream.session.turns[-1].turn)


def test_what_cannot_be_spoken_is_refused_and_the_others_go_on(talker) -> None:
    together = shared(talker)
    stream = begun(together, 4)
    made = [next(stream)]
    with pytest.raises(ValueError, match="text is empty"):
        list(together.generate(iter(()), stream=True))
    made += stream
    expected, other = alone(talker, 4, None)
    assert_same(stream, made, other, expected)


def test_csm_1b_shares_steps(csm_1b) -> None:
    together = shared(csm_1b)
    streams = [together.generate(text, "1", seed=7, stream=True) for text in TEXTS[:2]]
    made: list[list] = [[], []]
    for both in zip_longest(*streams):
        for into, chunk in zip(made, both, strict=True):
            into += [] if chunk is None else [chunk]
    for text, chunks, stream in zip(TEXTS, made, streams, strict=False):
        whole = csm_1b.generate(text, "1", seed=7)
        assert torch.equal(stream.codes, whole.codes)
        torch.testing.assert_close(torch.cat(chunks, dim=1), whole.waveform, atol=1e-5, rtol=0)
