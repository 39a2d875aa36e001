"""A growing conversation: repeatable, of bounded size, whole after every stop and refusal."""

import copy

import pytest
import torch

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.sequences.turns import TurnFrames

SHORT = SamplingConfig(max_seconds=1.2)


def speak(session, text, speaker=0, **options) -> torch.Tensor:
    return torch.stack(list(session.speak(text, speaker, **options)), dim=1)


def state(session) -> tuple:
    turns = [(t.turn.id, t.turn.text, t.turn.codes.tolist()) for t in session.turns]
    return turns, session.context.cache.length, session.memory.semantic.tolist(), int(session.memory.turns)


def test_a_seed_repeats_a_whole_conversation(tiny_model, random_turn) -> None:
    model = tiny_model()

    def conversation(seed: int) -> list:
        session = Session(model, SamplingConfig(seed=seed, max_seconds=1.2))
        first = speak(session, "hello")
        session.listen(random_turn("a"))
        return [first, speak(session, "again", 1), session.transcribe(random_turn("b").codes)]

    a, b, c = conversation(1), conversation(1), conversation(2)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2]
    assert a[0].shape != c[0].shape or not torch.equal(a[0], c[0])


def test_frames_are_codes_and_come_one_by_one(tiny_model) -> None:
    session = Session(tiny_model(), SHORT)
    frames = session.speak("hello", 0)
    first = next(frames)
    assert first.shape == (5,) and first.dtype == torch.int64 and not session.turns
    rest = list(frames)
    codes = torch.stack([first, *rest], dim=1)
    assert int(codes.min()) >= 0 and int(codes.max()) < 24
    assert torch.equal(session.turns[0].turn.codes, codes) and session.turns[0].turn.text == "hello"


def test_guidance_moves_rows_away_from_those_that_read_no_text(tiny_model) -> None:
    """Beside the packed turn run whole, by the model and by a copy with closed gates."""
    model, recorded = tiny_model(), []

    def most_probable(logits, codebook, allowed):
        if not codebook:
            recorded.append(logits)
        return logits.masked_fill(~allowed, float("-inf")).argmax()

    session = Session(model, SamplingConfig(max_seconds=1.2, guidance=0.7), next_code=most_probable)
    codes = torch.stack([*session.speak("hello there", 0)], dim=1)
    (context,) = session.turns
    rows = model.new_rows()
    rows.add_spoken(context.turn, length=context.length)
    batch = rows.build()
    closed = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in closed.named_parameters():
            if "gate" in name and ("voice_reads" in name or "text_now" in name):
                parameter.zero_()
        read, unread = (one.hidden_rows(batch)[-codes.shape[1] - 2 : -1] for one in (model, closed))
        moved = 1.7 * read - 0.7 * unread
        moved *= read.norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True)
        expected = model.codebook0_head(moved)
    assert len(recorded) in (codes.shape[1], codes.shape[1] + 1) and codes.shape[1] > 3
    assert not torch.allclose(read[1:], unread[1:], atol=1e-2)
    for logits, oracle in zip(recorded, expected, strict=False):
        torch.testing.assert_close(logits, oracle, atol=1e-4, rtol=1e-4)


def test_guidance_leaves_the_context_as_it_is_without(tiny_model, random_turn) -> None:
    """A turn whose codes are given is kept alike, and one that is taken back leaves no trace."""
    model, ends = tiny_model(), iter([3, 3])
    sessions = [Session(model, SamplingConfig(max_seconds=0.8, guidance=value)) for value in (0.0, 1.5)]
    for session in sessions:
        session.listen(random_turn("before", "what was said", 8))
        limit = next(ends)
        session.next_code = lambda logits, codebook, allowed, limit=limit: torch.tensor(limit)
        list(session.speak("hello", 0))
        session.next_code = None
        session.sampling = SamplingConfig(temperature=0.0, max_seconds=0.8)
    plain, guided = (torch.stack([*session.speak("and then", 1)], dim=1) for session in sessions)
    assert torch.equal(plain, guided) and sessions[0].rows == sessions[1].rows


