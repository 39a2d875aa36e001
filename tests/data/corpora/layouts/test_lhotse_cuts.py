"""Lhotse's manifests."""

from csm.data.word_times import read_words
from tests.data.corpora.layouts.small_trees import ledger, lines, prepared, said, sound


def test_recordings_with_supervisions_and_cuts_hold_the_same_turns(tmp_path) -> None:
    path = sound(tmp_path / "in/audio/talk.wav", channels=2)
    source = {"type": "file", "channels": [0, 1], "source": "audio/talk.wav"}
    recording = {
        "id": "talk",
        "sources": [source],
        "sampling_rate": 16000,
        "num_samples": 32000,
        "duration": 2.0,
    }
    word = {"word": [["well", 0.1, 0.3, 0.9], ["hello", 0.5, 0.4, None]]}
    first = {
        "id": "s1",
        "recording_id": "talk",
        "start": 0.1,
        "duration": 0.8,
        "channel": 0,
        "speaker": "ann",
    }
    first |= {"text": "well hello", "alignment": word}
    second = {
        **first,
        "id": "s2",
        "start": 1.0,
        "duration": 0.5,
        "channel": [1],
        "speaker": "ben",
        "text": "hi",
    }
    bad = {**first, "id": "s3", "text": None}
    lines(tmp_path / "in/recordings.jsonl", recording)
    lines(tmp_path / "in/supervisions.jsonl", first, second, bad, {**first, "recording_id": "gone"})
    corpus = prepared(tmp_path)
    expected = [("talk", "ann", "well hello", 0, 0.1, 0.9), ("talk", "ben", "hi", 1, 1.0, 1.5)]
    assert said(corpus) == expected and path.is_file()
    assert "text is null" in ledger(corpus) and "recording_id is 'gone'" in ledger(corpus)
    for name in ("recordings", "supervisions"):
        (tmp_path / f"in/{name}.jsonl").unlink()
    shifted = [{**entry, "start": entry["start"] - 0.1} for entry in ({**first, "alignment": {}}, second)]
    cut = {
        "id": "c",
        "type": "MultiCut",
        "start": 0.1,
        "duration": 1.9,
        "channel": [0, 1],
        "recording": recording,
    }
    lines(tmp_path / "in/cuts.jsonl", {**cut, "supervisions": shifted})
    (tmp_path / "out").rename(tmp_path / "before")
    assert said(prepared(tmp_path)) == expected


def test_a_supervision_in_two_cuts_is_one_turn_and_damaged_lines_are_named(tmp_path) -> None:
    sound(tmp_path / "in/talk.wav")
    recording = {"id": "talk", "sources": [{"type": "file", "channels": [0], "source": "talk.wav"}]}
    spoken = {
        "id": "s",
        "recording_id": "talk",
        "start": 0.8,
        "duration": 0.4,
        "text": "hi",
        "speaker": "ann",
    }
    cut = {"type": "MonoCut", "start": 0, "duration": 1.0, "recording": recording, "supervisions": [spoken]}
    later = {**cut, "start": 0.9, "supervisions": [{**spoken, "start": -0.1}, {**spoken, "id": None}, 5]}
    lines(tmp_path / "in/cuts.jsonl", cut, later, 5, {**cut, "supervisions": 5})
    corpus = prepared(tmp_path)
    assert said(corpus) == [("talk", "ann", "hi", 0, 0.8, 1.2)]
    for reason in ("id is null", "line 3", "supervisions are int"):
        assert reason in ledger(corpus)
    assert corpus.info["turns_rejected"] == 4


def test_words_of_a_supervision_that_begins_before_its_cut_are_kept(tmp_path) -> None:
    sound(tmp_path / "in/talk.wav")
    recording = {"id": "talk", "sources": [{"type": "file", "channels": [0], "source": "talk.wav"}]}
    spoken = {"id": "s", "recording_id": "talk", "start": -0.3, "duration": 0.6, "text": "oh hi"}
    spoken |= {"speaker": "ann", "alignment": {"word": [["oh", -0.3, 0.2, None], ["hi", 0.1, 0.2, None]]}}
    cut = {"type": "MonoCut", "start": 0.3, "duration": 1.0, "recording": recording}
    lines(tmp_path / "in/cuts.jsonl", {**cut, "supervisions": [spoken]})
    corpus = prepared(tmp_path)
    assert said(corpus) == [("talk", "ann", "oh hi", 0, 0.0, 0.6)] and ledger(corpus) == ""
    assert [word[1:] for word in read_words(corpus.root)["s"]] == [(0.0, 0.2), (0.4, 0.6)]
