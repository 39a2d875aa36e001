"""Turns at fixed shapes and addresses: the codes of each alone, with one wait a frame."""

import gc
import importlib
import sys
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch

from csm.generation import static_turns
from csm.generation.batch import Request, SpeakingTogether
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.static_turns import StaticTurns, can_capture, keep_lanes, take_lane

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks/gpu"
# Of torch's operators, views too, for a frame and its row of the tiny model: a launch each without a graph.
CALLS = 2700


@pytest.fixture(scope="module")
def host_work():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("host_work")
    sys.path.remove(str(FOLDER))


@pytest.fixture
def tiny_model(tiny_model):
    """The second of two layers reads the text and the memory."""
    return partial(tiny_model, n_layers=2, max_context=80)


SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 1.3, "top_k": 0},
    {"temperature": 0.8, "depth_temperature": 0.0, "top_k": 3},
    {"temperature": 0.0, "depth_temperature": 0.7, "top_k": 6},
    {"temperature": 0.9, "top_k": 500, "shortest": 0.0},
]


def session_of(model, seed: int, static: bool, **sampling) -> Session:
    chosen = {"seed": seed, "max_seconds": 0.5, "shortest": 0.2, **SAMPLINGS[seed % len(SAMPLINGS)]}
    return Session(model, SamplingConfig(**{**chosen, **sampling}), static=static)


def conversation(session: Session, random_turn, replies: int = 2) -> list:
    """What is said in a conversation that overflows into the memory, and why each turn ended."""
    said = []
    for index in range(replies):
        session.listen(random_turn(f"t{index}", "words that were said", 20 + index, index % 2))
        frames = session.speak(f"reply {index}", 1, frames=None if index % 2 else 4)
        while True:
            try:
                said.append(next(frames).tolist())
            except StopIteration as stop:
                said.append(stop.value)
                break
    return said


CHANGES = [
    {},
    {"memory_layers": (), "n_kv_heads": 1, "depth_n_kv_heads": 1},
    {"cross_layers": (), "num_codebooks": 2, "rope_scaling": 32.0},
    {"depth_inputs": "sum", "latent_dim": 12, "zeros_end": True, "extra_codes": 0, "codebook_size": 24},
    {"num_codebooks": 2, "semantic_codebooks": 1, "zeros_end": True, "codebook_size": 4, "extra_codes": 1},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_seed_gives_the_codes_and_endings_of_the_native_loop(tiny_model, random_turn, changes) -> None:
    model, endings = tiny_model(**changes), set()
    turn = partial(random_turn, codebooks=model.config.num_codebooks)

    def short_codes(*arguments):
        made = turn(*arguments)
        return made._replace(codes=made.codes % model.config.codebook_size)

    for seed in range(2, 5):
        said = [conversation(session_of(model, seed, static), short_codes) for static in (False, True)]
        assert said[0] == said[1]
        endings.update(part for part in said[0] if isinstance(part, str))
    assert {"end_code", "limit"} & endings


def test_codes_of_the_nearest_latent_are_those_of_one_turn_alone(tiny_model, random_turn) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=12)
    model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
    nearest = {"later_codes": "nearest", "variance_restoration": 0.5, "temperature": 0.8}
    said = [conversation(session_of(model, 1, static, **nearest), random_turn) for static in (False, True)]
    assert said[0] == said[1] and len(said[0]) > 6


def requests_of(model, random_turn, static: bool, count: int = 5, guided=(), **sampling) -> list[Request]:
    """Turns of different samplings, pasts, texts and lengths; those of these places are guided."""
    made = []
    for index in range(count):
        guidance = {"guidance": 0.6} if index in guided else {}
        session = session_of(model, index, static, **sampling, **guidance)
        for turn in range(index):
            session.listen(random_turn(f"s{index}_{turn}", "as it was", 19 + turn % 3))
        text, frames = ("hello", "a longer text", "hi")[index % 3], (None, 3, 9, 1, None)[index % 5]
        made.append(Request(session, text, index % 2, frames))
    return made