def test_guidance_needs_a_model_that_reads(tiny_model) -> None:
    model = tiny_model(cross_layers=(), cross_window=0)
    with pytest.raises(ValueError, match=r"guidance is 0\.5: .* reads no text"):
        Session(model, SamplingConfig(guidance=0.5))


def test_a_turn_tells_why_it_ended(tiny_model) -> None:
    """By the end code that a caller chooses, by its limit, or because its consumer stopped."""

    def ended(frames) -> str:
        while True:
            try:
                next(frames)
            except StopIteration as stop:
                return stop.value

    model = tiny_model()
    session = Session(model, SHORT)
    assert ended(Session(model, SamplingConfig(shortest=99.0, max_seconds=0.4)).speak("hello", 0)) == "limit"
    session.next_code = lambda logits, codebook, allowed: torch.tensor(24 if session.rows > 12 else 3)
    session.sampling = SamplingConfig(shortest=0.0, max_seconds=2.0)
    assert ended(session.speak("hi", 0)) == "end_code"
    assert (session.turns[0].turn.codes == 3).all()
    turn = session.begin_turn(session.plan_turn("hi", 0, 5))
    while turn.rows_left:
        session._run_next(turn)
    assert session.end_turn(turn) == "stopped" == turn.ended


@pytest.mark.parametrize("after", [1, 4])
def test_stopping_in_the_middle_keeps_what_was_said(tiny_model, after) -> None:
    session = Session(tiny_model(), SHORT)
    frames = session.speak("hello", 0, frames=10)
    said = torch.stack([next(frames) for _ in range(after)], dim=1)
    frames.close()
    (kept,) = session.turns
    assert torch.equal(kept.turn.codes, said) and kept.length == 10
    # Text, frames and the end row are all in the cache, as if the turn had ended there.
    assert session.context.cache.length == len(session.model.codec.encode_turn("hello", 0)) + after + 1
    assert speak(session, "more").shape[1] > 0


def test_a_turn_that_was_never_started_leaves_no_trace(tiny_model) -> None:
    session = Session(tiny_model(), SHORT)
    before = state(session)
    session.speak("hello", 0).close()
    assert state(session) == before


def test_nothing_else_happens_while_a_turn_is_spoken(tiny_model, random_turn) -> None:
    session = Session(tiny_model(), SHORT)
    frames = session.speak("hello", 0, frames=10)
    next(frames)
    for other in (
        lambda: session.listen(random_turn("a")),
        lambda: session.transcribe(random_turn("a").codes),
        lambda: next(session.speak("you", 1)),
    ):
        with pytest.raises(ValueError, match="still being spoken"):
            other()
    frames.close()
    session.listen(random_turn("a"))
    assert [t.turn.id for t in session.turns] == ["spoken", "a"]


def test_fifty_turns_take_the_space_of_a_few(tiny_model, random_turn) -> None:
    model = tiny_model()
    session = Session(model, SamplingConfig(max_seconds=0.5))
    sizes = set()
    for index in range(50):
        if index % 5 == 4:
            speak(session, f"reply {index}", 1)
        elif index % 5 == 3:
            session.transcribe(random_turn(f"w{index}").codes[:, :6])
        else:
            session.listen(random_turn(f"t{index}", f"turn {index}", 4 + index % 9))
        assert session.context.cache.length <= model.config.max_context and len(session.turns) < 12
        sizes.add((session.memory.semantic.shape, session.memory.style.shape))
    assert sizes == {((1, 4, 32), (1, 4, 32))}
    assert int(session.memory.turns) + len(session.turns) == 50
    kept = [t.turn for t in session.turns]
    rows = sum(len(model.codec.encode_turn(t.text, t.speaker)) + t.codes.shape[1] + 1 for t in kept)
    assert rows == session.context.cache.length


