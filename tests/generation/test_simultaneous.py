"""Texts spoken at once: each equals the same text alone, with its own turns, reasons and times."""

import torch

from csm.generation.session import Session
from csm.generation.simultaneous import OngoingText, speak_simultaneously


def test_texts_at_once_give_the_speech_that_each_gives_alone(talker):
    texts = ["Hello there. Who are you?", "Me.", "A longer line, for once. Yes. No."]
    speakers, seeds = [None, "FAYE", "JOE"], [5, 6, 7]
    together = talker.generate_many(texts, speakers, seeds)
    for speech, text, speaker, seed in zip(together, texts, speakers, seeds, strict=True):
        alone = talker.generate(text, speaker, seed=seed)
        assert torch.equal(speech.codes, alone.codes)
        torch.testing.assert_close(speech.waveform, alone.waveform, atol=1e-5, rtol=0)
        assert speech.endings == alone.endings and speech.voice is alone.voice
        assert speech.timing.audio_s == alone.timing.audio_s
        assert speech.timing.frames == alone.timing.frames
        assert 0 < speech.timing.first_audio_s <= speech.timing.generation_s


def test_sentences_of_a_text_are_turns_with_a_pause_between_them(talker):
    session = talker.session(5)
    text = OngoingText(session, talker.voice("FAYE"), ["Hello there.", "Me."])
    (speech,) = speak_simultaneously(talker.tokenizer, [text], talker.pause)
    first, second = (context.turn for context in session.turns)
    assert (first.text, second.text) == ("Hello there.", "Me.") and len(speech.endings) == 2
    parts = [first.codes, torch.stack(talker.pause, dim=1), second.codes]
    assert torch.equal(speech.codes, torch.cat(parts, dim=1))


def test_a_text_without_frames_has_no_audio_and_no_texts_give_none(talker, monkeypatch):
    assert speak_simultaneously(talker.tokenizer, [], talker.pause) == []
    monkeypatch.setattr(Session, "next_frame", lambda *_: None)
    (speech,) = talker.generate_many(["Hi."], [None], [0])
    assert speech.waveform.shape == (1, 0) and speech.codes.shape == (5, 0)
    assert speech.timing.audio_s == 0 and speech.timing.first_sound_s is None