def spoken(together: SpeakingTogether, count: int) -> list[list]:
    said: list[list] = [[] for _ in range(count)]
    for frames in together:
        for codes, frame in zip(said, frames, strict=True):
            if frame is not None:
                codes.append(frame.tolist())
    return said


@pytest.mark.parametrize(("count", "guided"), [(1, ()), (4, ()), (1, (0,)), (4, (1, 3))])
def test_a_batch_says_what_each_says_alone_and_goes_on_like_it(
    tiny_model, random_turn, count, guided
) -> None:
    model = tiny_model()
    batch, single = (
        requests_of(model, random_turn, static, count, guided, max_seconds=1.2) for static in (True, False)
    )
    said = spoken(SpeakingTogether(batch), count)
    for request, alone, codes in zip(batch, single, said, strict=True):
        frames = alone.session.speak(*alone[1:3], frames=alone.frames)
        assert codes == [frame.tolist() for frame in frames]
        # Its rows are its own again: the next turns are the same.
        answers = []
        for session in (request.session, alone.session):
            session.listen(random_turn("next"))
            answers.append([frame.tolist() for frame in islice(session.speak("go on", 0), 3)])
        assert answers[0] == answers[1]
    assert count == 1 or len({len(codes) for codes in said}) > 1


def test_turns_of_different_rules_share_a_batch(tiny_model, random_turn) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=12)
    model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(0)))
    said = []
    for static in (True, False):
        batch = requests_of(model, random_turn, static, 2)
        batch += requests_of(model, random_turn, static, 2, later_codes="nearest")
        said.append(spoken(SpeakingTogether(batch), 4))
    assert said[0] == said[1]


@pytest.mark.parametrize("guided", [(), (0, 1, 2), (0,), (1,), (2,)])
def test_turns_may_come_and_go_between_frames_and_outgrow_a_lane(tiny_model, random_turn, guided) -> None:
    """One at first, then three: they move to a lane of more places in the middle of their turns.

    They also move from a lane without guidance to one with it, where a guided turn joins.
    """
    model = tiny_model()
    requests, references = (requests_of(model, random_turn, static, 3, guided) for static in (True, False))
    steps, turns = StaticTurns(model), []
    with torch.no_grad():
        for _ in range(3):
            request = requests[len(turns)]
            turns.append(request.session.begin_turn(request.session.plan_turn(*request[1:])))
            steps.begin(turns[-1])
            steps.run([turn for turn in turns if turn.said])
            for turn, frame in zip(turns, steps.next_frames(turns), strict=True):
                assert frame is not None, "choose another seed"
                turn.said.append(frame)
        for turn, request, reference in zip(turns, requests, references, strict=True):
            while turn.rows_left:
                steps.run([turn])
            assert request.session.end_turn(turn) == "stopped"
            frames = reference.session.speak(*reference[1:3], frames=reference.frames)
            assert turn.codes().T.tolist() == [next(frames).tolist() for _ in turn.said]
            frames.close()
            answers = [
                [f.tolist() for f in s.speak("go on", 0)] for s in (request.session, reference.session)
            ]
            assert answers[0] == answers[1]


def test_a_lane_that_finds_no_memory_refuses_the_new_turn_and_keeps_the_others(
    tiny_model, random_turn, monkeypatch
) -> None:
    model = tiny_model()
    (first, second), (reference, _) = (requests_of(model, random_turn, s, 2) for s in (True, False))
    steps, take = StaticTurns(model), static_turns.take_lane

    def refuses(model, count, guided):
        if count > 1:
            raise RuntimeError("out of memory")
        return take(model, count, guided)

    monkeypatch.setattr(static_turns, "take_lane", refuses)
    with torch.no_grad():
        turns = [one.session.begin_turn(one.session.plan_turn(*one[1:])) for one in (first, second)]
        steps.begin(turns[0])
        with pytest.raises(RuntimeError, match="out of memory"):
            steps.begin(turns[1])
        assert turns[1].steps is None
        said = []
        while (frame := steps.next_frames(turns[:1])[0]) is not None:
            said.append(turns[0].say(frame).tolist())
            steps.run(turns[:1])
        first.session.stop_turn(turns[0])
    assert said == [f.tolist() for f in reference.session.speak(*reference[1:3], frames=reference.frames)]


