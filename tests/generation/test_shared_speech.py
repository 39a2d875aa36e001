"""Speeches that are made together are those that each is alone, whoever joins, waits, leaves or fails."""

import gc
import random
import threading
from dataclasses import replace
from itertools import islice, zip_longest

import pytest
import torch

from csm.generation.shared_speech import AHEAD, SharedSteps
from csm.generation.spoken_turn import SpokenTurn
from csm.generation.static_frames import FrameDraw
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


def begun(talker: Talker, number: int, static: bool = False):
    """Begins a speech of its own text, voice, seed and past."""
    text, voice = TEXTS[number % len(TEXTS)], (None, "FAYE", "JOE")[number % 3]
    session = talker.session(number)
    session.static = static
    if number % 3 == 0:
        # Among guided speeches some that are not.
        session.sampling = replace(session.sampling, guidance=0.0)
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


# Which speeches are spoken by `StaticTurns`, the way of CUDA; the others by the model's modules.
STATIC = {
    "modules": lambda number: False,
    "static": lambda number: True,
    "both": lambda number: number % 3 > 0,
}


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("sampled", "modules"),
        ("nearest", "modules"),
        ("guided", "modules"),
        ("guided", "static"),
        ("guided", "both"),
        ("sampled", "static"),
        ("nearest", "static"),
        ("sampled", "both"),
    ],
)
def test_whatever_joins_and_leaves_each_is_what_it_is_alone(
    talker, tiny_model, way, kind, monkeypatch
) -> None:
    if way == "nearest":
        model = tiny_model(depth_inputs="sum", latent_dim=12)
        model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
        sampling = replace(talker.sampling, later_codes="nearest")
        monkeypatch.setattr(Talker, "_prepare", lambda self: None)
        talker = replace(talker, model=model, sampling=sampling)
    sizes: list[int] = []
    if way == "guided":
        talker = replace(talker, sampling=replace(talker.sampling, guidance=0.8))
    together = shared(talker, observe=lambda speeches, seconds: sizes.append(speeches))
    draw = random.Random(way)
    streams, made, done, taken = {}, {}, {}, {}
    while len(done) < 6:
        if len(streams) < 4 and len(streams) + len(done) < 6 and draw.random() < 0.4:
            number = len(streams) + len(done)
            streams[number], made[number] = begun(together, number, STATIC[kind](number)), []
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


@pytest.mark.parametrize("static", [False, True])
def test_a_slow_consumer_holds_nobody_up_and_gets_all_of_its_own(talker, static) -> None:
    together, paced = shared(talker, thread=True), threading.Event()
    made: dict[int, list] = {number: [] for number in range(3)}
    streams = {number: begun(together, number, static) for number in made}
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


def break_draw(broken, monkeypatch) -> None:
    """Makes every frame of a speech fail, on either way."""
    frame = FrameDraw.frame

    def breaks(turn):
        raise ValueError("logits hold NaN")

    def breaks_too(self, codes):
        return breaks(self.turn) if self.turn.generator is broken.session.generator else frame(self, codes)

    monkeypatch.setattr(broken.session, "next_draw", breaks)
    monkeypatch.setattr(FrameDraw, "frame", breaks_too)


def break_row(broken, monkeypatch) -> None:
    """Makes every row of a speech fail, on either way."""
    next_codes = SpokenTurn.next_codes

    def breaks(turn):
        if turn.generator is broken.session.generator:
            raise ValueError("no row")
        return next_codes(turn)

    monkeypatch.setattr(SpokenTurn, "next_codes", breaks)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("place", ["draw", "row", "audio"])
def test_a_failure_ends_its_own_speech_and_no_other(talker, place, static, monkeypatch) -> None:
    together = shared(talker)
    streams = {number: begun(together, number, static) for number in (1, 2, 4)}
    made = {number: [next(stream) for _ in range(2)] for number, stream in streams.items()}
    broken = streams[2]
    if place == "draw":
        break_draw(broken, monkeypatch)
    elif place == "row":
        break_row(broken, monkeypatch)
    else:
        speaking = next(s for s in together.shared._speeches if s.session is broken.session)
        speaking.stream.states = speaking.stream.states[:1]
    reason = {"draw": "hold NaN", "row": "no row", "audio": "index out of range"}[place]
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


