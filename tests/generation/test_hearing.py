"""A turn heard in pieces has the text of the turn heard as a whole, and shows it while its voice comes in."""

import random

import pytest
import torch

from csm.generation.hearing import HeardTurn, TranscriptStream
from csm.generation.session import Session
from csm.network.letter_head import LetterHead

SPELLS = {"letters_per_frame": 3}


def pieces(codes: torch.Tensor, rng: random.Random) -> list[torch.Tensor]:
    """Cuts codes at random places, empty pieces too."""
    cuts = sorted(rng.choices(range(codes.shape[1] + 1), k=rng.randrange(6)))
    return [codes[:, a:b] for a, b in zip([0, *cuts], [*cuts, codes.shape[1]], strict=True)]


def state(session: Session) -> tuple:
    turns = [(t.turn.id, t.turn.text, t.turn.speaker, t.turn.codes.tolist()) for t in session.turns]
    return turns, session.rows, session.memory.semantic.tolist(), session.memory.style.tolist()


def started(model, random_turn, turns: int) -> Session:
    session = Session(model)
    for index in range(turns):
        session.listen(random_turn(f"t{index}", f"turn {index}", 8))
    return session


@pytest.mark.parametrize("earlier", [0, 2, 6])
@pytest.mark.parametrize("changes", [SPELLS, {}])
def test_any_cut_gives_the_text_and_the_session_of_the_whole(
    tiny_model, random_turn, earlier, changes
) -> None:
    """With six earlier turns the heard one drives some of them out of the context while it comes in."""
    model, rng = tiny_model(seed=earlier, **changes), random.Random(earlier)
    for trial in range(2):
        codes = random_turn(f"heard{trial}", frames=rng.choice([1, 20])).codes
        offline, online = (started(model, random_turn, earlier) for _ in range(2))
        text = offline.transcribe(codes, 1)
        turn = HeardTurn(online, 1)
        for piece in pieces(codes, rng):
            so_far = turn.push(piece)
            heard = codes[:, : turn.frames]
            if changes and heard.shape[1]:
                whole = started(model, random_turn, earlier).transcribe(heard, 1)
                assert whole.startswith(so_far), (so_far, whole)
                assert bool(so_far) == (turn.frames > LetterHead.AHEAD), (so_far, turn.frames)
            else:
                assert so_far == ""
        assert turn.finish() == text == turn.text
        assert state(online) == state(offline)


def test_text_only_grows_and_appears_before_the_end(tiny_model, random_turn) -> None:
    model, codes = tiny_model(**SPELLS), random_turn("a", frames=12 + LetterHead.AHEAD).codes
    turn = HeardTurn(Session(model))
    texts = [turn.push(frame) for frame in codes.split(1, dim=1)]
    assert len(set(texts)) > 6 and all(b.startswith(a) for a, b in zip(texts, texts[1:], strict=False))
    assert turn.finish().startswith(texts[-1])


def test_a_cancelled_turn_leaves_no_trace_and_nothing_else_happens_meanwhile(tiny_model, random_turn) -> None:
    session = started(tiny_model(**SPELLS), random_turn, 2)
    before = state(session)
    turn = HeardTurn(session)
    turn.push(random_turn("a").codes)
    for other in (
        lambda: session.listen(random_turn("b")),
        lambda: session.transcribe(random_turn("b").codes),
        lambda: next(session.speak("hello", 0)),
        lambda: HeardTurn(session),
    ):
        with pytest.raises(ValueError, match="still being heard"):
            other()
    turn.cancel()
    assert state(session) == before
    with pytest.raises(ValueError, match="the turn has ended"):
        turn.push(random_turn("a").codes)
    empty = HeardTurn(session)
    assert empty.finish() == "" and state(session) == before


def test_what_is_refused_leaves_the_turn_as_it_was(tiny_model, random_turn) -> None:
    model, codes = tiny_model(**SPELLS), random_turn("a").codes
    turn, other = HeardTurn(Session(model)), Session(model)
    text = turn.push(codes)
    for bad, message in [
        (codes[:3], "K >= 5"),
        (codes[0], "K >= 5"),
        (codes - 30, "expected 0..23"),
        (torch.zeros(5, 200, dtype=torch.int64), "split it into turns"),
    ]:
        with pytest.raises(ValueError, match=message):
            turn.push(bad)
        assert turn.text == text and turn.frames == 9
    assert turn.finish() == other.transcribe(codes)


def test_a_model_of_csm_1bs_form_is_refused(tiny_model) -> None:
    session = Session(tiny_model(zeros_end=True, extra_codes=0))
    with pytest.raises(ValueError, match="speaks and does not write"):
        HeardTurn(session)
    session.refuse_while_busy()


@pytest.mark.parametrize("size", [100, 640, 1500])
def test_audio_in_pieces_of_any_size_has_the_text_of_its_codes(talker, tiny_model, size) -> None:
    model = tiny_model(**SPELLS)
    generator = torch.Generator().manual_seed(size)
    audio = 0.1 * torch.randn(12_000, generator=generator)
    stream = TranscriptStream(talker.tokenizer.with_own_state(), Session(model))
    for part in audio.split(size):
        stream.push(part)
    assert stream.seconds == pytest.approx(len(audio) // 640 * 0.08) and stream.turn.text
    with torch.no_grad():
        codes, _ = talker.tokenizer.encode(audio[None, None], num_codebooks=5)
    assert stream.finish() == Session(model).transcribe(codes[0])
    assert stream.turn.frames == codes.shape[2]


def test_a_talker_hears_while_it_speaks_and_keeps_the_turn(talker) -> None:
    speech = talker.generate("Hello there.", "FAYE", stream=True)
    next(speech)
    session = talker.session()
    stream = talker.hear("FAYE", session=session)
    stream.push(0.1 * torch.ones(1000))
    text = stream.finish()
    (kept,) = [context.turn for context in session.turns]
    assert kept.speaker == 1 and kept.codes.shape[1] == 2 and len(kept.text) == len(text) > 0
    speech.close()
    with pytest.raises(ValueError, match="speaker is 'FAY'"):
        talker.hear("FAY")
