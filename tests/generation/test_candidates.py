"""Of several renditions of a turn the one that is read best is kept, and the conversation goes on with it."""

import math

import pytest
import torch

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.candidates import speak_best
from csm.generation.readers import ModelReader
from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session

TEXT = "a cab"
SAMPLING = SamplingConfig(temperature=1.0, max_seconds=2.4, seed=5)


@pytest.fixture
def model(tiny_model):
    return tiny_model(letters_per_frame=3)


def loss_of(model):
    reader = ModelReader(model)
    return lambda turn: reader(turn, None)


def consumed(turn) -> tuple[torch.Tensor, str]:
    frames = []
    while True:
        try:
            frames.append(next(turn))
        except StopIteration as stop:
            return torch.stack(frames, dim=1), stop.value


def renditions(session: Session, count: int) -> tuple[list[torch.Tensor], list[str]]:
    """What `speak_best` chooses from, spoken by sessions of the test's own."""
    seeds = torch.randint(2**31, (count - 1,), generator=session.generator).tolist()
    sessions = [session, *map(session.fork, seeds)]
    together = SpeakingTogether([Request(one, TEXT, 1) for one in sessions])
    for _ in together:
        pass
    return [one.turns[-1].turn for one in sessions], together.endings


def started(model, random_turn) -> Session:
    session = Session(model, SAMPLING)
    session.listen(random_turn("before", "what was said", 8))
    return session


def test_the_best_read_rendition_is_spoken_and_kept(model, random_turn) -> None:
    turns, endings = renditions(started(model, random_turn), 4)
    loss = loss_of(model)
    losses = [
        loss(turn) if ending == "end_code" else math.inf for turn, ending in zip(turns, endings, strict=True)
    ]
    best = losses.index(min(losses))
    assert best and len({tuple(turn.codes.flatten().tolist()) for turn in turns}) == 4, "the first is another"
    session = started(model, random_turn)
    codes, ending = consumed(speak_best(session, TEXT, 1, 4, loss))
    assert torch.equal(codes, turns[best].codes) and ending == endings[best]
    assert [context.turn.text for context in session.turns] == ["what was said", TEXT]
    assert torch.equal(session.turns[-1].turn.codes, codes)
    # The conversation goes on as if the kept rendition had been heard.
    other = started(model, random_turn)
    other.listen(turns[best])
    other.generator.set_state(session.generator.get_state())
    assert session.rows == other.rows
    again = [torch.stack([*one.speak("and then", 0)], dim=1) for one in (session, other)]
    assert torch.equal(*again)


def test_a_rendition_that_was_cut_off_is_never_preferred(model) -> None:
    def loss(turn):
        """A turn that is cut off is longer than one that ended before: it is read best."""
        return -float(turn.codes.shape[1])

    mixed = 0
    for seed in range(8):
        sampling = SamplingConfig(temperature=1.0, max_seconds=1.2, seed=seed)
        turns, endings = renditions(Session(model, sampling), 3)
        codes, ending = consumed(speak_best(Session(model, sampling), TEXT, 1, 3, loss))
        ended = [turn for turn, one in zip(turns, endings, strict=True) if one == "end_code"]
        longest = max(turn.codes.shape[1] for turn in ended or turns)
        assert codes.shape[1] == longest and ending == ("end_code" if ended else "limit")
        mixed += {*endings} == {"end_code", "limit"}
    assert mixed


def test_a_consumer_that_stops_leaves_the_whole_turn(model, random_turn) -> None:
    whole, _ = consumed(speak_best(started(model, random_turn), TEXT, 1, 2, loss_of(model)))
    session = started(model, random_turn)
    turn = speak_best(session, TEXT, 1, 2, loss_of(model))
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
