"""Several conversations speak at once: each as if alone, whole after every stop, error and refusal."""

import gc
from functools import partial

import pytest
import torch

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.run_rows import run_together
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session

# Sampling and past of each conversation: none, one turn, so many that the memory is in use.
SEEDS_AND_PASTS = [(1, 0), (2, 1), (3, 8), (4, 0), (5, 8)]
TEXTS = [("hello", 0, None), ("a longer text to speak", 1, 9), ("hi", 0, 3), ("you?", 2, 20), ("well", 1, 1)]


@pytest.fixture
def tiny_model(tiny_model):
    """The second of two layers reads the text and the memory."""
    return partial(tiny_model, n_layers=2, max_context=120)


def session_of(model, random_turn, seed: int, past: int, **sampling) -> Session:
    session = Session(model, SamplingConfig(**{"seed": seed, "max_seconds": 2.0, **sampling}))
    for index in range(past):
        session.listen(random_turn(f"s{seed}_t{index}", f"turn {index}", 9 + (index + seed) % 9))
    return session


def requests_of(model, random_turn, **sampling) -> list[Request]:
    return [
        Request(session_of(model, random_turn, *start, **sampling), *said)
        for start, said in zip(SEEDS_AND_PASTS, TEXTS, strict=True)
    ]


def speak(session, text, speaker, frames) -> list:
    return [frame.tolist() for frame in session.speak(text, speaker, frames=frames)]


def alone(request: Request, after: int | None = None) -> list:
    frames = request.session.speak(request.text, request.speaker, frames=request.frames)
    if after is None:
        return [frame.tolist() for frame in frames]
    said = [next(frames).tolist() for _ in range(after)]
    frames.close()
    return said


def said_by_each(together: SpeakingTogether, count: int) -> list[list]:
    said: list[list] = [[] for _ in range(count)]
    for frames in together:
        assert len(frames) == count and any(frame is not None for frame in frames)
        for codes, frame in zip(said, frames, strict=True):
            if frame is not None:
                codes.append(frame.tolist())
    return said


def state(session) -> tuple:
    turns = [(t.turn.id, t.turn.text, t.turn.speaker, t.length, t.turn.codes.tolist()) for t in session.turns]
    return turns, session.context.cache.length, None if session.memory is None else int(session.memory.turns)


def assert_like(session, reference, random_turn, *, writes: bool = False) -> None:
    """They hold the same, and go on to say the same, and to write the same if that is asked for."""
    assert state(session) == state(reference)
    layers = [
        (mine[:, : session.context.cache.length], theirs[:, : session.context.cache.length])
        for kind in ("_keys", "_values")
        for mine, theirs in zip(
            getattr(session.context.cache, kind), getattr(reference.context.cache, kind), strict=True
        )
        if mine is not None or theirs is not None
    ]
    for mine, theirs in layers:
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    heard = random_turn("next", frames=5)
    answers = []
    for each in (session, reference):
        each.listen(heard)
        answers.append((speak(each, "go on", 0, 4), each.transcribe(heard.codes) if writes else ""))
    assert answers[0] == answers[1] and state(session) == state(reference)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory_layers": ()},
        {"cross_layers": ()},
        {"memory_layers": (), "cross_layers": ()},
        {"n_kv_heads": 1},
        {"extra_codes": 0},
    ],
)
def test_each_says_what_it_says_alone_and_goes_on_like_it(tiny_model, random_turn, changes) -> None:
    model = tiny_model(**changes)
    batch, single = requests_of(model, random_turn), requests_of(model, random_turn)
    if model.backbone.memory_reads:
        assert [bool(r.session.memory.turns) for r in batch] == [False, False, True, False, True]
    said = said_by_each(SpeakingTogether(batch), len(batch))
    assert said == [alone(request) for request in single]
    assert len({len(codes) for codes in said}) > 2
    for place, (request, reference) in enumerate(zip(batch, single, strict=True)):
        # Writing runs to the end of the context: asked of one that remembers nothing, and of one that does.
        assert_like(request.session, reference.session, random_turn, writes=place in (0, 4))


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"depth_temperature": 0.3, "top_k": 4}, {"guidance": 0.8}]
)
def test_each_has_its_own_sampling(tiny_model, random_turn, sampling) -> None:
    model = tiny_model()
    others = requests_of(model, random_turn)
    other = Request(session_of(model, random_turn, 6, 1, **sampling), "differently", 1)
    same = Request(session_of(model, random_turn, 6, 1, **sampling), "differently", 1)
    assert said_by_each(SpeakingTogether([*others, other]), 6)[-1] == alone(same)