def test_the_memory_is_what_was_written_turn_by_turn(tiny_model, random_turn) -> None:
    model = tiny_model()
    session, turns = Session(model), [random_turn(f"t{i}", f"turn {i}", 12) for i in range(12)]
    for turn in turns:
        session.listen(turn)
    past = turns[: -len(session.turns)]
    builder = model.new_rows()
    builder.begin_sequence(past)
    builder.add_spoken(turns[-1])
    with torch.no_grad():
        expected = model.remember(builder.build().past)
    assert int(session.memory.turns) == len(past) > 4
    torch.testing.assert_close(session.memory.semantic, expected.semantic, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(session.memory.style, expected.style, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes", [{"memory_layers": ()}, {"cross_layers": ()}, {"extra_codes": 0}, {"n_kv_heads": 1}]
)
def test_models_without_a_part_converse_too(tiny_model, random_turn, changes) -> None:
    session = Session(tiny_model(**changes), SHORT)
    for index in range(6):
        session.listen(random_turn(f"t{index}", "some words to fill", 20))
    assert speak(session, "hello").shape[0] == 5
    assert isinstance(session.transcribe(random_turn("a").codes), str)


@pytest.mark.parametrize("frames", [1, 2, 500])
def test_speech_goes_on_past_its_expected_length_and_ends_at_the_limit(tiny_model, frames) -> None:
    model = tiny_model()
    with torch.no_grad():
        # The end is never drawn.
        model.codebook0_head.weight[24] = 0
    session = Session(model, SamplingConfig(max_seconds=4.0, top_k=5))
    codes = speak(session, "hi", frames=frames)
    assert codes.shape[1] == min(2 * frames + 12, 50)


def test_a_turn_may_be_empty_where_the_config_lets_it(tiny_model, random_turn, monkeypatch) -> None:
    model = tiny_model()
    session = Session(model, SamplingConfig(shortest=0.0))
    monkeypatch.setattr(session, "next_frame", lambda turn: None)
    assert list(session.speak("hello", 0)) == []
    assert session.turns[0].turn.codes.shape == (5, 0)
    for index in range(12):
        session.listen(random_turn(f"t{index}", frames=15))
    assert all(t.turn.codes.shape[1] for t in session.turns)
    assert int(session.memory.turns) == 12 - len(session.turns)


def test_a_duration_head_that_has_lost_its_mind_does_no_harm(tiny_model) -> None:
    model = tiny_model()
    model.duration_head.bias.data.fill_(1e4)
    assert speak(Session(model, SHORT), "hello").shape[1] == 15


def test_what_was_written_is_kept_as_text_and_voice(tiny_model, random_turn) -> None:
    session = Session(tiny_model(), SHORT)
    session.listen(random_turn("a"))
    heard = random_turn("b").codes
    text = session.transcribe(heard, speaker=1)
    kept = session.turns[-1].turn
    assert torch.equal(kept.codes, heard) and kept.speaker == 1 and text == text.strip()
    assert kept.text == (text.replace("\ufffd", "?") or ".")


@pytest.mark.parametrize("token", [ord(" "), 0xFF, ord("x")])
def test_writing_that_never_ends_fits_the_context(tiny_model, random_turn, token) -> None:
    model = tiny_model(max_context=60)
    with torch.no_grad():
        model.text_embedding.weight[: model.codec.vocab_size] *= 1e-3
        model.text_embedding.weight[token] *= 0
    # Logits of 0 against small ones of both signs: make the chosen one the largest.
    session = Session(model, SHORT)
    real = torch.nn.functional.linear

    def chosen(x, weight, bias=None):
        out = real(x, weight, bias)
        return (
            out.index_fill(-1, torch.tensor([token]), 1e3)
            if weight.shape[0] == model.codec.vocab_size
            else out
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csm.generation.session.F.linear", chosen)
        text = session.transcribe(random_turn("a", frames=30).codes)
    assert session.context.cache.length <= 60
    # The room is used: 33 rows of voice, three of the text's frame, what is left for the text.
    assert len(text) == (0 if token == ord(" ") else 26)
    assert speak(session, "hi").shape[1] > 0


def test_refused_input_leaves_the_session_as_it_was(tiny_model, random_turn) -> None:
    session = Session(tiny_model(), SHORT)
    for index in range(5):
        session.listen(random_turn(f"t{index}", frames=12))
    before = state(session)
    good = random_turn("bad")
    empty = torch.zeros(5, 0, dtype=torch.int64)
    for refused, message in [
        (lambda: session.listen(good._replace(codes=empty)), "at least one frame"),
        (lambda: session.listen(good._replace(codes=good.codes[:3])), "K >= 5"),
        (lambda: session.listen(good._replace(codes=good.codes + 20)), "expected 0..23"),
        (lambda: session.listen(good._replace(text=" ")), "text is empty"),
        (lambda: session.listen(good._replace(speaker=500)), "speaker is 500"),
        (lambda: session.listen(random_turn("bad", frames=200)), "does not fit max_context 160"),
        (lambda: session.speak("", 0), "text is empty"),
        (lambda: session.speak("x" * 160, 0), "split it into sentences"),
        (lambda: session.speak("x", -1), "speaker is -1"),
        (lambda: session.speak("x", 0, frames=0), "frames is 0"),
        (lambda: session.transcribe(empty), "at least one frame"),
        (lambda: session.transcribe(good.codes[0]), "at least one frame"),
        (lambda: session.transcribe(good.codes[:3]), "K >= 5"),
        (lambda: session.transcribe(good.codes - 30), "expected 0..23"),
        (lambda: session.transcribe(torch.zeros(5, 200, dtype=torch.int64)), "split it into turns"),
    ]:
        with pytest.raises(ValueError, match=message):
            refused()
        assert state(session) == before


def test_the_longest_text_that_fits_is_spoken(tiny_model) -> None:
    model = tiny_model(max_context=40)
    session = Session(model, SHORT)
    assert speak(session, "x" * 35).shape[1] == 1  # begin, speaker, 35 bytes, end, one frame, the end row
    with pytest.raises(ValueError, match="split it into sentences"):
        session.speak("x" * 36, 0)


def test_a_turn_of_more_codebooks_than_the_model_is_cut(tiny_model, random_turn) -> None:
    model = tiny_model()
    wide = random_turn("a", codebooks=9)
    sessions = [Session(model, SHORT), Session(model, SHORT)]
    sessions[0].listen(wide)
    sessions[1].listen(TurnFrames("a", wide.text, 0, wide.codes[:5]))
    assert torch.equal(speak(sessions[0], "hi"), speak(sessions[1], "hi"))


def test_a_length_beyond_the_context_is_taken_for_the_whole_context(tiny_model) -> None:
    model = tiny_model()
    session = Session(model, SamplingConfig(temperature=1.0, max_seconds=100.0, shortest=1.0))
    list(session.speak("hello", 0, frames=10**6))
    assert session.turns[-1].length == model.config.max_context


def test_a_turn_that_was_listened_to_does_not_keep_its_recording(tiny_model) -> None:
    session = Session(tiny_model(), SamplingConfig())
    recording = torch.zeros(5, 10_000, dtype=torch.int64)
    session.listen(TurnFrames("t", "hello", 0, recording[:, 100:120]))
    assert session.turns[0].turn.codes.untyped_storage().nbytes() == 5 * 20 * 8


@torch.no_grad()
def test_a_model_that_was_not_taught_the_pace_reads_evenly(tiny_model, random_turn) -> None:
    model = tiny_model()
    model.pace_head.pace.weight.zero_()
    session = Session(model)
    session.listen(random_turn("a"))
    speak(session, "and back")
    assert session.turns and all(context.turn.ends is None for context in session.turns)


def test_a_turn_taken_back_leaves_no_trace(tiny_model, random_turn) -> None:
    model = tiny_model()

    def conversation(*, taken_back: bool) -> torch.Tensor:
        session = Session(model, SamplingConfig(temperature=0.0, max_seconds=1.2))
        session.listen(random_turn("a"))
        if taken_back:
            frames = session.speak("never heard", 0)
            next(frames)
            frames.close()
            session.listen(random_turn("b"))
            assert [turn.text for turn in session.take_back(2)][0] == "never heard"
        return speak(session, "again", 1)

    assert torch.equal(conversation(taken_back=True), conversation(taken_back=False))


def test_only_turns_of_the_context_are_taken_back(tiny_model, random_turn) -> None:
    session = Session(tiny_model(), SHORT)
    session.listen(random_turn("a"))
    with pytest.raises(ValueError, match=r"count is 2: expected 0\.\.1"):
        session.take_back(2)
    frames = session.speak("hello", 0)
    next(frames)
    with pytest.raises(ValueError, match="still being spoken"):
        session.take_back(1)
