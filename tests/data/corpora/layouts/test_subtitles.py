"""SRT and WebVTT."""

import pytest

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

4
00:00:01,700 --> 00:00:01,900
Then she told me: no.
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
    assert "holds only (laughter): expected the words" in ledger(corpus)


def test_without_names_the_speaker_is_the_folder_and_two_channels_are_refused(tmp_path) -> None:
    for name, channels in (("one", 1), ("two", 2)):
        sound(tmp_path / f"in/ann/{name}.wav", channels=channels)
        text(tmp_path / f"in/ann/{name}.srt", "1\n00:00:00,1 --> 00:00:00,900\nIt is 10:30 now.\n")
    corpus = prepared(tmp_path)
    assert [entry[1:3] for entry in said(corpus)] == [("ann", "It is 10:30 now.")]
    assert "subtitles name none" in ledger(corpus)


def srt(*cues: str) -> str:
    times = (f"00:00:0{n},000 --> 00:00:0{n},900" for n in range(len(cues)))
    return "".join(
        f"{n}\n{time}\n{cue}\n\n" for n, (time, cue) in enumerate(zip(times, cues, strict=True), 1)
    )


def spoken_by(tmp_path, content: str, ending: str = "srt") -> tuple[list[tuple[str, str]], str]:
    sound(tmp_path / "in/show/a.wav", 9.0)
    text(tmp_path / f"in/show/a.{ending}", content)
    corpus = prepared(tmp_path)
    return [(turn.speaker, turn.text) for turn in corpus.turns()], ledger(corpus)


def test_a_colon_inside_a_sentence_names_nobody(tmp_path) -> None:
    cues = ("Hello there.", "And she told me: yes.", "Well: no.", "Go on.", "Fine.")
    assert spoken_by(tmp_path, srt(*cues)) == ([("show", cue) for cue in cues], "")


def test_a_name_that_recurs_is_a_speaker_and_other_cues_need_one(tmp_path) -> None:
    cues = ("Ann: Hello.", "So.", "Ann: And so on.", "And then she told me: yes.", "Right.", "No.", "Go.")
    said_, left_out = spoken_by(tmp_path, srt(*cues))
    assert said_ == [("Ann", "Hello."), ("Ann", "And so on.")]
    assert left_out.count("no speaker is named") == 5


def test_tags_of_sounds_are_neither_speakers_nor_words_and_are_counted(tmp_path) -> None:
    cues = (
        "[laughter] No, I was reading.",
        "[Music]",
        "\u266a \u266a",
        "Yes (sighs) [laughter] now.",
        "(quietly) So.",
    )
    said_, left_out = spoken_by(tmp_path, srt(*cues))
    assert said_ == [("show", "No, I was reading."), ("show", "Yes now."), ("show", "(quietly) So.")]
    for line in ("2 x [laughter]", "1 x (sighs)", "cue 2", "holds only [Music]", "cue 3"):
        assert line in left_out


@pytest.mark.parametrize(
    ("ending", "cue"),
    [
        ("vtt", "<v Ann>Hi.</v> <v Ben>Hello.</v>"),
        ("srt", "- I am fine. - And you?"),
        ("srt", "- I am fine\n- And you?"),
        ("srt", "Ann: Hi.\nBen: Hello."),
    ],
)
def test_a_cue_of_two_speakers_is_rejected(tmp_path, ending: str, cue: str) -> None:
    mark = "<v {}>So." if ending == "vtt" else "{}: So." if "Ann:" in cue else "So."
    content = srt(mark.format("Ann"), mark.format("Ben"), mark.format("Ann"), cue).replace(",", ".")
    said_, left_out = spoken_by(tmp_path, content, ending)
    assert [text_ for _, text_ in said_] == ["So."] * 3 and "a, cue 4" in left_out
    assert "has several speakers" in left_out and '"seconds": 0.9' in left_out


@pytest.mark.parametrize("ending", ["srt", "vtt"])
def test_signs_of_comparison_are_no_tags(tmp_path, ending: str) -> None:
    cue = "x < 3 and y > 2, <00:00:00.500><c.loud>so</c> <i>5 <= 6</i> <font color='#fff'>now</font>"
    said_, _ = spoken_by(tmp_path, srt(cue).replace(",000", ".000").replace(",900", ".900"), ending)
    assert said_ == [("show", "x < 3 and y > 2, so 5 <= 6 now")]