def test_guided_requests_say_what_they_say_alone_and_go_on_like_it(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch, single = (requests_of(model, random_turn, guidance=0.8) for _ in range(2))
    said = said_by_each(SpeakingTogether(batch), len(batch))
    assert said == [alone(request) for request in single]
    assert said != [alone(request) for request in requests_of(model, random_turn)]
    for request, reference in zip(batch, single, strict=True):
        assert_like(request.session, reference.session, random_turn)


def test_a_single_request_and_none_at_all_are_batches_too(tiny_model, random_turn) -> None:
    model = tiny_model()
    one, same = (requests_of(model, random_turn)[2] for _ in range(2))
    assert said_by_each(SpeakingTogether([one]), 1) == [alone(same)]
    assert list(SpeakingTogether([])) == []


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_the_order_of_the_requests_does_not_matter(tiny_model, random_turn, order) -> None:
    model = tiny_model()
    said = said_by_each(SpeakingTogether(requests_of(model, random_turn)), 5)
    requests = requests_of(model, random_turn)
    other = said_by_each(SpeakingTogether([requests[i] for i in order]), 5)
    assert other == [said[i] for i in order]


def test_a_turn_that_has_ended_stays_none_and_its_session_is_free_at_once(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch, single = requests_of(model, random_turn), requests_of(model, random_turn)
    ended: set[int] = set()
    together = SpeakingTogether(batch)
    for frames in together:
        none = {index for index, frame in enumerate(frames) if frame is None}
        assert ended <= none and len(none) < len(batch)
        for index in none - ended:
            session, reference = batch[index].session, single[index].session
            alone(single[index])
            assert_like(session, reference, random_turn)
        ended = none
    assert len(ended) >= 2
    with pytest.raises(StopIteration):
        next(together)


def test_the_backbone_runs_once_per_step_for_all(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch = requests_of(model, random_turn)
    calls: list[int] = []
    linear: list[int] = []
    hooks = [
        model.backbone.register_forward_hook(lambda module, inputs, out: calls.append(len(inputs[0]))),
        model.backbone.blocks[0].feed_forward.up_proj.register_forward_hook(
            lambda module, inputs, out: linear.append(len(inputs[0]))
        ),
    ]
    together = SpeakingTogether(batch)
    assert calls == []
    frames = next(together)
    # Texts one by one; and past turns may have gone to the memory to make room.
    assert len(calls) >= len(batch) and min(calls) > 1
    going = len(batch)
    assert all(frame is not None for frame in frames)
    while True:
        calls.clear(), linear.clear()
        frames = next(together, None)
        left = 0 if frames is None else sum(frame is not None for frame in frames)
        # The newest frames of all; and the end rows of the turns that end, together.
        assert calls == linear == ([going] if left == going else [going, going - left])
        going = left
        if frames is None:
            break
    calls.clear()
    assert next(together, None) is None and calls == []
    for hook in hooks:
        hook.remove()


def test_a_row_beside_others_comes_out_as_it_does_alone(tiny_model, random_turn) -> None:
    model = tiny_model()

    def begun() -> list:
        turns = []
        for request in requests_of(model, random_turn):
            plan = request.session.plan_turn(*request[1:])
            turns.append(request.session.begin_turn(plan))
            turns[-1].said.append(torch.arange(5))
        return turns

    with torch.no_grad():
        batch, single = begun(), begun()
        for _ in range(2):
            hidden = run_together(batch)
            expected = torch.cat([run_together([turn]) for turn in single])
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
    assert [turn.rows_left for turn in batch] == [0] * 5


@pytest.mark.parametrize("after", [1, 3])
def test_closing_early_leaves_whole_turns(tiny_model, random_turn, after) -> None:
    model = tiny_model()
    # None of them ends before its fifth frame.
    batch, single = ([r._replace(frames=8) for r in requests_of(model, random_turn)] for _ in range(2))
    together = SpeakingTogether(batch)
    said = list(zip(*(next(together) for _ in range(after)), strict=True))
    together.close()
    for request, reference, codes in zip(batch, single, said, strict=True):
        assert [frame.tolist() for frame in codes] == alone(reference, after)
        assert request.session.turns[-1].turn.codes.T.tolist() == [frame.tolist() for frame in codes]
        assert_like(request.session, reference.session, random_turn)
    together.close()
    assert list(together) == []


def test_leaving_a_loop_closes(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch = requests_of(model, random_turn)
    for frames in SpeakingTogether(batch):
        first = frames
        break
    gc.collect()
    for request, frame in zip(batch, first, strict=True):
        assert torch.equal(request.session.turns[-1].turn.codes, frame.unsqueeze(1))
        request.session.refuse_while_busy()


def test_one_is_stopped_and_the_others_go_on(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch, single = ([r._replace(frames=8) for r in requests_of(model, random_turn)] for _ in range(2))
    together = SpeakingTogether(batch)
    said: list[list] = [[] for _ in batch]
    for step, frames in enumerate(together):
        for codes, frame in zip(said, frames, strict=True):
            if frame is not None:
                codes.append(frame.tolist())
        if step == 2:
            together.stop(1)
            together.stop(4)
            together.stop(1)
            # Free at once, and none of the others' business.
            alone(single[1], 3)
            assert_like(batch[1].session, single[1].session, random_turn)
        if step > 2:
            assert frames[1] is None and frames[4] is None
    assert said == [alone(single[0]), said[1], alone(single[2]), alone(single[3]), alone(single[4], 3)]
    assert len(said[1]) == 3
    for index in (0, 2, 3, 4):
        assert_like(batch[index].session, single[index].session, random_turn)
    for index in (-1, 5):
        with pytest.raises(ValueError, match=f"index is {index}: expected a request, 0..4"):
            together.stop(index)


def test_stopping_all_ends_the_iterator(tiny_model, random_turn) -> None:
    together = SpeakingTogether(requests_of(tiny_model(), random_turn))
    next(together)
    for index in range(5):
        together.stop(index)
    assert list(together) == []


def test_what_never_started_leaves_no_trace(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch, single = requests_of(model, random_turn), requests_of(model, random_turn)
    before = [state(request.session) for request in batch]
    SpeakingTogether(batch).close()
    del single[1]
    together = SpeakingTogether(batch)
    together.stop(1)
    assert [state(request.session) for request in batch] == before
    said = said_by_each(together, 5)
    assert said == [alone(single[0]), [], *(alone(request) for request in single[1:])]
    assert state(batch[1].session) == before[1]


def test_turns_without_a_frame_end_in_the_first_step(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    batch, single = requests_of(model, random_turn), requests_of(model, random_turn)
    monkeypatch.setattr(batch[0].session, "next_frame", lambda turn: None)
    said = said_by_each(SpeakingTogether(batch), 5)
    assert said == [[], *(alone(request) for request in single[1:])]
    assert batch[0].session.turns[-1].turn.codes.shape == (5, 0)
    session = session_of(model, random_turn, 7, 0)
    monkeypatch.setattr(session, "next_frame", lambda turn: None)
    assert list(SpeakingTogether([Request(session, "hello", 0)])) == []
    assert session.turns[-1].turn.codes.shape == (5, 0)


@pytest.mark.parametrize("failing", [0, 4])
def test_an_error_in_one_leaves_whole_turns_of_what_was_yielded(
    tiny_model, random_turn, monkeypatch, failing
) -> None:
    model = tiny_model()
    batch = [r._replace(frames=8) for r in requests_of(model, random_turn)]
    session = batch[failing].session
    draw = session.next_frame
    count = iter(range(10))

    def breaks(turn):
        if next(count) == 2:
            raise ValueError("logits hold NaN")
        return draw(turn)

    monkeypatch.setattr(session, "next_frame", breaks)
    together = SpeakingTogether(batch)
    said = list(zip(next(together), next(together), strict=True))
    with pytest.raises(ValueError, match="hold NaN"):
        next(together)
    assert list(together) == []
    for request, codes in zip(batch, said, strict=True):
        kept = request.session.turns[-1]
        assert torch.equal(kept.turn.codes, torch.stack(codes, dim=1)) and kept.length == 8
        rows = sum(request.session.context.rows_of(context.turn) for context in request.session.turns)
        assert request.session.context.cache.length == rows
        request.session.refuse_while_busy()


def test_an_interrupted_call_of_the_backbone_is_made_up_for(tiny_model, random_turn) -> None:
    model = tiny_model()
    batch, single = ([r._replace(frames=8) for r in requests_of(model, random_turn)] for _ in range(2))
    together = SpeakingTogether(batch)
    next(together), next(together)

    def interrupt(module, inputs):
        hook.remove()
        raise KeyboardInterrupt

    hook = model.backbone.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(together)
    for request, reference in zip(batch, single, strict=True):
        alone(reference, 2)
        assert_like(request.session, reference.session, random_turn)


def test_refusals_change_nothing(tiny_model, random_turn) -> None:
    model = tiny_model()
    good = requests_of(model, random_turn)
    elsewhere = session_of(tiny_model(), random_turn, 1, 0)
    free = session_of(model, random_turn, 9, 0)
    before = [state(request.session) for request in good]
    for bad, message in [
        (Request(elsewhere, "hello", 0), "request 5 has another model than request 0"),
        (good[2]._replace(text="again"), "request 5 has the session of request 2"),
        (Request(free, " ", 0), "request 5: .*text is empty"),
        (Request(free, "x" * 160, 0), "request 5: .*split it into sentences"),
        (Request(free, "x", -1), "request 5: speaker is -1"),
        (Request(free, "x", 0, 0), "request 5: frames is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            SpeakingTogether([*good, bad])
        assert [state(request.session) for request in good] == before
    # As of `speak`, another turn is noticed at the first step; once it is over, the batch can begin.
    together = SpeakingTogether(good)
    other = good[3].session.speak("meanwhile", 0, frames=3)
    next(other)
    with pytest.raises(ValueError, match="still being spoken"):
        next(together)
    assert [state(request.session) for request in good[:3]] == before[:3]
    other.close()
    reference = requests_of(model, random_turn)
    alone(reference[3]._replace(text="meanwhile", speaker=0, frames=3), 1)
    assert said_by_each(together, 5) == [alone(request) for request in reference]


def test_nothing_else_happens_in_a_session_while_it_speaks(tiny_model, random_turn) -> None:
    batch = requests_of(tiny_model(), random_turn)
    together = SpeakingTogether(batch)
    next(together)
    for other in (
        lambda: batch[0].session.listen(random_turn("a")),
        lambda: batch[0].session.transcribe(random_turn("a").codes),
        lambda: next(batch[0].session.speak("you", 1)),
        lambda: next(SpeakingTogether([batch[0]])),
    ):
        with pytest.raises(ValueError, match="still being spoken"):
            other()
    together.close()
    batch[0].session.listen(random_turn("a"))
