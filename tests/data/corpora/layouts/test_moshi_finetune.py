"""moshi-finetune's stereo layout: words on two channels become turns, bad entries go to the ledger."""

from tests.data.corpora.layouts.small_trees import ledger, lines, prepared, said, sound, text


def test_words_become_turns_of_their_channel_and_keep_their_times(tmp_path) -> None:
    sound(tmp_path / "in/data_stereo/a.wav", 4.0, channels=2)
    words = [
        ["Hello", [0.1, 0.3], "SPEAKER_MAIN"],
        ["there.", [0.35, 0.6], "SPEAKER_MAIN"],
        ["Hi.", [1.5, 1.8], "OTHER"],
        [None, [2.0, 2.1], "SPEAKER_MAIN"],
        ["late", [3.9, 9.9], "SPEAKER_MAIN"],
        ["odd"],
    ]
    text(tmp_path / "in/data_stereo/a.json", {"alignments": words})
    lines(tmp_path / "in/data.jsonl", {"path": "data_stereo/a.wav", "duration": 4.0})
    corpus = prepared(tmp_path)
    assert [entry[1:] for entry in said(corpus)] == [
        ("data_stereo/a-SPEAKER_MAIN", "Hello there.", 0, 0.1, 0.6),
        ("data_stereo/a-OTHER", "Hi.", 1, 1.5, 1.8),
    ]
    kept = [line.split('"words"')[1] for line in (corpus.root / "words.jsonl").read_text().splitlines()]
    assert "0.35" in kept[0] and "Hi." in kept[1]
    reasons = ledger(corpus)
    for reason in ("word is null", "end is 9.900 s", "expected [", "the duration, 4.000 s"):
        assert reason in reasons
    assert corpus.info["turns_rejected"] == 3


def test_a_channel_without_words_and_a_recording_that_no_line_names_are_in_the_ledger(tmp_path) -> None:
    for name in "ab":
        sound(tmp_path / f"in/{name}.wav", channels=2)
        text(tmp_path / f"in/{name}.json", {"alignments": [["Yes", [0.1, 0.3], "SPEAKER_MAIN"]]})
    lines(tmp_path / "in/data.jsonl", {"path": "a.wav", "duration": 2.0}, {"path": "gone.wav"})
    corpus = prepared(tmp_path, layout="moshi")
    assert [turn.text for turn in corpus.turns()] == ["Yes"]
    reasons = ledger(corpus)
    assert "no alignment is of this channel" in reasons and "no line of a .jsonl names" in reasons
    assert "'gone.wav': expected a file of that name" in reasons
