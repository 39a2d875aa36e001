"""RTTM with the words in STM, CTM or lines of text."""

import pytest

from csm.data.corpora.layouts.source import SourceConversation, SourceTurn
from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text

RTTM = """SPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA> <NA>
SPEAKER talk 1 0.10 0.80 <NA> <NA> ann <NA> <NA>
SPEAKER talk 1 1.00 0.50 <NA> <NA> ben <NA> <NA>
"""
EXPECTED = [("talk", "ann", "Well, hello.", 0, 0.1, 0.9), ("talk", "ben", "Hi.", 0, 1.0, 1.5)]


def test_words_of_a_ctm_are_put_into_the_intervals_of_the_rttm(tmp_path) -> None:
    sound(tmp_path / "in/talk.wav")
    text(tmp_path / "in/talk.rttm", RTTM)
    text(tmp_path / "in/talk.ctm", "talk 1 0.10 0.3 Well, 0.9\ntalk 1 0.5 0.3 hello.\ntalk 1 1.1 0.2 Hi.\n")
    corpus = prepared(tmp_path)
    assert said(corpus) == EXPECTED and "0.5" in (corpus.root / "words.jsonl").read_text()


def test_a_line_of_text_for_each_line_of_the_rttm_is_enough_and_another_number_is_refused(tmp_path) -> None:
    for name, content in (("talk", "Well, hello.\n\nHi.\n"), ("more", "One.\nTwo.\nThree.\n")):
        sound(tmp_path / f"in/{name}.wav")
        text(tmp_path / f"in/{name}.rttm", RTTM.replace("talk", name))
        text(tmp_path / f"in/{name}.txt", content)
    corpus = prepared(tmp_path)
    assert said(corpus) == EXPECTED
    assert "more.txt has 3 lines: expected 2" in ledger(corpus) and corpus.info["turns_rejected"] == 2


def test_an_rttm_alone_holds_no_words_and_an_stm_needs_no_rttm(tmp_path) -> None:
    for name in ("talk", "mute"):
        sound(tmp_path / f"in/{name}.wav")
    text(
        tmp_path / "in/mute.rttm",
        RTTM.replace("talk", "mute") + "SPEAKER mute 1 x 1 <NA> <NA> b <NA>\nSPEAKER\n",
    )
    stm = ";; comment\ntalk 1 ann 0.10 0.90 <o,f0> Well, hello.\ntalk 1 ben 1.0 1.5 Hi.\n"
    text(tmp_path / "in/talk.stm", stm + "talk 1 ben 1.5 1.6 IGNORE_TIME_SEGMENT_IN_SCORING\n")
    corpus = prepared(tmp_path)
    assert said(corpus) == EXPECTED
    for reason in ("words are unknown: --tran", "start is 'x'", "too few columns", "left out of scoring"):
        assert reason in ledger(corpus)
    assert corpus.info["minutes_rejected"] == pytest.approx(1.3 / 60, abs=1e-3)
    assert corpus.info["files_used"] == 2, "the recording and the .rttm are left out"


def test_of_an_rttm_alone_a_transcriber_gets_speakers_and_times(tmp_path) -> None:
    sound(tmp_path / "in/mute.wav")
    text(tmp_path / "in/mute.rttm", RTTM.replace("talk", "mute"))
    asked = []

    def transcribe(recording, path, info, tree) -> SourceConversation:
        asked.extend((span.speaker, span.start, round(span.end, 3)) for span in recording.spans)
        spans = [
            SourceTurn(speaker=s.speaker, text="So.", audio=recording.audio, start=s.start, end=s.end)
            for s in recording.spans
        ]
        return SourceConversation(id=recording.id, turns=spans, timeline=True)

    corpus = prepared(tmp_path, transcriber=transcribe, transcription="made up")
    assert asked == [("ann", 0.1, 0.9), ("ben", 1.0, 1.5)] and len(corpus.turns()) == 2


@pytest.mark.parametrize(
    ("names", "channels"), [("01", [0, 1]), ("12", [0, 1]), ("AB", [0, 1]), ("00", [0, 0]), ("11", [0, 0])]
)
def test_channels_count_from_0_where_a_line_of_the_recording_says_so(tmp_path, names, channels) -> None:
    rttm, ctm = "", ""
    for number, name in enumerate(names):
        rttm += f"SPEAKER talk {name} {number} 0.9 <NA> <NA> {'ab'[number]} <NA> <NA>\n"
        ctm += f"talk {name} {number}.2 0.3 so\n"
    rttm += "SPEAKER mono 1 0.1 0.5 <NA> <NA> a <NA> <NA>\n"
    sound(tmp_path / "in/talk.wav", channels=2)
    sound(tmp_path / "in/mono.wav")
    text(tmp_path / "in/talk.rttm", rttm)
    text(tmp_path / "in/talk.ctm", f"{ctm}mono 1 0.2 0.1 well\n")
    corpus = prepared(tmp_path)
    found = sorted((turn.text, turn.channel) for turn in corpus.turns())
    assert found == [*(("so", channel) for channel in channels), ("well", 0)]
    assert ledger(corpus) == ""


@pytest.mark.parametrize("origin", [0, 1])
def test_a_channel_that_the_recording_lacks_is_rejected_by_its_number_in_the_file(tmp_path, origin) -> None:
    sound(tmp_path / "in/talk.wav")
    stm = f"talk {origin} ann 0.1 0.9 Hello.\ntalk {origin + 1} ben 1.0 1.5 Hi.\n"
    text(tmp_path / "in/talk.stm", stm)
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Hello."]
    assert f"channel is {origin + 1}: expected {origin}, those of its recording" in ledger(corpus)
    assert '"seconds": 0.5' in ledger(corpus)


def test_a_transcriber_gets_no_recording_of_which_no_line_is_left(tmp_path) -> None:
    for name in ("mute", "talk"):
        sound(tmp_path / f"in/{name}.wav")
    text(tmp_path / "in/mute.rttm", "SPEAKER mute 2 0.10 0.80 <NA> <NA> ann <NA> <NA>\n")
    text(tmp_path / "in/talk.stm", "talk 1 ann 0.1 0.9 Hello.\n")

    def transcribe(recording, path, info, tree) -> SourceConversation:
        raise AssertionError(recording)

    corpus = prepared(tmp_path, transcriber=transcribe, transcription="made up")
    assert "channel is 2: expected 1" in ledger(corpus) and len(corpus.turns()) == 1
