"""A live conversation answers turns, stops for interruptions alone, and keeps what was heard."""

import importlib.util
from pathlib import Path

import pytest
import torch

spec = importlib.util.spec_from_file_location("user_audio", Path(__file__).with_name("conftest.py"))
user_audio = importlib.util.module_from_spec(spec)
spec.loader.exec_module(user_audio)
hold, silence, sound, RATE = user_audio.hold, user_audio.silence, user_audio.sound, user_audio.RATE


def kinds(live) -> list[str]:
    return [event.kind for event in live.log]


def test_a_turn_is_answered_once_it_has_ended(conversation) -> None:
    live = conversation()
    voice = hold(live, silence(0.3), sound(1.0), silence(4.0))
    assert kinds(live) == ["user_begins", "user_ends", "voice_begins", "heard", "voice_ends", "said"]
    ended, began = live.log.of("user_ends")[0], live.log.of("voice_begins")[0]
    assert abs(ended.since - 1.3 * RATE) < 0.05 * RATE
    assert began.at >= ended.at and not voice[: began.at].any() and voice[began.at :].any()
    assert [turn.user for turn in live.turns] == [True, False]
    assert [turn.text for turn in live.turns] == ["hello", "one two three four five six seven eight"]


def test_a_pause_within_a_turn_is_no_end_and_leaves_no_trace(conversation) -> None:
    live = conversation()
    hold(live, sound(0.8), silence(0.35), sound(0.8), silence(0.45))
    assert kinds(live) == ["user_begins"]
    hold(live, silence(3.0))
    context = [context.turn.text for context in live.speaker.session.turns]
    assert context == ["hello", "one two three four five six seven eight"]
    frames = live.speaker.session.turns[0].turn.codes.shape[1]
    assert abs(frames * 0.08 - (0.8 + 0.35 + 0.8 + 0.2)) <= 0.25, "the user's turn is whole"


def test_who_speaks_on_before_the_answer_says_one_turn(conversation) -> None:
    live = conversation(gap=1.5)
    hold(live, sound(0.5), silence(0.7))
    assert [*kinds(live)] == ["user_begins", "user_ends"]
    hold(live, sound(0.5), silence(2.5))
    heard = live.speaker.session.turns[0].turn
    assert len(live.log.of("heard")) == 1 and heard.codes.shape[1] >= 1.7 / 0.08


def test_an_interruption_silences_the_voice_and_only_heard_words_stay(conversation) -> None:
    live = conversation("one two three four five six seven eight nine ten eleven twelve", "and again")
    hold(live, sound(0.5), silence(1.0))
    assert live.audible
    onset = live.now
    voice = hold(live, sound(1.2))
    quiet = int(voice.abs().gt(1e-6).nonzero().max())
    assert quiet < 0.3 * RATE and live.log.of("barge_in")[0].since >= onset - 0.05 * RATE
    hold(live, silence(3.0))
    heard, again = live.log.of("said")
    assert again.text == "and again", "the interruption is answered"
    spoken = live.speaker.session.turns[1].turn
    played = live.log.of("voice_ends")[0].since - live.log.of("voice_begins")[0].at
    assert spoken.codes.shape[1] == round(played / 640)
    assert spoken.text == heard.text and "one two three four five".startswith(heard.text[:12])
    assert live.speaker.turns[1].text == heard.text


def test_csm_1b_hears_answers_and_is_interrupted(conversation, csm_1b) -> None:
    live = conversation("one two three four five six seven eight", "and again", talker=csm_1b)
    hold(live, sound(0.5), silence(0.9))
    assert live.audible and live.rate == 24_000
    hold(live, sound(1.2), silence(2.5))
    turns = [context.turn for context in live.speaker.session.turns]
    assert [turn.speaker for turn in turns[:3]] == [1, 0, 1], "the user is another speaker than the voice"
    assert turns[0].text == turns[2].text == "hello" and turns[0].codes.shape == (4, turns[0].codes.shape[1])
    played = live.log.of("voice_ends")[0].since - live.log.of("voice_begins")[0].at
    assert turns[1].codes.shape[1] == round(played / 1920) < 10
    assert live.log.of("said")[1].text == "and again"


def test_a_backchannel_pauses_the_voice_and_loses_nothing(conversation) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    whole = conversation(text)
    expected = hold(whole, sound(0.5), silence(5.0))
    live = conversation(text)
    voice = hold(live, sound(0.5), silence(1.0), sound(0.35), silence(4.5))
    assert [kind for kind in kinds(live) if kind in ("hold", "backchannel", "resume", "barge_in")] == [
        "hold",
        "backchannel",
        "resume",
    ]
    assert live.log.of("said")[0].text == text
    audible = expected[expected.abs() > 1e-5]
    assert abs(int((voice.abs() > 1e-5).sum()) - len(audible)) < 0.03 * RATE


def test_without_holding_a_backchannel_changes_no_sample(conversation) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    plain, live = conversation(text), conversation(text, hold=False)
    expected = hold(plain, sound(0.5), silence(4.0))
    voice = hold(live, sound(0.5), silence(1.0), sound(0.35), silence(2.65))
    assert torch.equal(voice, expected)


@pytest.mark.parametrize("length", [0.03, 0.06, 0.1])
def test_a_transient_is_no_speech(conversation, length) -> None:
    live = conversation()
    hold(live, sound(0.5), silence(1.0), sound(length), silence(3.0))
    assert not {"hold", "barge_in", "backchannel"} & {*kinds(live)}


def test_the_same_user_gives_the_same_conversation(conversation) -> None:
    def run() -> tuple[torch.Tensor, list]:
        live = conversation("one two three four", "five six")
        voice = hold(live, sound(0.5), silence(0.9), sound(1.0), silence(3.0))
        return voice, [*live.log]

    (a, log_a), (b, log_b) = run(), run()
    assert torch.equal(a, b) and log_a == log_b


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_users_rate_is_free(conversation, rate) -> None:
    live = conversation("one two")
    tone = 0.3 * torch.sin(2 * torch.pi * 200 * torch.arange(rate) / rate)
    user = torch.cat([tone, torch.zeros(2 * rate)])
    out = [live.step(part, rate) for part in user.split(rate // 50)]
    assert abs(sum(map(len, out)) - 3 * RATE) <= 0.01 * RATE
    assert kinds(live)[:3] == ["user_begins", "user_ends", "voice_begins"]


def test_slow_synthesis_is_counted_as_underruns(conversation) -> None:
    fast, slow = conversation(charge=0.07), conversation(charge=0.12)
    for live in (fast, slow):
        hold(live, sound(0.5), silence(6.0))
    assert not fast.log.of("underrun") and slow.log.of("underrun")
    assert slow.log.of("said")[0].text == fast.log.of("said")[0].text


def test_a_typed_turn_is_answered_and_interrupts(conversation) -> None:
    live = conversation("one two three four five six seven eight", "two")
    live.type("hi there")
    hold(live, silence(0.6))
    live.type("wait")
    hold(live, silence(3.0))
    assert [turn.text for turn in live.turns if turn.user] == ["hi there", "wait"]
    assert live.turns[-1].text == "two" and len(live.log.of("barge_in")) == 1
    with pytest.raises(ValueError, match="text is empty"):
        live.type(" ")


def test_bad_audio_is_refused(conversation) -> None:
    live = conversation()
    with pytest.raises(ValueError, match="finite"):
        live.hear(torch.tensor([float("nan")]), RATE)
    with pytest.raises(ValueError, match="rate is 100"):
        live.hear(torch.zeros(10), 100)
