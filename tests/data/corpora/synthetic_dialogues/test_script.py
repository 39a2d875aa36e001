"""The script is a pure function of a conversation's index, balanced in every block of 20."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from csm.data.corpora.synthetic_dialogues import script
from csm.data.corpora.synthetic_dialogues.voices import held_out_speakers
from csm.data.manifest import file_safe, split_of


@pytest.fixture
def chats(monkeypatch):
    """Chats as the package gives them, without the package."""
    dialogues = [(f"chat-{n:08d}", [(n % 2, f"Line {word}.") for word in "abcd"]) for n in range(400)]
    monkeypatch.setattr(script, "chat_dialogues", lambda cache, is_word: iter(dialogues))


def made(count: int) -> list[script.Script]:
    return list(islice(script.scripts(Path("unused"), lambda word: True), count))


def test_two_calls_give_the_same_conversations(chats):
    assert made(60) == made(60)


def test_a_block_holds_every_kind(chats):
    kinds = Counter(s.kind for s in made(200))
    assert kinds["chat"] > kinds["template"] > kinds["lines"] > kinds["coverage"] >= 10


def test_a_twin_has_the_texts_and_the_split_of_its_original_and_other_speakers(chats):
    found = {s.id: s for s in made(400)}
    twins = [s for s in found.values() if s.id.endswith("-twin")]
    assert len(twins) == 40
    for twin in twins:
        original = found[twin.id.removesuffix("-twin")]
        assert [u.text for u in twin.turns] == [u.text for u in original.turns]
        assert twin.split == original.split
        assert not {u.speaker.name for u in twin.turns} & {u.speaker.name for u in original.turns}


def test_held_out_speakers_appear_in_test_conversations_alone(chats):
    held_out = set(held_out_speakers())
    splits = {s.split for s in made(600) if {u.speaker.name for u in s.turns} & held_out}
    assert splits == {"test"}


def test_no_acted_line_of_a_held_out_conversation_is_spoken(chats):
    for s in made(600):
        if s.kind == "lines":
            assert split_of(s.id.split("-")[1]) == "train" and s.split == "train"


def test_ids_are_unique_and_safe_file_names(chats):
    ids = [s.id for s in made(800)]
    assert len(set(ids)) == len(ids) and all(file_safe(name) == name for name in ids)


def test_a_conversation_has_two_speakers_without_a_common_voice(chats):
    for s in made(300):
        first, *others = {u.speaker.name: u.speaker for u in s.turns}.values()
        for other in others:
            assert not {voice for voice, _ in first.parts} & {voice for voice, _ in other.parts}
