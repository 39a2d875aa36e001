"""Players: every control has a name, versions form a set, and nothing is unescaped."""

from csm.report.media import Sound
from csm.report.players import (
    Chip,
    Version,
    WordSpan,
    chip_row,
    clip_card,
    file_name,
    player,
    turn_list,
    word_differences,
)
from tests.report.html_tree import parse

SOUND = Sound(uri="data:audio/wav;base64,AA", duration=2.5, extension="wav", outline="M0.5 1v18")


def version(title: str, sound: Sound | None = SOUND) -> Version:
    return Version(title=title, tone="generated", sound=sound)


def test_a_player_has_a_named_button_a_slider_in_seconds_and_a_download():
    root = parse(player(SOUND, "recording", 'Recording: "Hi" <there>')).children[0]
    name = 'Recording: "Hi" <there>'
    assert root.all("button")[0].name == f"Play {name}"
    (slider,) = root.of_class("wave")
    assert slider.attributes["role"] == "slider" and slider.attributes["tabindex"] == "0"
    assert slider.name == f"Position in {name}"
    limits = [slider.attributes[f"aria-value{end}"] for end in ("min", "now", "max", "text")]
    assert limits == ["0", "0", "2.50", "0.0 of 2.5 seconds"]
    (link,) = root.all("a")
    assert link.name == f"Download {name}" and link.attributes["download"] == "recording-hi-there.wav"
    assert root.attributes["data-duration"] == "2.500" and root.all("time")[0].text == "2.5 s"


def test_a_player_without_sound_says_why():
    assert parse(player(None, "recording", "x", missing="torn <file>")).text == "torn <file>"


def test_versions_of_a_clip_are_one_set_and_further_ones_are_folded():
    card = parse(
        clip_card(
            [version("Recording"), version("Generated", None)],
            more=[version("int8")],
            anchor='a"b',
            source="JOE, C1",
            text="To <be>",
            note="Prompt",
            below="<hr-x></hr-x>",
        )
    )
    (group,) = card.of_class("set")
    assert group.attributes["role"] == "group" and group.name == "Versions of To <be>"
    assert [one.text for one in group.all("h4")] == ["Recording", "Generated", "int8"]
    assert [one.text for one in group.all("details")[0].all("h4")] == ["int8"]
    assert card.children[0].attributes["id"] == 'a"b' and len(card.all("hr-x")) == 1
    assert len(group.all("audio")) == 2 and "no audio" in group.text


def test_pictures_transcripts_and_chips_stand_under_the_player():
    item = Version(
        title="Generated",
        tone="generated",
        sound=SOUND,
        picture="data:image/png;base64,AA",
        transcript=word_differences([WordSpan(kind="equal", expected="a", recognised="a")]),
        chips=[Chip(text="WER 0 %", title="of <one>")],
    )
    card = parse(clip_card([item], anchor="a", source="JOE", text="a"))
    assert card.all("img")[0].name == "Spectrogram of Generated"
    assert card.of_class("transcript")[0].text == "a"
    assert card.of_class("chips")[0].children[0].attributes["title"] == "of <one>"


def test_turns_are_folded_and_each_is_a_set_of_its_own():
    shown = parse(
        turn_list([("JOE", "Hi", [version("Generated")]), ("FAYE", "<No>", [version("Generated")])])
    )
    (folded,) = shown.all("details")
    assert "open" not in folded.attributes and folded.all("summary")[0].text == "2 turns, one by one"
    assert [one.name for one in folded.of_class("set")] == ["Versions of Hi", "Versions of <No>"]
    assert turn_list([]) == ""


def test_wrong_added_and_missing_words_are_marked():
    spans = [
        WordSpan(kind="equal", expected="hello", recognised="hello"),
        WordSpan(kind="substitute", expected="there", recognised="<their>"),
        WordSpan(kind="insert", expected="", recognised="very"),
        WordSpan(kind="delete", expected="old", recognised=""),
    ]
    shown = parse(word_differences(spans))
    assert shown.text == "hello <their> very old" and [one.text for one in shown.all("del")] == ["old"]
    marks = [(one.text, one.attributes["title"]) for one in shown.all("mark")]
    assert marks == [("<their>", "text: there"), ("very", "added")]
    assert parse(word_differences([])).text == "(nothing)"


def test_chips_without_entries_are_empty():
    assert chip_row([]) == ""
    assert parse(chip_row([Chip(text="failed", bad=True)])).of_class("bad")[0].text == "failed"


def test_file_names_are_plain():
    assert file_name("Recording: I'd go, \u00e9h?") == "recording-i-d-go-h"
    assert file_name("...") == "clip" and len(file_name("a " * 99)) <= 60
