"""Praat's TextGrids, both forms, with tiers of utterances and of words."""

import pytest

from tests.data.corpora.layouts.small_trees import ledger, prepared, said, sound, text


def long_form(**tiers: list[tuple[float, float, str]]) -> str:
    body = "".join(
        f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{name}"\n        xmin = 0\n'
        f"        xmax = 2\n        intervals: size = {len(parts)}\n"
        + "".join(
            f"        intervals [{place}]:\n            xmin = {start}\n            xmax = {end}\n"
            f'            text = "{said}"\n'
            for place, (start, end, said) in enumerate(parts, 1)
        )
        for number, (name, parts) in enumerate(tiers.items(), 1)
    )
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2\n'
    head += f"tiers? <exists>\nsize = {len(tiers)}\nitem []:\n"
    return head + body


def short_form(**tiers: list[tuple[float, float, str]]) -> str:
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        "2",
        "<exists>",
        str(len(tiers)),
    ]
    for name, parts in tiers.items():
        lines += ['"IntervalTier"', f'"{name}"', "0", "2", str(len(parts))]
        for start, end, said_ in parts:
            lines += [str(start), str(end), f'"{said_}"']
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("form", [long_form, short_form])
def test_each_tier_is_a_speaker_and_empty_intervals_are_silence(tmp_path, form) -> None:
    sound(tmp_path / "in/talk.wav")
    tiers = {
        "Ann": [(0, 0.1, ""), (0.1, 0.9, 'Well, ""hello"" 2.'), (0.9, 2, "")],
        "Ben": [(0, 1, ""), (1, 1.5, "Hi."), (1.5, 2, " ")],
        "Ann - phones": [(0.1, 0.9, "W")],
    }
    content = form(**tiers)
    text(tmp_path / "in/talk.TextGrid", content)
    assert said(prepared(tmp_path)) == [
        ("talk", "Ann", 'Well, "hello" 2.', 0, 0.1, 0.9),
        ("talk", "Ben", "Hi.", 0, 1.0, 1.5),
    ]


def test_words_of_an_aligner_are_joined_and_channels_are_the_order_of_speakers(tmp_path) -> None:
    sound(tmp_path / "in/talk.wav", channels=2)
    tiers = {
        "Ann - words": [(0.1, 0.4, "well"), (0.45, 0.9, "hello")],
        "Ann - phones": [(0.1, 0.4, "W")],
        "Ben - words": [(1, 1.5, "hi")],
    }
    (tmp_path / "in/talk.TextGrid").write_text(long_form(**tiers), encoding="utf-16")
    corpus = prepared(tmp_path)
    assert said(corpus) == [("talk", "Ann", "well hello", 0, 0.1, 0.9), ("talk", "Ben", "hi", 1, 1.0, 1.5)]


def test_what_is_no_textgrid_or_has_other_speakers_than_channels_is_refused(tmp_path) -> None:
    for name, channels in (("a", 1), ("b", 2), ("c", 1)):
        sound(tmp_path / f"in/{name}.wav", channels=channels)
    text(tmp_path / "in/a.TextGrid", "something else")
    text(tmp_path / "in/b.TextGrid", long_form(Ann=[(0, 1, "Hi.")]))
    text(tmp_path / "in/c.TextGrid", long_form(Ann=[(0, 1, "Hi.")]))
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Hi."]
    assert "is no TextGrid" in ledger(corpus) and "2 channels, 1 speakers" in ledger(corpus)
