"""Whisper's, WhisperX's and whisper.cpp's transcripts."""

from csm.data.word_times import read_words
from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text

SEGMENT = {"start": 0.1, "end": 0.9, "text": " Well, hello.", "id": 0, "seek": 0, "avg_logprob": -0.2}


def test_segments_with_speakers_are_turns_with_their_words(tmp_path) -> None:
    sound(tmp_path / "in/show/talk.wav")
    words = [
        {"word": "Well,", "start": 0.1, "end": 0.4, "score": 0.9},
        {"word": "hello.", "start": 0.5, "end": 0.9},
    ]
    segments = [
        {**SEGMENT, "speaker": "SPEAKER_00", "words": words},
        {**SEGMENT, "start": 1.0, "end": 1.4, "text": "Hi.", "speaker": "SPEAKER_01"},
        {**SEGMENT, "text": None},
        {**SEGMENT, "text": " "},
        {"start": 0, "end": 1, "Text": "x"},
    ]
    text(tmp_path / "in/show/talk.json", {"segments": segments, "word_segments": words, "language": "en"})
    corpus = prepared(tmp_path)
    assert [entry[1:] for entry in said(corpus)] == [
        ("SPEAKER_00", "Well, hello.", 0, 0.1, 0.9),
        ("SPEAKER_01", "Hi.", 0, 1.0, 1.4),
    ]
    assert [word.text for word in read_words(corpus.root)[corpus.turns()[0].id]] == ["Well,", "hello."]
    for reason in ("text is null", "text is empty", "has 'Text'; rename it to text"):
        assert reason in ledger(corpus)


def test_without_speakers_one_channel_has_one_speaker_and_two_are_refused(tmp_path) -> None:
    for name, channels in (("one", 1), ("two", 2)):
        sound(tmp_path / f"in/ann/{name}.wav", channels=channels)
        text(tmp_path / f"in/ann/{name}.json", {"text": "Well, hello.", "segments": [SEGMENT]})
    corpus = prepared(tmp_path)
    assert corpus.speakers() == ["ann"] and len(corpus.turns()) == 1
    assert "speaker is missing: the recording has 2 channels" in ledger(corpus)


def test_whisper_cpp_counts_milliseconds_and_names_the_channel(tmp_path) -> None:
    sound(tmp_path / "in/talk.wav", channels=2)
    spoken = {"timestamps": {}, "offsets": {"from": 100, "to": 900}, "text": " Hi.", "speaker": "1"}
    text(tmp_path / "in/talk.wav.json", {"systeminfo": "", "transcription": [spoken]})
    assert said(prepared(tmp_path)) == [("talk", "talk-1", "Hi.", 1, 0.1, 0.9)]


def test_a_long_text_before_the_segments_hides_them_from_no_layout(tmp_path) -> None:
    sound(tmp_path / "in/a.wav")
    content = {"text": "word " * 30_000, "segments": [SEGMENT, {**SEGMENT, "channel": 0.6}, 5]}
    text(tmp_path / "in/a.json", content)
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Well, hello."]
    assert "channel is 0.6: expected 0, 1" in ledger(corpus) and "a, segment 2" in ledger(corpus)


def test_a_segment_without_a_speaker_among_others_with_one_is_rejected(tmp_path) -> None:
    sound(tmp_path / "in/a.wav")
    named = {**SEGMENT, "speaker": "SPEAKER_00"}
    text(tmp_path / "in/a.json", {"segments": [named, {**SEGMENT, "text": "Whose?", "speaker": None}]})
    corpus = prepared(tmp_path)
    assert [turn.speaker for turn in corpus.turns()] == ["SPEAKER_00"]
    assert "speaker is missing, as other segments have one" in ledger(corpus)
