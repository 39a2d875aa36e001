"""The rendition with the lowest loss of its reader is kept, and the conversation continues with it."""

import math
from dataclasses import replace

import pytest
import torch

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.candidates import Candidates, speak_best
from csm.generation.readers import ModelReader
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.generation.voices import Voice

TEXT = "a cab"
SAMPLING = SamplingConfig(temperature=1.0, max_seconds=2.4, seed=5)


@pytest.fixture
def model(tiny_model):
    return tiny_model(letters_per_frame=3)


VOICE = Voice("FAYE", 1, None, None)


def consumed(turn) -> tuple[torch.Tensor, str]:
    frames = []
    while True:
        try:
            frames.append(next(turn))
        except StopIteration as stop:
            return torch.stack(frames, dim=1), stop.value


def renditions(session: Session, count: int) -> tuple[list[Session], list[str]]:
    """The sessions that `speak_best` chooses from, spoken by the test, and why their turns ended."""
    seeds = torch.randint(2**31, (count,), generator=session.generator).tolist()
    forks = [*map(session.fork, seeds)]
    together = SpeakingTogether([Request(fork, TEXT, 1) for fork in forks])
    for _ in together:
        pass
    return forks, together.endings


def started(model, random_turn) -> Session:
    session = Session(model, SAMPLING)
    session.listen(random_turn("before", "what was said", 8))
    return session


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("guidance", [0.0, 0.6])
def test_the_best_read_rendition_is_spoken_and_kept_as_it_was_spoken(
    model, random_turn, guidance, static
) -> None:
    """The past overflows into the memory, so that every rendition makes room for itself."""

    def begun() -> Session:
        session = Session(model, replace(SAMPLING, guidance=guidance), static=static)
        for number in range(4):
            session.listen(random_turn(f"before {number}", "what was said", 30))
        return session

    forks, endings = renditions(begun(), 4)
    reader = ModelReader(model)
    turns = [fork.turns[-1].turn for fork in forks]
    losses = [
        reader(turn, VOICE) if ending == "end_code" else math.inf
        for turn, ending in zip(turns, endings, strict=True)
    ]
    best = losses.index(min(losses))
    assert len({tuple(turn.codes.flatten().tolist()) for turn in turns}) == 4
    session = begun()
    codes, ending = consumed(speak_best(session, TEXT, VOICE, Candidates(4, reader)))
    assert torch.equal(codes, turns[best].codes) and ending == endings[best]
    # Its rows and its length are those that were spoken: what follows is what follows in the fork.
    kept, same = session.turns[-1], forks[best].turns[-1]
    assert kept.length == same.length and torch.equal(kept.turn.ends, same.turn.ends)
    assert session.rows == forks[best].rows and int(session.memory.turns) == int(forks[best].memory.turns) > 0
    forks[best].generator.set_state(session.generator.get_state())
    again = [torch.stack([*one.speak("and then", 0)], dim=1) for one in (session, forks[best])]
    assert torch.equal(*again)


class ByLength:
    """Reads the longest rendition best; the one of the given place it refuses."""

    def __init__(self, refused: int = -1) -> None:
        self.refused, self.read = refused, 0

    def __call__(self, turn, voice) -> float:
        self.read += 1
        if self.read - 1 == self.refused:
            raise ValueError("cannot be read")
        return -float(turn.codes.shape[1])


def test_a_rendition_that_was_cut_off_is_never_preferred(model) -> None:
    """A turn that is cut off is longer than one that ended before: it is read best."""
    mixed = 0
    for seed in range(8):
        sampling = SamplingConfig(temperature=1.0, max_seconds=1.2, seed=seed)
        forks, endings = renditions(Session(model, sampling), 3)
        turns = [fork.turns[-1].turn for fork in forks]
        spoken = speak_best(Session(model, sampling), TEXT, VOICE, Candidates(3, ByLength()))
        codes, ending = consumed(spoken)
        ended = [turn for turn, one in zip(turns, endings, strict=True) if one == "end_code"]
        longest = max(turn.codes.shape[1] for turn in ended or turns)
        assert codes.shape[1] == longest and ending == ("end_code" if ended else "limit")
        mixed += {*endings} == {"end_code", "limit"}
    assert mixed


def test_of_renditions_that_are_read_alike_the_first_is_kept(model, random_turn) -> None:
    forks, endings = renditions(started(model, random_turn), 3)
    first = endings.index("end_code") if "end_code" in endings else 0
    codes, _ = consumed(
        speak_best(started(model, random_turn), TEXT, VOICE, Candidates(3, lambda turn, voice: 1.0))
    )
    assert torch.equal(codes, forks[first].turns[-1].turn.codes)


def test_where_reading_or_speaking_fails_the_session_keeps_nothing(model, random_turn) -> None:
    session, untouched = started(model, random_turn), started(model, random_turn)
    with pytest.raises(ValueError, match="cannot be read"):
        next(speak_best(session, TEXT, VOICE, Candidates(3, ByLength(refused=1))))
    assert len(session.turns) == 1 and session.rows == untouched.rows
    session.generator.set_state(untouched.generator.get_state())
    with pytest.raises(ValueError, match="split it"):
        next(speak_best(session, "w" * 400, VOICE, Candidates(2, ByLength())))
    again = [torch.stack([*one.speak(TEXT, 1)], dim=1) for one in (session, untouched)]
    assert torch.equal(*again), "no random number was drawn"


def test_a_consumer_that_stops_leaves_the_whole_turn(model, random_turn) -> None:
    candidates = Candidates(2, ModelReader(model))
    whole, _ = consumed(speak_best(started(model, random_turn), TEXT, VOICE, candidates))
    session = started(model, random_turn)
    turn = speak_best(session, TEXT, VOICE, candidates)
    next(turn)
    turn.close()
    assert torch.equal(session.turns[-1].turn.codes, whole)


def test_a_fork_speaks_as_its_session_would_and_leaves_it_alone(model, random_turn) -> None:
    session = started(model, random_turn)
    fork = session.fork(9)
    expected = started(model, random_turn)
    expected.generator.manual_seed(9)
    codes = [torch.stack([*one.speak(TEXT, 1)], dim=1) for one in (fork, expected)]
    assert torch.equal(*codes) and len(session.turns) == 1 and session.rows < fork.rows
    untouched = started(model, random_turn)
    again = [torch.stack([*one.speak(TEXT, 1)], dim=1) for one in (session, untouched)]
    assert torch.equal(*again)
    begun = session.speak(TEXT, 1)
    next(begun)
    with pytest.raises(ValueError, match="still being spoken"):
        session.fork(1)