@torch.no_grad()
def test_a_turn_that_cannot_be_ended_leaves_its_place(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    requests = requests_of(model, random_turn, True, 3)
    steps, turns = StaticTurns(model, 2), []
    for one in requests[:2]:
        turns.append(one.session.begin_turn(one.session.plan_turn(*one[1:])))
        steps.begin(turns[-1])
    lane = steps._held

    def fails(self, rows):
        raise RuntimeError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(static_turns.StaticLane, "run", fails)
        with pytest.raises(RuntimeError, match="the device is gone"):
            requests[0].session.stop_turn(turns[0])
    steps.drop(turns[0])
    assert turns[0].steps is None
    third = requests[2].session.begin_turn(requests[2].session.plan_turn(*requests[2][1:]))
    steps.begin(third)
    assert steps._held is lane and steps._places == {turns[1]: 1, third: 0}
    steps.drop(turns[1]), steps.drop(third)
    assert steps._held is None and take_lane(model, 2) is lane


def test_an_interrupted_row_is_run_again(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    session, reference = (session_of(model, 1, static) for static in (True, False))
    frames = session.speak("hello", 0)
    said = [next(frames).tolist()]
    lane, run = static_turns.StaticLane, static_turns.StaticLane.run
    calls = iter(range(99))

    def interrupted(self, rows):
        run(self, rows)
        if next(calls) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(lane, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(frames)
    other = reference.speak("hello", 0)
    assert said == [next(other).tolist()]
    other.close()
    assert conversation(session, random_turn, 1) == conversation(reference, random_turn, 1)


def test_a_frame_of_any_number_of_turns_waits_once(tiny_model, random_turn, host_work) -> None:
    model = tiny_model()
    for count in (1, 3):
        together = SpeakingTogether(requests_of(model, random_turn, True, count, shortest=99.0))
        next(together)
        with host_work.counted() as found:
            assert all(frame is not None for frame in next(together))
        assert sum(found.waits.values()) == 1 and not found.copies, (found.waits, found.copies)
        assert sum(found.calls.values()) < CALLS, sum(found.calls.values())
        together.close()
    session = session_of(model, 1, True, shortest=99.0)
    frames = session.speak("hello", 0)
    next(frames)
    with host_work.counted() as found:
        next(frames)
    assert sum(found.waits.values()) == 1 and not found.copies
    frames.close()


def test_a_frame_of_any_number_of_turns_takes_two_launches(tiny_model, random_turn, monkeypatch) -> None:
    """Two calls of captured functions, each of which is one launch on CUDA."""
    model, launches = tiny_model(), []
    together = SpeakingTogether(requests_of(model, random_turn, True, 3, shortest=99.0))
    next(together)
    captured = static_turns.StaticLane.__init__.__globals__["Captured"]
    call = captured.__call__
    monkeypatch.setattr(captured, "__call__", lambda self: launches.append(self) or call(self))
    next(together)
    assert len(launches) == len(set(launches)) == 2
    next(together)
    assert launches[:2] == launches[2:]
    together.close()


def test_damaged_weights_are_refused_and_leave_a_whole_turn(tiny_model) -> None:
    for name in ("codebook0_head.weight", "depth_decoder.heads"):
        model = tiny_model()
        session = session_of(model, 1, True)
        frames = session.speak("hello", 0)
        next(frames)
        weight = model.get_parameter(name)
        sound = weight.clone()
        with torch.no_grad():
            weight.view(-1)[3] = torch.nan
        with pytest.raises(ValueError, match="logits hold NaN or rule out every index"):
            next(frames)
        assert session.turns[-1].turn.codes.shape[1] == 1
        with torch.no_grad():
            weight.copy_(sound)
        assert list(session.speak("hello", 0))


def test_lanes_are_used_again_while_the_weights_lie_where_they_lay(tiny_model, random_turn) -> None:
    model = tiny_model()
    first, other = take_lane(model, 1), take_lane(model, 1)
    assert first is not other and (first.count, take_lane(model, 3).count) == (1, 4)
    static_turns.give_lane(model, first)
    list(session_of(model, 1, True).speak("hello", 0))
    assert take_lane(model, 2) is not first and take_lane(model, 1) is first
    static_turns.give_lane(model, first)
    model.depth_decoder.heads.data = model.depth_decoder.heads.data.clone()
    assert take_lane(model, 1) is not first
    said = [conversation(session_of(model, 1, static), random_turn, 1) for static in (True, False)]
    assert said[0] == said[1]


def test_free_lanes_are_kept_for_one_number_of_turns(tiny_model) -> None:
    model = tiny_model()
    lanes = [take_lane(model, count) for count in (1, 2, 2, 4)]
    for lane in lanes:
        static_turns.give_lane(model, lane)
    keep_lanes(model, 2)
    assert static_turns._FREE[model] == [lanes[1]] and take_lane(model, 2) is lanes[1]
    keep_lanes(model, 64)
    assert not static_turns._FREE[model]


def test_lanes_go_with_their_model(tiny_model) -> None:
    model = tiny_model()
    gc.collect()
    before = len(static_turns._FREE)
    list(session_of(model, 1, True).speak("hello", 0))
    assert len(static_turns._FREE) == before + 1 and len(static_turns._FREE[model]) == 1
    del model
    gc.collect()
    assert len(static_turns._FREE) == before


def test_what_a_graph_cannot_hold_is_spoken_module_by_module(tiny_model) -> None:
    model = tiny_model()
    assert session_of(model, 1, True).is_static() and not Session(model).is_static()
    session = session_of(model, 1, True)
    session.next_code = lambda logits, codebook, allowed: torch.tensor(3)
    assert not session.is_static() and next(session.speak("hello", 0)).tolist() == [3] * 5
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_capture(model)
    hook = model.backbone.blocks[0].register_forward_hook(lambda *arguments: None)
    assert not can_capture(model)
    hook.remove()
    assert can_capture(model) and not can_capture(model.train())


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize("changes", CHANGES[:4], ids=str)
def test_graphs_on_cuda_give_the_codes_of_the_same_functions_on_a_cpu(
    tiny_model, random_turn, changes
) -> None:
    model = tiny_model(**changes)
    turn = partial(random_turn, codebooks=model.config.num_codebooks)
    on_cpu = [conversation(session_of(model, seed, True), turn) for seed in range(5)]
    batch = spoken(SpeakingTogether(requests_of(model, turn, True)), 5)
    model.cuda()
    assert session_of(model, 0, True).is_static() and Session(model).is_static()
    assert [conversation(session_of(model, seed, True), turn) for seed in range(5)] == on_cpu
    assert spoken(SpeakingTogether(requests_of(model, turn, True)), 5) == batch


@pytest.mark.cuda
@cuda
def test_guided_graphs_on_cuda_give_the_codes_of_the_same_functions_on_a_cpu(tiny_model, random_turn) -> None:
    model, guided = tiny_model(), (1, 2, 4)
    on_cpu = spoken(SpeakingTogether(requests_of(model, random_turn, True, guided=guided)), 5)
    model.cuda()
    assert spoken(SpeakingTogether(requests_of(model, random_turn, True, guided=guided)), 5) == on_cpu


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize("guided", [(), (0,)])
def test_a_frame_on_cuda_is_two_graphs_and_one_wait(tiny_model, random_turn, guided) -> None:
    from torch.profiler import ProfilerActivity, profile

    model = tiny_model().cuda()
    for count in (1, 3):
        together = SpeakingTogether(requests_of(model, random_turn, True, count, guided, shortest=99.0))
        next(together)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            next(together)
        events = {event.key: event.count for event in found.key_averages()}
        assert sum(n for name, n in events.items() if "GraphLaunch" in name) == 2, events
        assert sum(n for name, n in events.items() if "LaunchKernel" in name) == 0, events
        assert sum(n for name, n in events.items() if "StreamSynchronize" in name) == 1, events
        together.close()
