"""csm-hf's conversations as messages."""

from tests.data.corpora.layouts.small_trees import ledger, lines, prepared, said, sound


def message(role: str, spoken: str | None, url: str) -> dict:
    content = [{"type": "text", "text": spoken}, {"type": "audio", "url": url}]
    return {"role": role, "content": content}


def test_messages_are_turns_and_roles_are_people_of_their_conversation(tmp_path) -> None:
    sound(tmp_path / "in/clips/a.wav")
    first = [message("speaker_0", "Hi.", "clips/a.wav"), message("speaker_1", None, "clips/a.wav")]
    second = [
        message("speaker_0", "So.", "clips/a.wav"),
        {"role": "speaker_1", "content": [{"type": "text"}]},
    ]
    lines(
        tmp_path / "in/train.jsonl",
        {"messages": first, "training_mask": [False, True]},
        {"messages": second},
        {"Messages": []},
    )
    corpus = prepared(tmp_path)
    assert [entry[:3] for entry in said(corpus)] == [
        ("train-000000", "train-000000-speaker_0", "Hi."),
        ("train-000001", "train-000001-speaker_0", "So."),
    ]
    for reason in ("text is null", "content has text: expected text and audio", "has 'Messages'"):
        assert reason in ledger(corpus)


def test_parts_of_text_are_joined_and_two_recordings_are_refused(tmp_path) -> None:
    sound(tmp_path / "in/a.wav")
    parts = message("0", "Well,", "a.wav")
    parts["content"].append({"type": "text", "text": "hello."})
    twice = message("1", "So.", "a.wav")
    twice["content"].append({"type": "audio", "url": "a.wav"})
    lines(tmp_path / "in/m.jsonl", {"messages": [parts, twice]}, 5)
    corpus = prepared(tmp_path)
    assert [turn.text for turn in corpus.turns()] == ["Well, hello."]
    assert "2 parts of audio: expected one" in ledger(corpus) and "m.jsonl, line 2" in ledger(corpus)
