"""SRT and WebVTT."""

from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text

SRT = """1
00:00:00,100 --> 00:00:00,900
Ann: Well,
<i>hello.</i>

2
00:00:01,000 --> 00:00:01,500
BEN: Hi.

3
00:00:01,600 --> 00:00:01,700
(laughter)
"""
VTT = """WEBVTT

NOTE made up

00:00.100 --> 00:00.900 align:start
<v Ann>Well, hello.

intro
00:01.000 --> 00:01.5
<v.loud Ben>Hi &amp; bye.</v>
"""


def test_speakers_stand_before_the_text_or_in_voice_tags(tmp_path) -> None:
    for name, content in (("a.srt", SRT), ("b.vtt", VTT)):
        sound(tmp_path / f"in/{name[0]}.wav")
        text(tmp_path / f"in/{name}", content)
    corpus = prepared(tmp_path)
    assert said(corpus) == [
        ("a", "Ann", "Well, hello.", 0, 0.1, 0.9),
        ("a", "BEN", "Hi.", 0, 1.0, 1.5),
        ("b", "Ann", "Well, hello.", 0, 0.1, 0.9),
        ("b", "Ben", "Hi & bye.", 0, 1.0, 1.5),
    ]
    assert "no speaker is named, as in other cues" in ledger(corpus)


def test_without_names_the_speaker_is_the_folder_and_two_channels_are_refused(tmp_path) -> None:
    for name, channels in (("one", 1), ("two", 2)):
        sound(tmp_path / f"in/ann/{name}.wav", channels=channels)
        text(tmp_path / f"in/ann/{name}.srt", "1\n00:00:00,1 --> 00:00:00,900\nIt is 10:30 now.\n")
    corpus = prepared(tmp_path)
    assert [entry[1:3] for entry in said(corpus)] == [("ann", "It is 10:30 now.")]
    assert "subtitles name none" in ledger(corpus)