@pytest.mark.parametrize("static", [False, True])
def test_a_step_that_collects_a_dropped_speech_ends_it_afterwards(talker, static, monkeypatch) -> None:
    """Closed in the thread that computes the step, as the garbage collector may close it."""
    together = shared(talker)
    streams = {number: begun(together, number, static) for number in (1, 4, 2)}
    made = {number: [next(stream)] for number, stream in streams.items()}
    made[4].append(next(streams[4]))
    decoder = together.shared.decoder
    decode, dropped = decoder.decode, [2]

    def drops(given, frames):
        if dropped:
            assert len(given) == 2, "the dropped speech and another one are in the step"
            streams[dropped.pop()]._chunks.close()
        return decode(given, frames)

    monkeypatch.setattr(decoder, "decode", drops)
    assert together.shared.step() == 2
    monkeypatch.undo()
    assert not dropped and together.shared.speeches == 2
    for number, stream in streams.items():
        if number != 2:
            made[number] += stream
        expected, other = alone(talker, number, 1 if number == 2 else None)
        assert_same(stream, made[number], other, expected)


@pytest.mark.parametrize("static", [False, True])
def test_what_is_done_between_steps_waits_for_the_step_and_the_next_step_for_it(
    talker, static, monkeypatch
) -> None:
    together = shared(talker, thread=True)
    stream = begun(together, 2, static)
    steps, order, step = together.shared, [], threading.Event()
    decode = steps.decoder.decode

    def slow(given, frames):
        order.append("step begins")
        step.set()
        threading.Event().wait(0.2)
        order.append("step ends")
        return decode(given, frames)

    def work() -> None:
        before = len(order)
        threading.Event().wait(0.2)
        assert len(order) == before
        order.append("between")

    monkeypatch.setattr(steps.decoder, "decode", slow)
    consumer = threading.Thread(target=next, args=(stream,))
    consumer.start()
    assert step.wait(60)
    steps.between(work)
    consumer.join(60)
    assert order[:3] == ["step begins", "step ends", "between"]
    stream.close(), steps.close()
    # Without a thread that computes, too.
    steps.between(lambda: order.append("closed"))
    assert order[-1] == "closed"


def test_a_turn_whose_rows_cannot_be_run_leaves_its_place(talker, monkeypatch) -> None:
    together = shared(talker)
    streams = [begun(together, number, True) for number in (2, 4)]
    for stream in streams:
        next(stream)
    static = together.shared._step._static
    break_row(streams[0], monkeypatch)
    with pytest.raises(ValueError, match="no row"):
        streams[0].close()
    assert len(static._places) == 1 and together.shared.speeches == 1
    streams[1].close()
    assert static._held is None


@pytest.mark.parametrize("static", [False, True])
def test_a_stream_that_is_collected_leaves_a_whole_turn_and_a_free_place(talker, static) -> None:
    together = shared(talker)
    stream = begun(together, 4, static)
    made, session = [next(stream)], stream.session
    del stream
    gc.collect()
    assert together.shared.speeches == 0 and not (static and together.shared._step._static._places)
    expected, other = alone(talker, 4, 1)
    assert torch.equal(made[0], expected[0])
    kept, same = session.turns[-1].turn.codes, other.session.turns[-1].turn.codes
    assert torch.equal(kept, same) and kept.shape[1] > 0
    session.listen(session.turns[-1].turn)


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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_shared_steps_on_cuda_give_the_codes_of_a_cpu(talker) -> None:
    """The model alone is on CUDA: codes go to the same decoder."""
    expected = [alone(talker, number, None)[1].codes for number in range(4)]
    talker.model.cuda()
    together = shared(talker, thread=True)
    streams = [begun(together, number, True) for number in range(4)]
    for _ in zip_longest(*streams):
        pass
    together.shared.close()
    assert together.shared._step._static is not None
    assert all(torch.equal(stream.codes, codes) for stream, codes in zip(streams, expected, strict=True))
